//! `cascade tokens`: makes, lists, replaces and revokes tokens for programs that are no part of the shop.

/// What it takes.
mod flags;

/// What it shows.
mod table;

use std::io::Write;

use anyhow::Context;
use axum::http::Method;
use kit::{Environment, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::operator::{self, Shop};
use flags::{Action, Scopes};
pub(crate) use flags::{HELP, TokensFlags};

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A token as the shop shows it.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    name: String,
    scopes: Value,
    created_at: String,
    expires_at: Option<String>,
    is_expired: bool,
    rotated_at: Option<String>,
    previous_until: Option<String>,
    last_used_day: Option<String>,
}

/// One that was just made.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    token: String,
    #[serde(flatten)]
    shown: Token,
}

/// Does what the flags say.
pub(crate) fn run(flags: &TokensFlags) -> anyhow::Result<()> {
    let environment = Environment::real()?;
    let shop = flags.access.shop(&environment)?;
    let now = environment.clock.now();
    operator::block_on(async {
        match &flags.action {
            Action::Create { name, scopes, expires_days, json } => {
                let mut body = json!({"name": name, "scopes": to_json(scopes)});
                set_expiry(&mut body, *expires_days, now);
                let made = shop.ask(Method::POST, "/api/tokens", Some(&body)).await?;
                show_made(&made, *json, "")
            }
            Action::List { json } => list(&shop, *json).await,
            Action::Rotate { name, grace_hours, expires_days, json } => {
                let mut body = json!({"grace_s": grace_hours * 3_600});
                set_expiry(&mut body, *expires_days, now);
                let made: Made = shop.ask(Method::POST, &format!("/api/tokens/{name}/rotate"), Some(&body)).await?;
                let until = made.shown.previous_until.as_ref().map_or_else(
                    || String::from(" The one before it has ended."),
                    |until| format!(" The one before it is valid until {}.", table::time(until)),
                );
                show_made(&made, *json, &until)
            }
            Action::Revoke { name } => {
                shop.ask::<Value>(Method::DELETE, &format!("/api/tokens/{name}"), None).await?;
                print(&format!("The token `{name}` has ended, and what it registered is sent nothing any more.\n"))
            }
        }
    })
}

async fn list(shop: &Shop, json: flags::Form) -> anyhow::Result<()> {
    #[derive(Serialize, Deserialize)]
    struct List {
        items: Vec<Token>,
    }
    let list: List = shop.ask(Method::GET, "/api/tokens", None).await?;
    if json.is_json() {
        return print(&format!("{}\n", serde_json::to_string(&list)?));
    }
    print(&table::draw(&list.items))
}

/// The token alone goes to stdout, so that it can be put into a file; what there is to say goes beside it.
fn show_made(made: &Made, json: flags::Form, more: &str) -> anyhow::Result<()> {
    if json.is_json() {
        return print(&format!("{}\n", serde_json::to_string(made)?));
    }
    print(&format!("{}\n", made.token))?;
    let end = made.shown.expires_at.as_deref().map_or_else(String::new, |at| format!(", until {}", table::time(at)));
    let said = format!("The token `{}` may {}{end}. It is shown this once.{more}\n", made.shown.name, table::may(&made.shown.scopes));
    let _ = std::io::stderr().write_all(said.as_bytes());
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("stdout")
}

fn set_expiry(body: &mut Value, days: Option<u64>, now: Timestamp) {
    if let (Some(days), Value::Object(map)) = (days, body) {
        map.insert(String::from("expires_at"), json!(now.plus_ms(days.saturating_mul(DAY_MS)).to_rfc3339()));
    }
}

fn to_json(scopes: &Scopes) -> Value {
    let mut map = Map::new();
    if let Some(source) = &scopes.publish_as {
        map.insert("publish".into(), json!({"source": source, "types": scopes.publish}));
    }
    if !scopes.subscribe_as.is_empty() {
        map.insert("subscribe".into(), json!({"names": scopes.subscribe_as, "types": scopes.subscribe}));
    }
    if !scopes.read.is_empty() {
        map.insert("read".into(), json!({"types": scopes.read, "owners": scopes.read_owners}));
    }
    if !scopes.operate.is_empty() {
        map.insert("operate".into(), json!(scopes.operate));
    }
    if scopes.manage_tokens {
        map.insert("tokens".into(), json!(true));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn scopes(flags: &[&str]) -> Value {
        let arguments = ["cascade", "tokens", "create", "loyalty"].iter().chain(flags);
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Tokens(TokensFlags { action: Action::Create { scopes, .. }, .. }) => to_json(&scopes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_say_what_a_token_may_do() {
        assert_eq!(
            scopes(&["--publish-as", "/loyalty", "--publish", "loyalty.*,points.Given.v1"]),
            json!({"publish": {"source": "/loyalty", "types": ["loyalty.*", "points.Given.v1"]}})
        );
        assert_eq!(
            scopes(&["--subscribe-as", "loyalty", "--subscribe", "a", "--read", "b", "--operate", "*", "--manage-tokens"]),
            json!({
                "subscribe": {"names": ["loyalty"], "types": ["a"]}, "read": {"types": ["b"], "owners": false},
                "operate": ["*"], "tokens": true,
            })
        );
        assert_eq!(scopes(&["--read", "b", "--read-owners"]), json!({"read": {"types": ["b"], "owners": true}}));
    }

    #[test]
    fn what_belongs_together_is_given_together() {
        for flags in [&[][..], &["--publish-as", "/a"], &["--publish", "a"], &["--subscribe-as", "a"], &["--read-owners"]] {
            let arguments = ["cascade", "tokens", "create", "loyalty"].iter().chain(flags);
            assert!(Cli::try_parse_from(arguments).is_err(), "{flags:?}");
        }
    }
}
