//! One operation: who may call it, what it takes, what it answers.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever likes.
    Everybody,
    /// A customer, by their session.
    Guest,
    /// A service of the shop, by its bearer token.
    Service,
    /// Whoever operates the shop, by their bearer token.
    Operator,
    /// An outsider, by a token with this scope.
    Token(&'static str),
}

/// A parameter in a path, a query or a header.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Which texts it may be.
    pub schema: Value,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A method of a path.
#[derive(Debug, Clone)]
pub struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    tag: &'static str,
    who: Vec<Who>,
    parameters: Vec<Value>,
    bodies: Vec<Body>,
    is_body_required: bool,
    answers: Vec<Answer>,
    problems: BTreeMap<u16, Vec<&'static str>>,
}

#[derive(Debug, Clone)]
struct Body {
    media: &'static str,
    schema: Shape,
    examples: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    says: &'static str,
    content: Vec<(&'static str, Shape)>,
    headers: Vec<&'static str>,
    examples: Vec<Value>,
}

/// Where the schema of something comes from.
#[derive(Debug, Clone)]
enum Shape {
    Derived(SchemaOf),
    Written(Value),
}

impl Operation {
    /// `method` (in lower case) of `path`, called `id`.
    pub fn new((method, path): (&'static str, &'static str), id: &'static str, summary: &'static str) -> Self {
        let operation = Self {
            method,
            path,
            id,
            summary,
            description: None,
            tag: "",
            who: Vec::new(),
            parameters: Vec::new(),
            bodies: Vec::new(),
            is_body_required: true,
            answers: Vec::new(),
            problems: BTreeMap::new(),
        };
        // What stands around every route may answer these.
        let operation = operation.problems(400, &["missing_host"]).problems(421, &["unknown_host"]);
        let operation = operation.problems(500, &["internal"]).problems(503, &["unavailable"]);
        if matches!(method, "get" | "options") { operation } else { operation.problems(403, &["forbidden"]) }
    }

    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// And more about it, as CommonMark.
    #[must_use]
    pub fn says(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// And which part of the API it belongs to.
    #[must_use]
    pub fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    /// And who may call it. Whoever comes with a bearer token that is not ours is refused anywhere but where nobody looks who asks.
    #[must_use]
    pub fn by(mut self, who: &[Who]) -> Self {
        self.who = who.to_vec();
        let is_outsider = who.iter().any(|who| matches!(who, Who::Token(_)));
        let operation = self.problems(401, &["unauthorized"]);
        if is_outsider {
            operation.problems(401, &["malformed_token", "unknown_token", "expired_token"]).problems(403, &["forbidden", "missing_scope"])
        } else {
            operation
        }
    }

    /// And nobody looks who calls it.
    #[must_use]
    pub fn by_everybody(mut self) -> Self {
        self.who = vec![Who::Everybody];
        self
    }

    /// And a part of its path.
    #[must_use]
    pub fn with_path(mut self, input: &Input) -> Self {
        let Input { name, says, schema } = input;
        self.parameters.push(json!({"in": "path", "name": name, "required": true, "description": says, "schema": schema}));
        self.problems(404, &["not_found"])
    }

    /// And what its query may have.
    #[must_use]
    pub fn with_query(mut self, inputs: &[Input]) -> Self {
        for Input { name, says, schema } in inputs {
            self.parameters.push(json!({"in": "query", "name": name, "description": says, "schema": schema}));
        }
        self.problems(400, &["invalid_query"])
    }

    /// And a header that it takes.
    #[must_use]
    pub fn with_header(mut self, input: &Input) -> Self {
        let Input { name, says, schema } = input;
        self.parameters.push(json!({"in": "header", "name": name, "description": says, "schema": schema}));
        self
    }

    /// And a body of the type `T`.
    #[must_use]
    pub fn takes<T: JsonSchema>(self, media: &'static str, examples: Vec<Value>) -> Self {
        self.take(media, Shape::Derived(SchemaGenerator::subschema_for::<T>), examples)
    }

    /// And a body of this schema.
    #[must_use]
    pub fn takes_what(self, media: &'static str, schema: Value, examples: Vec<Value>) -> Self {
        self.take(media, Shape::Written(schema), examples)
    }

    fn take(mut self, media: &'static str, schema: Shape, examples: Vec<Value>) -> Self {
        self.bodies.push(Body { media, schema, examples });
        self.problems(400, &["unreadable_body"])
            .problems(408, &["body_timeout"])
            .problems(413, &["body_too_large"])
            .problems(415, &["unsupported_media_type"])
            .problems(400, &["malformed_json"])
            .problems(422, &["invalid_body"])
    }

    /// And the body may be left out.
    #[must_use]
    pub fn takes_nothing_too(mut self) -> Self {
        self.is_body_required = false;
        self
    }

    /// And it may answer `status` with a `T`.
    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: u16, says: &'static str) -> Self {
        self.answers_as::<T>("application/json", status, says)
    }

    /// And it may answer `status` with a `T` that has a media type of its own.
    #[must_use]
    pub fn answers_as<T: JsonSchema>(self, media: &'static str, status: u16, says: &'static str) -> Self {
        self.answer(status, says, vec![(media, Shape::Derived(SchemaGenerator::subschema_for::<T>))])
    }

    /// And it may answer `status` with one of these media types and schemas, or, if there are none, with nothing.
    #[must_use]
    pub fn answers_with(self, status: u16, says: &'static str, content: Vec<(&'static str, Value)>) -> Self {
        self.answer(status, says, content.into_iter().map(|(media, schema)| (media, Shape::Written(schema))).collect())
    }

    fn answer(mut self, status: u16, says: &'static str, content: Vec<(&'static str, Shape)>) -> Self {
        self.answers.push(Answer { status, says, content, headers: Vec::new(), examples: Vec::new() });
        self
    }

    /// And the last answer may have these headers, beside those that all have.
    #[must_use]
    pub fn with_headers(mut self, names: &[&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.extend(names);
        }
        self
    }

    /// And the last answer may look like this.
    #[must_use]
    pub fn such_as(mut self, example: Value) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.examples.push(example);
        }
        self
    }

    /// And it may answer a problem document of `status` with one of `codes`.
    #[must_use]
    pub fn problems(mut self, status: u16, codes: &[&'static str]) -> Self {
        let known = self.problems.entry(status).or_default();
        let new = codes.iter().filter(|code| !known.contains(code)).copied().collect::<Vec<_>>();
        known.extend(new);
        self
    }

    pub(super) fn describe(self, sent: &mut SchemaGenerator, read: &mut SchemaGenerator) -> Value {
        let mut described = Map::new();
        let mut put = |name: &str, value: Value| described.insert(name.to_owned(), value);
        put("operationId", json!(self.id));
        put("summary", json!(self.summary));
        if let Some(description) = self.description {
            put("description", json!(description));
        }
        put("tags", json!([self.tag]));
        put("security", self.who.iter().map(|who| who.describe()).collect());
        if !self.parameters.is_empty() {
            put("parameters", Value::Array(self.parameters));
        }
        if !self.bodies.is_empty() {
            let bodies = self
                .bodies
                .into_iter()
                .map(|Body { media, schema, examples }| (media.to_owned(), content(&schema.describe(read), examples)));
            put("requestBody", json!({"required": self.is_body_required, "content": bodies.collect::<Map<_, _>>()}));
        }
        let mut responses = Map::new();
        for Answer { status, says, content: shapes, headers, mut examples } in self.answers {
            let shown: Map<_, _> = shapes
                .into_iter()
                .map(|(media, shape)| (media.to_owned(), content(&shape.describe(sent), std::mem::take(&mut examples))))
                .collect();
            let mut response = json!({"description": says, "headers": references(&headers)});
            if let (false, Value::Object(fields)) = (shown.is_empty(), &mut response) {
                fields.insert("content".to_owned(), Value::Object(shown));
            }
            responses.insert(status.to_string(), response);
        }
        for (status, codes) in self.problems {
            responses.insert(status.to_string(), problem(status, &codes));
        }
        // Told before anybody is there who could say more.
        responses.insert("431".to_owned(), json!({"description": "The head of the request is larger than 32 KiB. There is no body."}));
        put("responses", Value::Object(responses));
        Value::Object(described)
    }
}

impl Who {
    fn describe(self) -> Value {
        match self {
            Self::Everybody => json!({}),
            Self::Guest => json!({"session": []}),
            Self::Service => json!({"service": []}),
            Self::Operator => json!({"operator": []}),
            Self::Token(scope) => json!({"token": [scope]}),
        }
    }
}

impl Shape {
    fn describe(self, generator: &mut SchemaGenerator) -> Value {
        match self {
            Self::Derived(schema) => schema(generator).to_value(),
            Self::Written(schema) => schema,
        }
    }
}

fn content(schema: &Value, examples: Vec<Value>) -> Value {
    let named = |(index, value): (usize, Value)| (format!("example-{}", index.saturating_add(1)), json!({"value": value}));
    let examples: Map<_, _> = examples.into_iter().enumerate().map(named).collect();
    if examples.is_empty() { json!({"schema": schema}) } else { json!({"schema": schema, "examples": examples}) }
}

fn references(names: &[&str]) -> Value {
    let headers = names.iter().chain(["x-request-id"].iter());
    headers.map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}))).collect::<Map<_, _>>().into()
}

fn problem(status: u16, codes: &[&str]) -> Value {
    let says = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    let schema = json!({"allOf": [
        {"$ref": "#/components/schemas/Problem"},
        {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
    ]});
    let headers: &[&str] = if matches!(status, 429 | 503) { &["retry-after"] } else { &[] };
    json!({
        "description": format!("{says}: {}.", codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")),
        "headers": references(headers),
        "content": {"application/problem+json": {"schema": schema}},
    })
}
