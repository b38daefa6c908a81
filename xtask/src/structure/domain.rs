//! What a `domain.rs` may say: it is pure, and it matches every variant by name.

use super::{
    Violation,
    manifests::Manifest,
    source::{Source, Token},
};

/// Crates that a domain may name, and what of each; an empty list is all of it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("contract", &[]),
    ("kit", &["clock", "Context", "EventId", "ids", "Position", "step", "Step", "Timestamp"]),
    ("serde", &[]),
    ("thiserror", &[]),
    ("crate", &["domain"]),
];

/// Parts of `std` that reach the world.
const IMPURE: &[&str] = &["env", "fs", "io", "net", "os", "process", "thread"];

/// Words that have no place in a pure function.
const IMPURE_WORDS: &[&str] = &["async", "await", "Ids", "Instant", "SystemClock", "SystemTime"];

/// Checks a file that belongs to a domain; all others pass.
pub(super) fn check(source: &Source, workspace: &Manifest) -> Vec<Violation> {
    if !is_domain(&source.path) || source.is_test(1) {
        return Vec::new();
    }
    // A service cannot name itself: what is called like it is a module of its domain.
    let service = source.path.split('/').nth(1).unwrap_or_default();
    let foreign: Vec<String> = workspace.crate_names().filter(|name| name != service).collect();
    let tokens = &source.production();
    let mut violations = Vec::new();
    let mut add = |line, rule, advice| violations.push(Violation { path: source.path.clone(), line, rule, advice });
    for (index, token) in tokens.iter().enumerate() {
        if IMPURE_WORDS.contains(&token.text.as_str()) {
            add(token.line, "pure-domain", format!("`{}` is not pure: time arrives as `now`, ids in the input", token.text));
        }
        if let Some(end) = catch_all_end(tokens, index)
            && tokens.get(end).is_some_and(|token| matches!(token.text.as_str(), "=>" | "if"))
        {
            add(token.line, "every-variant", String::from("a `_` arm hides the next variant: name the ones that it stands for"));
        }
        for (line, name) in roots(tokens, index) {
            if let Some(advice) = advise_on(&name, &foreign, source.name() == "domain.rs") {
                add(line, "pure-domain", advice);
            }
        }
    }
    violations
}

fn is_domain(path: &str) -> bool {
    path.starts_with("services/") && (path.ends_with("/src/domain.rs") || path.contains("/src/domain/"))
}

/// Where the pattern that begins at `index` ends, if it begins an arm and matches everything: `_`, or `(_, _)`.
fn catch_all_end(tokens: &[&Token], index: usize) -> Option<usize> {
    let before = index.checked_sub(1).and_then(|before| tokens.get(before)).map(|token| token.text.as_str());
    if !matches!(before, Some("{" | "}" | "," | "|")) {
        return None;
    }
    let (mut depth, mut is_catch_all) = (0_usize, false);
    for (end, token) in tokens.iter().enumerate().skip(index) {
        match token.text.as_str() {
            "_" => is_catch_all = true,
            "(" => depth += 1,
            ")" if depth > 0 => depth -= 1,
            "," if depth > 0 => {}
            _ => return (is_catch_all && depth == 0).then_some(end),
        }
    }
    None
}

/// The crates that a path beginning at `index` reaches into, each with what it names there: `kit::{Step, clock::Timestamp}` gives
/// `kit::Step` and `kit::clock`.
fn roots(tokens: &[&Token], index: usize) -> Vec<(usize, String)> {
    let begins = index.checked_sub(1).and_then(|before| tokens.get(before)).is_none_or(|before| before.text != "::");
    let (Some(first), Some("::")) = (tokens.get(index), tokens.get(index + 1).map(|token| token.text.as_str())) else {
        return Vec::new();
    };
    if !begins || !first.is_word() {
        return Vec::new();
    }
    let name = |second: &Token| (second.line, format!("{}::{}", first.text, second.text));
    match tokens.get(index + 2) {
        Some(second) if second.text == "{" => {
            let mut depth = 0_usize;
            let mut names = Vec::new();
            let mut previous = "";
            for token in tokens.iter().skip(index + 2) {
                match token.text.as_str() {
                    "{" => depth += 1,
                    "}" if depth == 1 => break,
                    "}" => depth -= 1,
                    _ if depth == 1 && matches!(previous, "{" | ",") => names.push(name(token)),
                    _ => {}
                }
                previous = &token.text;
            }
            names
        }
        Some(second) => vec![name(second)],
        None => Vec::new(),
    }
}

/// What is wrong with reaching for `path`, a crate and what is named in it.
fn advise_on(path: &str, foreign: &[String], is_door: bool) -> Option<String> {
    let (root, name) = path.split_once("::")?;
    match root {
        "std" | "core" if IMPURE.contains(&name) => Some(format!("`{path}` reaches the world: a domain decides, the kit acts")),
        "std" | "core" | "self" => None,
        // Above the door is the service; above a room of the domain is the door.
        "super" if is_door => Some(format!("`{path}` is outside the domain: pass what is needed in")),
        _ => match ALLOWED.iter().find(|(allowed, _)| *allowed == root) {
            Some((_, names)) if names.is_empty() || names.contains(&name) => None,
            Some((_, names)) => Some(format!("a domain may not name `{path}`; of `{root}` it may name {}", names.join(", "))),
            None if foreign.iter().any(|known| known == root) => {
                Some(format!("a domain may not name `{path}`; it may name std, contract, thiserror, serde and the kit's plain data"))
            }
            None => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::manifests;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let workspace = manifests::tests_only("[workspace.dependencies]\nkit = {}\nrusqlite = {}\ntracing = {}\nserde_json = {}\n");
        check(&Source::new(path, text), &workspace).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    fn door(text: &str) -> Vec<(usize, &'static str)> {
        rules("services/order/src/domain.rs", text)
    }

    #[test]
    fn a_pure_domain_passes() {
        let text = "use std::{collections::BTreeMap, fmt};\nuse contract::{Money, events::*};\nuse kit::{Step, Timestamp, ids::EventId};\n\
                    mod lines;\nuse self::lines::Line;\n\
                    fn f(_: Money, x: X) { match x { X::A(_) | X::B(_, _) => Status::Open, (X::C, _) => Status::Shut } }\n\
                    #[cfg(test)]\nmod tests { use testkit::given; use kit::Machine; }";
        assert_eq!(door(text), []);
    }

    #[test]
    fn what_reaches_the_world_is_found_wherever_it_is_named() {
        assert_eq!(door("use kit::{Step,\n Machine};"), [(2, "pure-domain")]);
        assert_eq!(door("fn f() {\n tracing::info!(\"x\"); }"), [(2, "pure-domain")]);
        assert_eq!(door("use std::fs;\nuse rusqlite::Connection;"), [(1, "pure-domain"), (2, "pure-domain")]);
        assert_eq!(door("use crate::store::find;"), [(1, "pure-domain")]);
        assert_eq!(door("use crate::{domain::A, http::B};"), [(1, "pure-domain")]);
        assert_eq!(door("use super::store;"), [(1, "pure-domain")]);
        assert_eq!(door("async fn f() {}"), [(1, "pure-domain")]);
        assert_eq!(door("use kit::ids::Ids;"), [(1, "pure-domain")]);
    }

    #[test]
    fn a_room_of_the_domain_follows_the_same_rules_and_may_name_its_door() {
        assert_eq!(rules("services/order/src/domain/lines.rs", "use super::Order;\nuse crate::domain::Line;"), []);
        assert_eq!(rules("services/order/src/domain/lines.rs", "use serde_json::Value;"), [(1, "pure-domain")]);
        assert_eq!(rules("services/order/src/http.rs", "use serde_json::Value;"), []);
        assert_eq!(rules("services/tracing/src/domain/lines.rs", "use super::tracing; fn f() { tracing::decide() }"), []);
    }

    #[test]
    fn an_arm_for_everything_else_is_found() {
        assert_eq!(door("fn f() { match x { A => 1,\n _ => 2 } }"), [(2, "every-variant")]);
        assert_eq!(door("fn f() { match x { A => {}\n _ if y => 2 } }"), [(2, "every-variant")]);
        assert_eq!(door("fn f() { match x { A => 1,\n (_, _) => 2 } }"), [(2, "every-variant")]);
        assert_eq!(door("fn f() { match x { A => 1, B(_) => 2, C { d: _ } => 3 } }"), []);
    }
}
