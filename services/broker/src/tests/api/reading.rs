//! Pages and single events.

use super::*;
use crate::tests::{event, settings};

impl Shop {
    /// Appends events without asking anybody: (id, subject, owner, type).
    async fn append(&self, events: &[(&str, &str, &str, &str)]) {
        let events = events.iter().map(|(id, subject, owner, ty)| kit::Envelope {
            owner: Some((*owner).into()),
            ty: (*ty).into(),
            ..event("/tester", id, subject)
        });
        self.broker.engine().append(events.collect()).await.unwrap();
    }

    /// All pages of `path`, and how many they are.
    async fn pages(&self, who: Who<'_>, path: &str) -> (Vec<String>, usize) {
        let (mut found, mut after, mut pages) = (Vec::new(), String::from("0"), 0);
        loop {
            let (status, page) = self.get(who, &format!("{path}&after={after}")).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            found.extend(ids(&page));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return (found, pages),
            }
        }
    }
}

#[tokio::test]
async fn a_page_holds_the_types_that_are_asked_for() {
    let shop = shop().await;
    let types = ["a", "b", "c"];
    for n in 0..30 {
        let owner = if n % 2 == 0 { "ann" } else { "bob" };
        shop.append(&[(&n.to_string(), &format!("o-{}", n % 5), owner, types[n % 3])]).await;
    }
    let expected = |is_wanted: &dyn Fn(usize) -> bool| (0..30).filter(|n| is_wanted(*n)).map(|n| n.to_string()).collect::<Vec<_>>();
    for limit in [1, 3, 100] {
        let all = async |who, query: &str| shop.pages(who, &format!("/api/events?limit={limit}{query}")).await.0;
        assert_eq!(all(OPERATOR, "&types=a").await, expected(&|n| n % 3 == 0));
        assert_eq!(all(OPERATOR, "&types=c,a").await, expected(&|n| n % 3 != 1));
        assert_eq!(all(OPERATOR, "&types=d").await, expected(&|_| false));
        assert_eq!(all(OPERATOR, "&types=b&subject=o-2").await, expected(&|n| n % 3 == 1 && n % 5 == 2));
        assert_eq!(all(Who::Guest("ann"), "&types=a,b").await, expected(&|n| n % 3 != 2 && n % 2 == 0));
        assert_eq!(all(Who::Guest("bob"), "").await, expected(&|n| n % 2 == 1));
    }
    let list = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(shop.get(OPERATOR, &format!("/api/events?types={}", list(256))).await.0, StatusCode::OK);
    for bad in [String::new(), "a,,b".into(), "x".repeat(1_025), list(257)] {
        let (status, body) = shop.get(OPERATOR, &format!("/api/events?types={bad}")).await;
        assert_eq!((status, &body["field"]), (StatusCode::BAD_REQUEST, &json!("types")), "{bad}");
    }
}

#[tokio::test]
async fn the_last_page_says_that_it_is_the_last_also_when_it_is_full() {
    let shop = shop().await;
    for n in 0..6 {
        shop.append(&[(&n.to_string(), "o-1", "ann", TYPE)]).await;
    }
    for path in ["/api/events?limit=3", "/api/events?limit=3&subject=o-1"] {
        for who in [OPERATOR, Who::Guest("ann")] {
            assert_eq!(shop.pages(who, path).await.1, 2, "{path}");
        }
    }
}

#[tokio::test]
async fn a_guests_page_holds_their_events_however_many_others_there_are() {
    let shop = shop_on(crate::engine::memory::MemoryDisk::default(), settings()).await;
    shop.append(&[("first", "o-1", "ann", TYPE)]).await;
    let others = (0..12_000).map(|n| kit::Envelope { owner: Some("bob".into()), ..event("/tester", &n.to_string(), "o-2") }).collect();
    shop.broker.engine().append(others).await.unwrap();
    shop.append(&[("last", "o-1", "ann", TYPE)]).await;
    assert_eq!(shop.pages(Who::Guest("ann"), "/api/events?limit=100").await, (vec!["first".into(), "last".into()], 1));
    assert_eq!(shop.pages(Who::Guest("eve"), "/api/events?limit=100").await, (vec![], 1));
    // Of rare types a page looks through so many, and says where to go on.
    let (found, pages) = shop.pages(OPERATOR, "/api/events?limit=100&types=other").await;
    assert_eq!((found.len(), pages), (0, 2));
}

#[tokio::test]
async fn a_page_of_large_events_ends_early() {
    let shop = shop().await;
    let large = serde_json::value::to_raw_value(&"x".repeat(250_000)).unwrap();
    let events = (0..40).map(|n| kit::Envelope { data: Some(large.clone()), ..event("/tester", &n.to_string(), "o-1") }).collect();
    shop.broker.engine().append(events).await.unwrap();
    let (found, pages) = shop.pages(OPERATOR, "/api/events?limit=1000").await;
    assert_eq!(found.len(), 40);
    assert!((2..=4).contains(&pages), "{pages} pages of about four megabytes");
}

#[tokio::test]
async fn one_event_is_read_by_its_place_or_its_name_by_whoever_may_see_it() {
    let shop = shop().await;
    shop.append(&[("1", "o-1", "ann", TYPE), ("2", "o-2", "bob", TYPE)]).await;
    let share = keyring().share_token("o-1");
    let ways = |n: usize| [format!("/api/events/{n}?"), format!("/api/events?source=/tester&id={n}&")];
    for (place, name) in ways(1).into_iter().zip(ways(1).into_iter().skip(1)) {
        for (who, query) in [(OPERATOR, ""), (Who::Guest("ann"), ""), (Who::Nobody, &*format!("share={share}"))] {
            let (status, event) = shop.get(who, &format!("{place}{query}")).await;
            assert_eq!((status, &event["id"], &event["position"]), (StatusCode::OK, &json!("1"), &json!("1")));
            let (status, page) = shop.get(who, &format!("{name}{query}")).await;
            assert_eq!((status, page), (StatusCode::OK, json!({"items": [event], "next": null})));
        }
    }
    for path in ways(2) {
        for (who, query, expected) in [
            (Who::Guest("ann"), "", 404),
            (Who::Nobody, &*format!("share={share}"), 404),
            (Who::Nobody, "share=x", 404),
            (Who::Nobody, "", 401),
            (Who::Service("tester"), "", 403),
        ] {
            assert_eq!(shop.get(who, &format!("{path}{query}")).await.0.as_u16(), expected, "{path}{query}");
        }
    }
    for nowhere in ["/api/events/3", "/api/events/0", "/api/events/-1", "/api/events/x", "/api/events?source=/tester&id=3"] {
        assert_eq!(shop.get(OPERATOR, nowhere).await.0, StatusCode::NOT_FOUND, "{nowhere}");
    }
    for (bad, field) in [
        ("source=/tester", "id"),
        ("id=1", "source"),
        ("source=/tester&id=1&limit=3", "id"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=99999999999999999999", "after"),
        ("after=1&after=2", "after"),
        ("colour=red", "colour"),
    ] {
        let (status, body) = shop.get(OPERATOR, &format!("/api/events?{bad}")).await;
        assert_eq!((status, &body["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{bad}");
    }
    assert_eq!(shop.get(OPERATOR, "/api/events/1?limit=3").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn whoever_reads_on_from_before_the_beginning_of_the_log_is_told_that_it_is_gone() {
    let shop = shop().await;
    for n in 0..10 {
        shop.append(&[(&n.to_string(), "o-1", "ann", TYPE)]).await;
    }
    shop.broker.engine().trim(kit::Position(6)).await.unwrap();
    for path in ["/api/events?", "/api/events?subject=o-1&", "/api/orders/o-1/events?"] {
        for who in [OPERATOR, Who::Guest("ann")] {
            let (status, body) = shop.get(who, &format!("{path}after=5")).await;
            assert_eq!((status, &body["code"]), (StatusCode::GONE, &json!("trimmed")));
            assert!(body["detail"].as_str().unwrap().contains('7'), "{body}");
            for whole in [path.to_owned(), format!("{path}after=0"), format!("{path}after=6")] {
                assert_eq!(ids(&shop.get(who, &whole).await.1), ["6", "7", "8", "9"], "{whole}");
            }
        }
    }
    assert_eq!(shop.get(OPERATOR, "/api/events/6").await.0, StatusCode::GONE);
    assert_eq!(shop.get(OPERATOR, "/api/events/7").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_subject_that_no_event_can_have_is_refused() {
    let shop = shop().await;
    shop.append(&[("1", "o-1", "ann", TYPE)]).await;
    let (too_long, longest) = ("s".repeat(1_025), "s".repeat(1_024));
    for who in [OPERATOR, Who::Guest("ann")] {
        for path in ["/api/events", "/api/live"] {
            for subject in ["", &too_long] {
                let (status, body) = shop.get(who, &format!("{path}?subject={subject}")).await;
                let expected = (StatusCode::BAD_REQUEST, &json!("invalid_query"), &json!("subject"));
                assert_eq!((status, &body["code"], &body["field"]), expected, "{path}");
            }
        }
    }
    assert_eq!(shop.get(OPERATOR, &format!("/api/events?subject={longest}")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_partition_key_is_the_lane_and_the_subject_is_still_found() {
    let shop = shop().await;
    let with_key = |id: &str, subject: &str| {
        let mut event = cloud_event(id, subject, "ann");
        event["partitionkey"] = json!("p");
        event
    };
    let batch = json!([with_key("1", "o-1"), with_key("2", "o-2"), cloud_event("3", "o-1", "ann"), cloud_event("4", "p", "ann")]);
    assert_eq!(shop.publish(Some("tester"), BATCH_JSON, batch.to_string()).await.0, StatusCode::ACCEPTED);
    let lane = shop.broker.engine().read_lane("p", kit::Position::START, 10).await.unwrap();
    assert_eq!(lane.iter().map(|one| one.event.id.as_str()).collect::<Vec<_>>(), ["1", "2", "4"]);
    for (subject, expected) in [("o-1", vec!["1", "3"]), ("o-2", vec!["2"]), ("p", vec!["4"])] {
        let (_, page) = shop.get(Who::Guest("ann"), &format!("/api/events?subject={subject}")).await;
        assert_eq!(ids(&page), expected, "{subject}");
    }
}
