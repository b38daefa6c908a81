//! Tokens for outsiders.

use kit::describe::{Api, Operation, Who};
use serde_json::{Value, json};

use super::{grace, name, object, or_null};
use crate::{
    http::List,
    tokens::{Made, Shown},
};

const MANAGERS: &[Who] = &[Who::Operator, Who::Token("tokens")];

pub(super) fn describe(api: &mut Api) {
    let list = operation(("get", "/api/tokens"), "listTokens", "All tokens, by name");
    api.add(list.answers::<List<Shown>>(200, "What each lets its bearer do."));
    let example = json!({
        "name": "loyalty",
        "scopes": {
            "publish": {"source": "/loyalty", "types": ["loyalty.*"]},
            "subscribe": {"names": ["loyalty"], "types": ["cascade.OrderCompleted.v1"]},
        },
    });
    let new = json!({"name": name("").schema, "scopes": scopes(), "expires_at": expiry()});
    let create = operation(("post", "/api/tokens"), "createToken", "Makes a token")
        .takes_what("application/json", object(&["name", "scopes"], &new), vec![example])
        .answers::<Made>(201, "The token: the only time that it is shown.")
        .with_headers(&["location"]);
    api.add(kept(create).problems(409, &["token_exists", "too_many_tokens"]).problems(422, &["invalid_token"]));
    let name = name("The token's name.");
    let read = operation(("get", "/api/tokens/{name}"), "readToken", "What a token lets its bearer do").with_path(&name);
    api.add(read.answers::<Shown>(200, "The token, without its text."));
    let revoke = operation(("delete", "/api/tokens/{name}"), "revokeToken", "Ends a token at once").with_path(&name);
    api.add(kept(revoke.answers_with(204, "It is gone.", vec![])));
    let rotation = object(&[], &json!({"grace_s": grace(), "expires_at": expiry()}));
    let rotate = operation(("post", "/api/tokens/{name}/rotate"), "rotateToken", "Replaces a token by another one that may do the same")
        .with_path(&name)
        .takes_what("application/json", rotation, vec![json!({"grace_s": 0})])
        .takes_nothing_too()
        .answers::<Made>(200, "The new token: the only time that it is shown.");
    api.add(kept(rotate).problems(422, &["invalid_token"]));
}

fn operation(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    Operation::new(route, id, summary).tag("tokens").by(MANAGERS).problems(403, &["forbidden"])
}

/// What changes what is kept.
fn kept(operation: Operation) -> Operation {
    operation.problems(409, &["version_conflict"]).problems(429, &["busy"]).problems(503, &["disk_full"])
}

fn expiry() -> Value {
    or_null(&json!({"type": "string", "format": "date-time", "maxLength": 64, "description": "In the future."}))
}

fn scopes() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12()
        .for_deserialize()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    generator.subschema_for::<crate::tokens::scopes::Scopes>().to_value()
}
