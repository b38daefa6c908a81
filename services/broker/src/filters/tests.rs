//! Filters against an evaluator that knows nothing but the JSON of both.

use kit::{Envelope, EventId, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CLAUSES_MAX, DEPTH_MAX, Filter, Selection, parse};
use crate::tests::event;

/// What the draft says, on JSON alone: slow and plain.
fn naive(filter: &Value, event: &Value) -> bool {
    let (dialect, body) = filter.as_object().unwrap().iter().next().unwrap();
    let every_text = |fits: fn(&str, &str) -> bool| {
        body.as_object().unwrap().iter().all(|(name, text)| match &event[name] {
            Value::Null => false,
            Value::String(value) => fits(value, text.as_str().unwrap()),
            other => fits(&other.to_string(), text.as_str().unwrap()),
        })
    };
    match dialect.as_str() {
        "exact" => every_text(|value, text| value == text),
        "prefix" => every_text(|value, text| value.len() >= text.len() && value.as_bytes()[..text.len()] == *text.as_bytes()),
        "suffix" => every_text(|value, text| value.len() >= text.len() && value.as_bytes()[value.len() - text.len()..] == *text.as_bytes()),
        "all" => body.as_array().unwrap().iter().filter(|one| !naive(one, event)).count() == 0,
        "any" => body.as_array().unwrap().iter().filter(|one| naive(one, event)).count() > 0,
        "not" => !naive(body, event),
        other => panic!("{other}"),
    }
}

fn words() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "ba", "aab", "ä", "true", "7", "1.0", "/order"]).prop_map(str::to_owned)
}

fn events() -> impl Strategy<Value = Envelope> {
    let optional = || proptest::option::of(words());
    let extensions = prop::collection::btree_map(
        prop::sample::select(vec!["region", "urgent", "weight"]).prop_map(str::to_owned),
        prop_oneof![words().prop_map(Value::from), any::<bool>().prop_map(Value::from), (0..9i64).prop_map(Value::from)],
        0..3,
    );
    (words(), words(), words(), optional(), optional(), proptest::option::of(1..9i64), any::<bool>(), extensions).prop_map(
        |(id, source, ty, subject, owner, sequence, has_time, extensions)| Envelope {
            id: EventId::new(id),
            source,
            ty,
            subject,
            owner,
            sequence,
            time: has_time.then(|| Timestamp::from_ms(1_800_000_000_000)),
            extensions,
            ..event("/a", "1", "x")
        },
    )
}

fn filters() -> impl Strategy<Value = Value> {
    let names = ["id", "source", "type", "subject", "owner", "sequence", "time", "specversion", "region", "urgent", "weight", "missing"];
    let texts = prop::collection::btree_map(prop::sample::select(names.to_vec()), words(), 1..3);
    let leaf = (prop::sample::select(vec!["exact", "prefix", "suffix"]), texts).prop_map(|(dialect, texts)| json!({dialect: texts}));
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (prop::sample::select(vec!["all", "any"]), prop::collection::vec(inner.clone(), 1..4))
                .prop_map(|(dialect, inner)| json!({dialect: inner})),
            inner.prop_map(|inner| json!({"not": inner})),
        ]
    })
}

fn selection(types: Option<&[&str]>, filters: &Value) -> Selection {
    let types = types.map(|types| types.iter().map(|ty| (*ty).to_owned()).collect());
    Selection { types, filters: parse(filters, "/filters").unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_holds_when_the_naive_evaluator_says_so(filters in prop::collection::vec(filters(), 0..3), event in events()) {
        let json = serde_json::to_value(&event).unwrap();
        let expected = filters.iter().all(|filter| naive(filter, &json));
        let selection = selection(None, &Value::from(filters));
        prop_assert_eq!(selection.takes(&event), expected);
        prop_assert_eq!(selection.matches(&event).is_ok(), expected);
    }

    #[test]
    fn the_clause_that_is_named_does_not_hold(filters in prop::collection::vec(filters(), 1..3), event in events()) {
        let (whole, json) = (json!({"filters": filters}), serde_json::to_value(&event).unwrap());
        if let Err(clause) = selection(None, &whole["filters"]).matches(&event) {
            // The pointer leads to the dialect's body; the filter is the object around it.
            let (filter, dialect) = clause.field.rsplit_once('/').unwrap();
            let filter = whole.pointer(filter).unwrap();
            prop_assert!(filter.get(dialect).is_some(), "{}", clause.field);
            prop_assert!(!naive(filter, &json));
        }
    }

    #[test]
    fn a_filter_survives_the_way_through_the_store(filters in prop::collection::vec(filters(), 0..3)) {
        let selection = selection(Some(&["a"]), &Value::from(filters.clone()));
        let stored = serde_json::to_string(&selection).unwrap();
        prop_assert_eq!(serde_json::from_str::<Selection>(&stored).unwrap(), selection);
    }
}

#[test]
fn what_is_no_filter_is_refused_by_the_place_where_it_stands() {
    for (bad, field) in [
        (json!({}), "/filters"),
        (json!("exact"), "/filters"),
        (json!([7]), "/filters/0"),
        (json!([{}]), "/filters/0"),
        (json!([{"exact": {"a": "b"}, "prefix": {"a": "b"}}]), "/filters/0"),
        (json!([{"sql": "a = b"}]), "/filters/0"),
        (json!([{"exact": {}}]), "/filters/0/exact"),
        (json!([{"exact": []}]), "/filters/0/exact"),
        (json!([{"exact": {"a": "b"}}, {"prefix": {"A": "b"}}]), "/filters/1/prefix"),
        (json!([{"exact": {"": "b"}}]), "/filters/0/exact"),
        (json!([{"exact": {"a": ""}}]), "/filters/0/exact/a"),
        (json!([{"exact": {"a": 7}}]), "/filters/0/exact/a"),
        (json!([{"exact": {"a": "x".repeat(1_025)}}]), "/filters/0/exact/a"),
        (json!([{"exact": {"a": "b\u{0}"}}]), "/filters/0/exact/a"),
        (json!([{"any": []}]), "/filters/0/any"),
        (json!([{"all": {"exact": {"a": "b"}}}]), "/filters/0/all"),
        (json!([{"all": [{"not": {"any": [null]}}]}]), "/filters/0/all/0/not/any/0"),
        (json!([{"not": [{"exact": {"a": "b"}}]}]), "/filters/0/not"),
    ] {
        assert_eq!(parse(&bad, "/filters").unwrap_err().field, field, "{bad}");
    }
}

#[test]
fn filters_have_a_limit_in_depth_and_number() {
    let nested = |depth: usize| (1..depth).fold(json!({"exact": {"a": "b"}}), |inner, _| json!({"not": inner}));
    assert!(parse(&json!([nested(DEPTH_MAX)]), "/filters").is_ok());
    assert!(parse(&json!([nested(DEPTH_MAX + 1)]), "/filters").unwrap_err().reason.contains("deeper"));
    assert!(parse(&json!([nested(100)]), "/filters").is_err());
    // A filter and its attribute are two clauses.
    let many = |count: usize| Value::from(vec![json!({"exact": {"a": "b"}}); count]);
    assert_eq!(parse(&many(CLAUSES_MAX / 2), "/filters").unwrap().len(), CLAUSES_MAX / 2);
    assert_eq!(parse(&many(CLAUSES_MAX / 2 + 1), "/filters").unwrap_err().field, "/filters/32");
}

#[test]
fn the_answer_says_in_words_what_an_event_was_filtered_by() {
    let event = Envelope { extensions: [("region".to_owned(), json!("north"))].into(), ..event("/order", "1", "o-1") };
    let filters = json!([{"all": [{"prefix": {"source": "/"}}, {"exact": {"region": "south"}}]}]);
    let clause = selection(None, &filters).matches(&event).unwrap_err();
    assert_eq!((clause.field.as_str(), clause.reason.as_str()), ("/filters/0/all/1/exact", "`region` is `north`, which is not `south`"));
    assert_eq!(clause.says, r#"{"exact":{"region":"south"}}"#);
    let clause = selection(Some(&["other"]), &filters).matches(&event).unwrap_err();
    assert_eq!((clause.field.as_str(), clause.says.as_str()), ("/types", r#"["other"]"#));
    let missing = Filter::Suffix([("planet".to_owned(), "x".to_owned())].into());
    assert_eq!(missing.blame(&event, "/filters/0").reason, "the event has no `planet`");
}
