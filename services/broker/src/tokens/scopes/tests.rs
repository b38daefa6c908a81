use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rights() -> PublishRights {
    PublishRights::none().allow("order", ["cascade.OrderCreated.v1"]).allow("payment", ["cascade.PaymentAccepted.v1"])
}

fn parse(json: Value) -> Result<Scopes, Invalid> {
    Scopes::parse(json, &rights())
}

fn full() -> Value {
    json!({
        "publish": {"source": "/loyalty", "types": ["loyalty.*", "points.Given.v1"]},
        "subscribe": {"names": ["loyalty", "loyalty-*"], "types": ["cascade.OrderCreated.v1"]},
        "read": {"types": ["cascade.*"], "owners": true},
        "operate": ["loyalty"],
        "tokens": true,
    })
}

fn event(source: &str, ty: &str, owner: Option<&str>) -> Envelope {
    Envelope { ty: ty.into(), owner: owner.map(str::to_owned), ..crate::tests::event(source, "1", "s") }
}

#[test]
fn what_is_sent_is_what_is_kept() {
    let scopes = parse(full()).unwrap();
    assert_eq!(serde_json::to_value(&scopes).unwrap(), full());
    assert_eq!(serde_json::from_value::<Scopes>(full()).unwrap(), scopes);
    let small = json!({"operate": ["a"]});
    assert_eq!(serde_json::to_value(parse(small.clone()).unwrap()).unwrap(), small);
}

#[test]
fn a_field_that_does_not_hold_what_it_must_is_named() {
    for (json, field) in [
        (json!([]), "/scopes"),
        (json!({}), "/scopes"),
        (json!({"tokens": false}), "/scopes"),
        (json!({"tokens": "yes"}), "/scopes/tokens"),
        (json!({"everything": true}), "/scopes/everything"),
        (json!({"publish": {"types": ["a"]}}), "/scopes/publish/source"),
        (json!({"publish": {"source": "", "types": ["a"]}}), "/scopes/publish/source"),
        (json!({"publish": {"source": "/a b", "types": ["a"]}}), "/scopes/publish/source"),
        (json!({"publish": {"source": "/a"}}), "/scopes/publish/types"),
        (json!({"publish": {"source": "/a", "types": []}}), "/scopes/publish/types"),
        (json!({"publish": {"source": "/a", "types": ["a*b"]}}), "/scopes/publish/types"),
        (json!({"publish": {"source": "/a", "types": ["a"], "more": 1}}), "/scopes/publish/more"),
        (json!({"subscribe": {"names": "a", "types": ["a"]}}), "/scopes/subscribe/names"),
        (json!({"subscribe": ["a"]}), "/scopes/subscribe"),
        (json!({"read": {"types": ["a"], "owners": 1}}), "/scopes/read/owners"),
        (json!({"operate": [""]}), "/scopes/operate"),
        (json!({"operate": ["a b"]}), "/scopes/operate"),
        (json!({"operate": (0..65).map(|n| n.to_string()).collect::<Vec<_>>()}), "/scopes/operate"),
    ] {
        assert_eq!(parse(json.clone()).unwrap_err().field, field, "{json}");
    }
}

#[test]
fn nobody_can_be_given_what_is_a_services_own() {
    for (json, field) in [
        (json!({"publish": {"source": "/payment", "types": ["a"]}}), "/scopes/publish/source"),
        (json!({"publish": {"source": "/a", "types": ["cascade.PaymentAccepted.v1"]}}), "/scopes/publish/types"),
        (json!({"publish": {"source": "/a", "types": ["cascade.*"]}}), "/scopes/publish/types"),
        (json!({"publish": {"source": "/a", "types": ["*"]}}), "/scopes/publish/types"),
        (json!({"subscribe": {"names": ["order"], "types": ["a"]}}), "/scopes/subscribe/names"),
        (json!({"subscribe": {"names": ["*"], "types": ["a"]}}), "/scopes/subscribe/names"),
    ] {
        assert_eq!(parse(json.clone()).unwrap_err().field, field, "{json}");
    }
}

#[test]
fn a_scope_covers_what_it_says_and_no_more() {
    let scopes = parse(full()).unwrap();
    let publish = |source, ty| scopes.may_publish(&event(source, ty, None)).map_err(|missing| missing.field);
    assert_eq!(publish("/loyalty", "loyalty.Earned.v1"), Ok(()));
    assert_eq!(publish("/loyalty", "points.Given.v1"), Ok(()));
    assert_eq!(publish("/loyalty", "points.Given.v2"), Err(Some("type")));
    assert_eq!(publish("/loyalty/x", "loyalty.Earned.v1"), Err(Some("source")));
    let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(scopes.may_subscribe("loyalty-2", Some(&types(&["cascade.OrderCreated.v1"]))), Ok(()));
    assert_eq!(scopes.may_subscribe("loyalty", Some(&types(&["a"]))).unwrap_err().field, Some("types"));
    assert_eq!(scopes.may_subscribe("loyalty", None).unwrap_err().field, Some("types"));
    let other = scopes.may_subscribe("audit", Some(&types(&["cascade.OrderCreated.v1"]))).unwrap_err();
    assert_eq!(other.to_string(), "the token's scope `subscribe` does not cover the subscription `audit`");
    assert!(scopes.may_operate("loyalty").is_ok() && scopes.may_operate("loyalty-2").is_err() && scopes.may_operate_all().is_err());
    assert!(scopes.may_make_tokens().is_ok());
    let none = parse(json!({"operate": ["*"]})).unwrap();
    assert!(none.may_operate_all().is_ok() && none.may_publish(&event("/loyalty", "a", None)).is_err());
    assert!(none.may_own("loyalty").is_err() && none.may_read().is_err() && none.may_make_tokens().is_err());
}

#[test]
fn what_belongs_to_somebody_is_read_only_by_who_was_told_to() {
    let read = |owners| parse(json!({"read": {"types": ["a.*"], "owners": owners}})).unwrap().read.unwrap();
    assert!(read(false).shows(&event("/x", "a.b", None)) && !read(false).shows(&event("/x", "a.b", Some("ann"))));
    assert!(read(true).shows(&event("/x", "a.b", Some("ann"))) && !read(true).shows(&event("/x", "b.a", Some("ann"))));
}

/// JSON that may look like scopes.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec!["publish", "subscribe", "read", "operate", "tokens", "source", "types", "names", "owners", "*", "a.*"]),
        prop::sample::select(vec!["cascade.*", "/order", "", "a b", "**"]),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_sent_is_understood_or_the_field_at_fault_is_named(json in anything()) {
        match parse(json) {
            Err(error) => prop_assert!(error.field.starts_with("/scopes")),
            Ok(scopes) => {
                let kept = serde_json::to_value(&scopes).unwrap();
                prop_assert_eq!(parse(kept).unwrap(), scopes.clone());
                for ty in ["cascade.OrderCreated.v1", "cascade.PaymentAccepted.v1"] {
                    prop_assert!(scopes.may_publish(&event("/x", ty, None)).is_err());
                }
                prop_assert!(scopes.may_own("order").is_err());
            }
        }
    }
}
