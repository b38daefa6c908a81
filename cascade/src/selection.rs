//! Which events are meant: by their types, and by filters as subscriptions have them.

use clap::Args;
use serde_json::{Map, Value, json};

/// Flags that choose events.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Events of these types, separated by commas, as `OrderCreated` or whole.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = event_type)]
    pub(crate) types: Vec<String>,

    /// Events for which these filters hold, as JSON: '[{"exact": {"source": "/order"}}]'.
    #[arg(long, value_name = "JSON", value_parser = filters)]
    pub(crate) filters: Option<Value>,
}

impl Selection {
    /// Whether nothing is chosen.
    pub(crate) fn is_empty(&self) -> bool {
        self.types.is_empty() && self.filters.is_none()
    }

    /// Writes it into the body of a request.
    pub(crate) fn write(&self, body: &mut Map<String, Value>) {
        if !self.types.is_empty() {
            body.insert("types".into(), json!(self.types));
        }
        if let Some(filters) = &self.filters {
            body.insert("filters".into(), filters.clone());
        }
    }
}

/// A type as the log has it: what the shop's own events are called is enough for them.
pub(crate) fn event_type(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it must be a type of events, such as OrderCreated");
    }
    let whole = contract::events::CATALOGUE.iter().map(|(whole, _)| *whole);
    let known = whole.into_iter().find(|whole| whole.split('.').nth(1) == Some(text));
    Ok(known.unwrap_or(text).to_owned())
}

fn filters(text: &str) -> Result<Value, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("it must be JSON: {error}"))?;
    if json.is_array() { Ok(json) } else { Err(String::from("it must be a list: [{\"exact\": {…}}, …]")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shops_own_types_may_be_shortened() {
        assert_eq!(event_type("OrderCreated").as_deref(), Ok("cascade.OrderCreated.v1"));
        for whole in ["cascade.OrderCreated.v1", "loyalty.PointsEarned.v1", "Ordercreated"] {
            assert_eq!(event_type(whole).as_deref(), Ok(whole));
        }
        assert!(event_type("").is_err());
    }

    #[test]
    fn filters_are_a_list() {
        assert!(filters(r#"[{"exact": {"source": "/order"}}]"#).is_ok_and(|json| json.is_array()));
        assert!(filters(r#"{"exact": {}}"#).is_err_and(|said| said.contains("list")));
        assert!(filters("[").is_err_and(|said| said.contains("JSON")));
    }
}
