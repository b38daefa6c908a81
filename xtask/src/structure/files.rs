//! What belongs in which file, how long a file may be, what a test may not do.

use super::{
    Violation,
    source::{Source, Token},
};

/// The longest a file may be, tests apart, in lines.
const LINES_MAX: usize = 600;

/// Rooms that any service may have.
const ROOMS: &[&str] = &["lib", "domain", "store", "reactions", "http"];

/// Rooms for a special concern. A new room is a line here.
const SPECIAL_ROOMS: &[(&str, &[&str])] = &[
    (
        "broker",
        &[
            "audit",
            "dispatcher",
            "engine",
            "filters",
            "fuzzing",
            "keeping",
            "lanes",
            "live",
            "metrics",
            "publish",
            "retention",
            "sink",
            "subscriptions",
            "tokens",
            "verdict",
            "wire",
        ],
    ),
    ("order", &["catalogue"]),
    ("payment", &["provider"]),
    ("delivery", &["couriers"]),
    ("storefront", &["pages", "runs", "scenarios"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "core", "helper", "helpers", "misc", "shared", "types", "util", "utils"];

/// Words of the shop, which the kit does not know.
const SHOP_NOUNS: &[&str] =
    &["basket", "cart", "catalogue", "courier", "customer", "delivery", "order", "payment", "price", "product", "refund", "shop", "worker"];

/// Names in the kit that have a word of the shop in them and mean something else.
const NOT_OF_THE_SHOP: &[(&str, &str)] = &[("RefundBeforeClear", "a fault that the simulation plants in a service")];

/// Functions in which a test may sleep: they wait for a named condition, or say why time itself is what the test needs.
const MAY_SLEEP: &[&str] = &["eventually", "wait_until", "let_time_pass"];

/// Checks one file.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    violations.extend(length(source));
    violations.extend(room(source));
    violations.extend(ignored_tests(source));
    violations.extend(sleeping_tests(source));
    violations.extend(stray_sql(source));
    violations.extend(shop_nouns(source));
    violations
}

fn violation(source: &Source, line: usize, rule: &'static str, advice: String) -> Violation {
    Violation { path: source.path.clone(), line, rule, advice }
}

fn length(source: &Source) -> Option<Violation> {
    let lines = source.production_line_count();
    let advice = || format!("{lines} lines are more than {LINES_MAX}: a file does one thing; split it as `x.rs` and `x/…`");
    (lines > LINES_MAX).then(|| violation(source, lines, "file-length", advice()))
}

fn room(source: &Source) -> Option<Violation> {
    let parts = source.path.trim_end_matches(".rs").split('/').collect::<Vec<_>>();
    if let Some(name) = parts.iter().find(|part| EMPTY_NAMES.contains(part)) {
        return Some(violation(source, 1, "rooms", format!("`{name}` says nothing about what is inside: name it for what it does")));
    }
    let ["services", service, "src", name, ..] = parts.as_slice() else { return None };
    let special = SPECIAL_ROOMS.iter().find(|(known, _)| known == service).map_or(&[][..], |(_, rooms)| rooms);
    if source.is_test(1) || ROOMS.contains(name) || special.contains(name) {
        return None;
    }
    let known = [ROOMS, special].concat().join(", ");
    let advice = format!("`{name}` is no known room of {service} ({known}): use one, or name the concern in xtask/src/structure/files.rs");
    Some(violation(source, 1, "rooms", advice))
}

fn ignored_tests(source: &Source) -> Vec<Violation> {
    let begins = (0..source.tokens.len()).filter(|index| source.window(*index) == Some(["#", "[", "ignore"]));
    let lines = begins.filter_map(|index| source.tokens.get(index)).map(|token| token.line);
    lines.map(|line| violation(source, line, "no-ignore", String::from("a test that is not run is no test: mend or delete it"))).collect()
}

/// Fixed sleeps in tests.
fn sleeping_tests(source: &Source) -> Vec<Violation> {
    let is_simulated = source.path.starts_with("sim/") || is_time_paused(source);
    let is_sleep = |index: &usize| matches!(source.window(*index), Some(["sleep" | "sleep_until" | "sleep_ms", "("]));
    let is_of_thread = |index: usize| index.checked_sub(2).and_then(|before| source.window(before)) == Some(["thread", "::"]);
    let sleeps = (0..source.tokens.len()).filter(is_sleep);
    let wrong = sleeps.filter(|index| (is_of_thread(*index) || !is_simulated) && !may_sleep(&source.tokens, *index));
    let lines = wrong.filter_map(|index| source.tokens.get(index)).map(|token| token.line).filter(|line| source.is_test(*line));
    let advice = "a fixed sleep is too short or too long: wait for a named condition in `wait_until`, or until a `deadline`; \
                  where time itself is the matter, `let_time_pass` with the reason";
    lines.map(|line| violation(source, line, "no-sleep", advice.to_owned())).collect()
}

/// Whether what stands at `index` is in a function that may sleep, or in a loop that knows a deadline.
fn may_sleep(tokens: &[Token], index: usize) -> bool {
    let is_word = |token: &Token, word: &str| token.text == word;
    let mut depth = 0_usize;
    for begin in (0..index).rev() {
        match tokens.get(begin).map(|token| token.text.as_str()) {
            Some("}") => depth += 1,
            Some("{") if depth > 0 => depth -= 1,
            Some("{") => {
                let before = tokens.get(..begin).unwrap_or_default();
                let head: Vec<&Token> = before.iter().rev().take_while(|token| !matches!(token.text.as_str(), ";" | "{" | "}")).collect();
                let is_loop = head.iter().any(|token| is_word(token, "loop") || is_word(token, "while"));
                let knows_deadline = || block(tokens, begin).iter().any(|token| is_word(token, "deadline"));
                // Read backwards: the name comes before `fn`.
                let is_named = |pair: &[&Token]| matches!(pair, [name, key] if is_word(key, "fn") && MAY_SLEEP.iter().any(|may| name.text.starts_with(may)));
                if head.windows(2).any(is_named) || (is_loop && knows_deadline()) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// The block that begins at `begin`.
fn block(tokens: &[Token], begin: usize) -> &[Token] {
    let mut depth = 0_usize;
    let rest = tokens.get(begin..).unwrap_or_default();
    let is_last = |token: &Token| {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    };
    let length = rest.iter().position(is_last).unwrap_or(rest.len());
    rest.get(..length).unwrap_or_default()
}

/// Whether every asynchronous test of the file runs while tokio's time is paused. There a sleep is how time passes.
fn is_time_paused(source: &Source) -> bool {
    let tests = (0..source.tokens.len()).filter(|index| source.window(*index) == Some(["tokio", "::", "test"]));
    let is_paused = tests.map(|index| source.window(index + 3) == Some(["(", "start_paused", "=", "true"])).collect::<Vec<_>>();
    !is_paused.is_empty() && is_paused.iter().all(|is_paused| *is_paused)
}

fn stray_sql(source: &Source) -> Vec<Violation> {
    if is_place_of_sql(&source.path) {
        return Vec::new();
    }
    let stray = source.texts.iter().filter(|text| !source.is_test(text.line) && is_sql(&text.text));
    stray.map(|text| violation(source, text.line, "stray-sql", String::from("SQL belongs in `store.rs`: call a function of it"))).collect()
}

fn is_place_of_sql(path: &str) -> bool {
    let is_kit = path.starts_with("libs/kit/src/");
    let is_engine = path.starts_with("services/broker/src/engine");
    // The simulation is a test: it looks into the stores behind the services' backs.
    let is_test = path.starts_with("sim/");
    is_kit || is_engine || is_test || path.ends_with("/store.rs") || path.contains("/store/")
}

/// Whether a text is a statement. The words alone are plain English too, so two of a statement's words must be there.
fn is_sql(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words: Vec<&str> =
        text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty()).collect();
    let has = |word: &str| words.contains(&word);
    match words.as_slice() {
        ["select", ..] => has("from") && (text.contains(" = ") || text.contains('*') || text.contains(',') || text.contains('(')),
        ["with", _, "as", ..] => has("select"),
        ["insert", "into", ..] | ["insert", "or", _, "into", ..] | ["delete", "from", ..] | ["pragma", _, ..] => true,
        ["update", _, "set", ..] => true,
        ["create", "table" | "index" | "trigger" | "view", ..] | ["create", "unique", "index", ..] => true,
        ["alter" | "drop", "table" | "index", ..] => true,
        _ => false,
    }
}

fn shop_nouns(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("libs/kit/src/") {
        return Vec::new();
    }
    let words = source.production().into_iter().filter(|token| token.is_word());
    let found = words.filter_map(|token| Some((token, find_shop_noun(&token.text)?)));
    found
        .map(|(Token { line, text }, noun)| {
            let advice = format!("`{text}` names the shop's `{noun}`, which the kit does not know: name what it is to any service");
            violation(source, *line, "kit-knows-no-shop", advice)
        })
        .collect()
}

fn find_shop_noun(name: &str) -> Option<&'static str> {
    if NOT_OF_THE_SHOP.iter().any(|(known, _)| *known == name) {
        return None;
    }
    words_of(name).iter().find_map(|word| {
        let is_noun = |noun: &&&str| {
            let plural = noun.strip_suffix('y').map_or_else(|| format!("{noun}s"), |stem| format!("{stem}ies"));
            word == **noun || *word == plural
        };
        SHOP_NOUNS.iter().find(is_noun).copied()
    })
}

/// The words of a name: `OrderLine`, `order_line` and `ORDER_LINE` are `order` and `line`; `Ordering` is one word.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_after_small = false;
    for letter in name.chars() {
        let begins = letter == '_' || (letter.is_uppercase() && is_after_small);
        if begins {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), letter != '_') {
            word.extend(letter.to_lowercase());
        }
        is_after_small = letter.is_lowercase() || letter.is_numeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        check(&Source::new(path, text)).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_file_is_too_long_when_its_own_part_is() {
        let long = "fn f() {}\n".repeat(601);
        assert_eq!(lines("sim/src/lib.rs", &long), [(601, "file-length")]);
        assert_eq!(lines("sim/tests/long.rs", &long), []);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "fn f() {}\n".repeat(600));
        assert_eq!(lines("sim/src/lib.rs", &tested), []);
    }

    #[test]
    fn a_room_has_a_known_name() {
        assert_eq!(lines("services/order/src/domain/lines.rs", ""), []);
        assert_eq!(lines("services/payment/src/provider.rs", ""), []);
        assert_eq!(lines("services/order/src/provider.rs", ""), [(1, "rooms")]);
        assert_eq!(lines("services/order/src/service/a.rs", ""), [(1, "rooms")]);
        assert_eq!(lines("libs/kit/src/utils.rs", ""), [(1, "rooms")]);
        assert_eq!(lines("libs/common/src/lib.rs", ""), [(1, "rooms")]);
    }

    #[test]
    fn no_test_is_ignored() {
        assert_eq!(lines("sim/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), [(2, "no-ignore")]);
        assert_eq!(lines("sim/tests/a.rs", "// #[ignore]\nfn ignore() {}"), []);
    }

    #[test]
    fn a_test_waits_for_a_condition_and_never_just_sleeps() {
        let path = "cascade/tests/process_kill.rs";
        assert_eq!(lines(path, "fn t() {\n std::thread::sleep(SECOND); }"), [(2, "no-sleep")]);
        assert_eq!(lines(path, "async fn t() { go(); }\nasync fn u() {\n tokio::time::sleep(x).await }"), [(3, "no-sleep")]);
        assert_eq!(lines(path, "async fn wait_until(f: F) { loop { tokio::time::sleep(PAUSE).await; } }"), []);
        assert_eq!(lines(path, "trait T { fn wait_until(); }\nfn t() {\n sleep(x) }"), [(3, "no-sleep")]);
        assert_eq!(lines(path, "fn wait_until() { if a { b } }\nfn t() {\n sleep(x) }"), [(3, "no-sleep")]);
        assert_eq!(lines(path, "fn t() { loop { assert!(now() < deadline); if a { break } sleep(x) } }"), []);
        assert_eq!(lines(path, "fn t() { let deadline = 1; loop { if a { break } }\n sleep(x) }"), [(2, "no-sleep")]);
        assert_eq!(lines(path, "fn t() { while b {\n sleep(x) } }"), [(2, "no-sleep")]);
        assert_eq!(lines(path, "async fn let_time_pass(x: D, _why: &str) { sleep(x).await }"), []);
        assert_eq!(lines("libs/kit/src/a.rs", "fn f() { sleep(x) }\n#[cfg(test)]\nmod tests {\n fn t() { sleep(x) } }"), [(4, "no-sleep")]);
        assert_eq!(lines("sim/tests/a.rs", "fn t() { sleep(x) }"), []);
    }

    #[test]
    fn a_sleep_is_free_while_time_is_paused() {
        let paused = "#[tokio::test(start_paused = true)]\nasync fn t() { sleep(x).await }\n";
        assert_eq!(lines("libs/kit/tests/a.rs", paused), []);
        assert_eq!(lines("libs/kit/tests/a.rs", &format!("{paused}fn u() {{ thread::sleep(x) }}")), [(3, "no-sleep")]);
        let both = format!("{paused}#[tokio::test]\nasync fn u() {{ sleep(x).await }}");
        assert_eq!(lines("libs/kit/tests/a.rs", &both), [(2, "no-sleep"), (4, "no-sleep")]);
    }

    #[test]
    fn sql_is_found_outside_its_place() {
        let statements =
            "f(\"select id, state from orders\");\ng(\"\n  insert into orders (id) values ($1)\");\nh(r#\"PRAGMA user_version\"#);";
        assert_eq!(lines("services/order/src/http.rs", statements), [(1, "stray-sql"), (2, "stray-sql"), (4, "stray-sql")]);
        assert_eq!(lines("services/order/src/store.rs", statements), []);
        assert_eq!(lines("services/order/src/store/lists.rs", statements), []);
        assert_eq!(lines("services/broker/src/engine/sqlite.rs", statements), []);
        assert_eq!(lines("services/order/tests/http.rs", statements), []);
        assert_eq!(lines("sim/src/invariants.rs", statements), []);
    }

    #[test]
    fn plain_english_is_no_sql() {
        for text in ["select a worker from the list", "update the order", "create an order", "delete it", "with care", "drop it"] {
            assert!(!is_sql(text), "{text}");
        }
        for text in
            ["update orders set a = 1", "create unique index a on b (c)", "with x as (select 1) select * from x", "select count(*) from a"]
        {
            assert!(is_sql(text), "{text}");
        }
    }

    #[test]
    fn the_kit_knows_no_shop() {
        let path = "libs/kit/src/a.rs";
        assert_eq!(
            lines(path, "// in order\nfn f(order_id: u8) {\n let x = PaymentState; }"),
            [(2, "kit-knows-no-shop"), (3, "kit-knows-no-shop")]
        );
        assert_eq!(lines(path, "const DELIVERIES: u8 = 1;"), [(1, "kit-knows-no-shop")]);
        assert_eq!(lines(path, "use std::cmp::Ordering;\nfn reorder(x: Border) { x.plant(RefundBeforeClear, \"order\") }"), []);
        assert_eq!(lines("services/order/src/lib.rs", "struct Order;"), []);
    }

    #[test]
    fn a_name_is_read_word_by_word() {
        assert_eq!(words_of("OrderLine"), ["order", "line"]);
        assert_eq!(words_of("ORDER_LINES_MAX"), ["order", "lines", "max"]);
        assert_eq!(words_of("Ordering"), ["ordering"]);
    }
}
