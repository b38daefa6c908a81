//! What a service's HTTP API looks like from outside: its operations, as OpenAPI 3.1 has them. Bodies are derived from the types that are
//! sent; what stands here beside them (who may call, which problems there are) is held to the running shop by tests.

/// One operation: a method of a path.
mod operation;

/// Schemas of what is said everywhere.
pub mod schemas;

use schemars::{
    SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

pub use operation::{Input, Operation, Who};

/// Operations of one or more services, and the schemas that they name.
#[derive(Debug)]
pub struct Api {
    paths: Map<String, Value>,
    sent: SchemaGenerator,
    read: SchemaGenerator,
}

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    /// No operation yet.
    pub fn new() -> Self {
        let settings = |contract: Contract| {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
                settings.contract = contract;
            })
        };
        // What is read may leave out what has a default, so its schema is another one: it stands where it is used.
        let read = settings(Contract::Deserialize).with(|settings| settings.inline_subschemas = true);
        Self { paths: Map::new(), sent: settings(Contract::Serialize).into_generator(), read: read.into_generator() }
    }

    /// And `operation`.
    pub fn add(&mut self, operation: Operation) {
        let (path, method) = (operation.path().to_owned(), operation.method().to_owned());
        let described = operation.describe(&mut self.sent, &mut self.read);
        let path = self.paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(method, described);
        }
    }

    /// The whole document; `info` says what it is about, `tags` what its parts are.
    pub fn document(mut self, info: &Value, tags: &[(&str, &str)]) -> Value {
        self.sent.subschema_for::<crate::Problem>();
        let mut schemas = self.read.take_definitions(true);
        schemas.extend(self.sent.take_definitions(true));
        let tags: Vec<Value> = tags.iter().map(|(name, says)| json!({"name": name, "description": says})).collect();
        json!({
            "openapi": "3.1.1",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": info,
            "servers": [{"url": "/"}],
            "tags": tags,
            "paths": self.paths,
            "components": {"schemas": schemas, "securitySchemes": schemas::security(), "headers": schemas::headers()},
        })
    }
}
