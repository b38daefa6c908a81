//! What `cascade tokens` shows to people.

use serde_json::Value;

use super::Token;
use crate::table;

/// The columns of the list.
const HEAD: [&str; 5] = ["NAME", "CREATED", "EXPIRES", "LAST USED", "MAY"];

/// One line a token, in columns.
pub(super) fn draw(tokens: &[Token]) -> String {
    if tokens.is_empty() {
        return String::from("There are no tokens. `cascade tokens create` makes one.\n");
    }
    table::draw(&HEAD, tokens.iter().map(row), None)
}

fn row(token: &Token) -> [String; 5] {
    let expires = match (&token.expires_at, token.is_expired) {
        (None, _) => String::from("never"),
        (Some(at), true) => format!("{}, over", day(at)),
        (Some(at), false) => day(at),
    };
    let used = token.last_used_day.clone().unwrap_or_else(|| String::from("never"));
    let mut may = may(&token.scopes);
    if let Some(until) = &token.previous_until {
        may.push_str(&format!(" (the one before is valid until {})", time(until)));
    }
    [printable(&token.name), day(&token.created_at), expires, used, may]
}

/// What scopes let somebody do, in words.
pub(super) fn may(scopes: &Value) -> String {
    let list = |value: &Value| {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.map(printable).collect::<Vec<_>>().join(",")
    };
    let mut parts = Vec::new();
    if let Some(publish) = scopes.get("publish") {
        let source = publish["source"].as_str().map(printable).unwrap_or_default();
        parts.push(format!("publish {} as {source}", list(&publish["types"])));
    }
    if let Some(subscribe) = scopes.get("subscribe") {
        parts.push(format!("subscribe to {} as {}", list(&subscribe["types"]), list(&subscribe["names"])));
    }
    if let Some(read) = scopes.get("read") {
        let whose = if read["owners"] == true { " of anybody" } else { "" };
        parts.push(format!("read {}{whose}", list(&read["types"])));
    }
    if let Some(operate) = scopes.get("operate") {
        parts.push(format!("operate {}", list(operate)));
    }
    if scopes.get("tokens").is_some() {
        parts.push(String::from("make tokens"));
    }
    parts.join("; ")
}

/// A time without what nobody reads: seconds and below.
pub(super) fn time(rfc3339: &str) -> String {
    let text = printable(rfc3339);
    match text.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", time.chars().take(5).collect::<String>()),
        None => text,
    }
}

fn day(rfc3339: &str) -> String {
    printable(rfc3339).chars().take(10).collect()
}

fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_has_columns_and_says_what_each_token_may() {
        let token = |name: &str, scopes: Value, expires_at: Option<&str>| Token {
            name: name.into(),
            scopes,
            created_at: "2026-11-24T06:21:25.293Z".into(),
            expires_at: expires_at.map(str::to_owned),
            is_expired: expires_at.is_some(),
            rotated_at: None,
            previous_until: None,
            last_used_day: None,
        };
        let scopes =
            json!({"publish": {"source": "/loyalty", "types": ["loyalty.*"]}, "subscribe": {"names": ["loyalty"], "types": ["a", "b"]}});
        let tokens = [token("loyalty", scopes, None), token("ops", json!({"operate": ["*"]}), Some("2026-11-25T06:00:00.000Z"))];
        assert_eq!(
            draw(&tokens),
            "NAME     CREATED     EXPIRES           LAST USED  MAY\n\
             loyalty  2026-11-24  never             never      publish loyalty.* as /loyalty; subscribe to a,b as loyalty\n\
             ops      2026-11-24  2026-11-25, over  never      operate *\n"
        );
        assert_eq!(time("2026-11-24T06:21:25.293Z"), "2026-11-24 06:21 UTC");
        let all = json!({"read": {"types": ["a.*"], "owners": true}, "tokens": true});
        assert_eq!(may(&all), "read a.* of anybody; make tokens");
        assert!(draw(&[]).contains("no tokens"));
    }
}
