//! What filters and lists of types look like, as JSON Schema: the limits of `parse` and of subscriptions, once more.

use std::borrow::Cow;

use kit::envelope::ATTRIBUTE_BYTES_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{CLAUSES_MAX, Filter, parse::NAME_BYTES_MAX};
use crate::subscriptions::wanted::{TYPE_BYTES_MAX, TYPES_MAX};

/// Types of events, for the schema alone.
pub(super) struct Types;

impl JsonSchema for Types {
    fn schema_name() -> Cow<'static, str> {
        "EventTypes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ty =
            json_schema!({"type": "string", "minLength": 1, "maxLength": TYPE_BYTES_MAX, "pattern": r"^[^\u0000-\u0020\u007f-\u009f]+$"});
        json_schema!({"type": "array", "minItems": 1, "maxItems": TYPES_MAX, "items": ty})
    }
}

impl JsonSchema for Filter {
    fn schema_name() -> Cow<'static, str> {
        "Filter".into()
    }

    /// It holds itself, and so never stands where it is used.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let filter = generator.subschema_for::<Self>();
        let text = json_schema!({
            "type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$",
        });
        let texts = json_schema!({
            "type": "object", "minProperties": 1, "maxProperties": CLAUSES_MAX,
            "propertyNames": {"pattern": format!("^[a-z0-9]{{1,{NAME_BYTES_MAX}}}$")},
            "additionalProperties": text,
        });
        let filters = json_schema!({"type": "array", "minItems": 1, "maxItems": CLAUSES_MAX, "items": filter});
        // A form for each dialect, not one object with at most one of six properties: whoever makes values by schemas finds the former.
        let dialects = [("exact", &texts), ("prefix", &texts), ("suffix", &texts), ("all", &filters), ("any", &filters), ("not", &filter)];
        let forms: Vec<_> = dialects
            .into_iter()
            .map(|(name, inner)| {
                json_schema!({"type": "object", "required": [name], "properties": {name: inner}, "additionalProperties": false})
            })
            .collect();
        json_schema!({"description": "A condition on an event, with one dialect. Filters nest at most 8 deep.", "oneOf": forms})
    }
}
