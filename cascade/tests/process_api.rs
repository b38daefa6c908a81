//! The shop's journeys over its public API: what a customer or a program can do, and what follows from it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

#[macro_use]
mod shop;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use shop::{Customer, Shape, Shop, books, name_of, wait_until};

/// The twelve events of the flow that the shop grew out of.
const TWELVE: [&str; 12] = [
    "OrderCreated",
    "PaymentAccepted",
    "PaymentDeclined",
    "OrderCancelled",
    "WorkerSearchStarted",
    "WorkerSearchCompleted",
    "WorkerAcceptedJob",
    "WorkerDeclinedJob",
    "DeliveryStarted",
    "DeliveryAborted",
    "DeliveryCompleted",
    "OrderCompleted",
];
/// How many runs chance gets at most to show all of them; that one is still missing then has odds of less than 1 in a million.
const RUNS_MAX: usize = 300;

fn text<'a>(event: &'a Value, attribute: &str) -> &'a str {
    event.get(attribute).and_then(Value::as_str).unwrap_or_else(|| panic!("no {attribute} in {event}"))
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(name_of).collect()
}

/// Checks that an order's events are whole and in sequence. Those in `commanded` may come from a customer instead of an event.
fn check_sequence(order_id: &str, events: &[Value], commanded: &[&str]) {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let first = &events[0];
    for (index, event) in events.iter().enumerate() {
        let count = counts.entry(text(event, "source")).or_default();
        *count += 1;
        assert_eq!(text(event, "sequence"), count.to_string(), "{event}");
        match event.get("causationid").map(|cause| cause.as_str().unwrap()) {
            Some(cause) => assert!(seen.contains(cause), "its cause comes later, or never: {event}"),
            None => assert!(index == 0 || commanded.contains(&name_of(event)), "nothing caused {event}"),
        }
        assert!(seen.insert(text(event, "id")), "twice: {event}");
        assert_eq!((text(event, "subject"), text(event, "specversion")), (order_id, "1.0"));
        assert_eq!((event.get("owner"), event.get("scenario")), (first.get("owner"), first.get("scenario")), "{event}");
        assert!(kit::Timestamp::from_rfc3339(text(event, "time")).is_some(), "{event}");
        let data = serde_json::value::to_raw_value(&event["data"]).unwrap();
        assert_eq!(contract::Event::read(text(event, "type"), Some(&data)).unwrap().source(), text(event, "source"));
    }
    assert_eq!(name_of(first), "OrderCreated");
    assert!(events.is_sorted_by_key(shop::live::position_of));
    assert_eq!(events.iter().filter(|event| shop::live::is_end(event)).count(), 1, "one end: {:?}", names(events));
}

in_both_shapes! {
    a_run_as_json_can_be_followed_by_its_links_without_a_cookie,
    a_run_begins_only_when_it_is_meant,
    all_twelve_events_and_both_loops_really_occur_and_every_run_is_in_sequence,
    each_scenario_comes_to_its_end,
    a_request_that_comes_again_is_one_order,
    the_list_has_ones_own_orders_newest_first_page_by_page,
    an_order_that_is_cancelled_under_way_ends_cancelled_with_the_money_returned,
    deleting_erases_the_recipient_everywhere_and_keeps_the_books,
    only_its_customer_sees_an_orders_events,
}

async fn a_run_as_json_can_be_followed_by_its_links_without_a_cookie(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let program = Customer::stranger(&shop);
    let run = program.get("/scenario/1").await;
    assert_eq!((run.status, &run.headers["cache-control"]), (StatusCode::CREATED, &"no-store".parse().unwrap()), "{run:?}");
    let (order_id, links) = (text(&run.json, "order_id"), &run.json["links"]);
    assert!(!text(&run.json, "run").is_empty());

    let order = program.get(text(links, "self")).await;
    assert_eq!((order.status, text(&order.json, "order_id")), (StatusCode::OK, order_id));
    assert_eq!(order.headers["cache-control"], "no-store");
    let events = wait_until("the run's end", async || {
        // Right after the run has begun, its first event may still be on its way.
        let page = program.get(text(links, "events")).await;
        let events = page.json.get("items").map(|items| items.as_array().unwrap().clone()).unwrap_or_default();
        events.last().is_some_and(shop::live::is_end).then_some(events)
    })
    .await;
    check_sequence(order_id, &events, &[]);
    assert!(events.iter().all(|event| event["scenario"] == "1"));
    let mut live = shop::live::EventStream::open(&shop, &program, text(links, "live").trim_start_matches("/api/live"), &[]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&live.next().await.unwrap().data).unwrap(), events[0]);
    let page = program.send(Method::GET, text(links, "page"), &[("accept", "text/html")], "").await.unwrap();
    assert!(page.status.is_success() && page.text.contains("<html"));

    let other = program.get("/scenario/1").await;
    let (_, other_share) = text(&other.json["links"], "self").split_once("share=").unwrap();
    for path in [format!("/api/orders/{order_id}"), format!("/api/orders/{order_id}/events"), format!("/api/events?subject={order_id}")] {
        assert_eq!(program.get(&path).await.status, StatusCode::NOT_FOUND, "{path} without its token");
        let with_another = format!("{path}{}share={other_share}", if path.contains('?') { '&' } else { '?' });
        assert_eq!(program.get(&with_another).await.status, StatusCode::NOT_FOUND, "{path} with the token of another order");
    }
    let (_, share) = text(links, "self").split_once('?').unwrap();
    for (method, path) in
        [(Method::POST, format!("/api/orders/{order_id}/cancel?{share}")), (Method::DELETE, format!("/api/orders/{order_id}?{share}"))]
    {
        assert_eq!(program.send(method, &path, &[], "").await.unwrap().status, StatusCode::NOT_FOUND, "a link is for reading: {path}");
    }
}

async fn a_run_begins_only_when_it_is_meant(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    for (header, value) in
        [("sec-fetch-site", "cross-site"), ("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")]
    {
        let headers = [("accept", "application/json"), (header, value)];
        let answer = customer.send(Method::GET, "/scenario/1", &headers, "").await.unwrap();
        assert_eq!((answer.status, text(&answer.json, "code")), (StatusCode::FORBIDDEN, "forbidden"), "{header}");
    }
    for accept in ["text/html", "*/*", "text/html,application/json;q=0.9"] {
        let page = customer.send(Method::GET, "/scenario/1", &[("accept", accept)], "").await.unwrap();
        assert!(page.status == StatusCode::OK && page.text.contains("<html"), "{accept}");
    }
    assert_eq!(books::count(folder.path(), "order", "select count(*) from orders"), 0);
    let headers = [("accept", "application/json"), ("sec-fetch-site", "same-origin")];
    assert_eq!(customer.send(Method::GET, "/scenario/1", &headers, "").await.unwrap().status, StatusCode::CREATED);
}

async fn all_twelve_events_and_both_loops_really_occur_and_every_run_is_in_sequence(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let mut missing: BTreeSet<String> = TWELVE.iter().map(|name| (*name).to_owned()).collect();
    missing.extend([String::from("WorkerDeclinedJob, search again"), String::from("DeliveryAborted, search again")]);
    let mut runs = 0;
    while runs < 30 || !missing.is_empty() {
        assert!(runs < RUNS_MAX, "never seen: {missing:?}");
        let mut orders = Vec::new();
        for _ in 0..10 {
            orders.push(customer.run(1).await);
        }
        runs += orders.len();
        for order_id in &orders {
            let events = customer.all_events_of(order_id).await;
            check_sequence(order_id, &events, &[]);
            let names = names(&events);
            for (index, name) in names.iter().enumerate() {
                missing.remove(*name);
                if names[index..].contains(&"WorkerSearchStarted") {
                    missing.remove(&format!("{name}, search again"));
                }
            }
            let end = customer.status(order_id).await;
            assert_eq!(end == "completed", names.contains(&"DeliveryCompleted"), "{end}: {names:?}");
            let money = books::charges_and_refunds(folder.path(), order_id);
            assert!(if end == "completed" { money == (1, 0) } else { money.0 == money.1 }, "{end}: {money:?}");
        }
    }
}

async fn each_scenario_comes_to_its_end(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let listed = customer.get("/api/scenarios").await;
    let numbers: Vec<_> = listed.json["items"].as_array().unwrap().iter().map(|scenario| scenario["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 11, 12]);
    let mut runs = BTreeMap::new();
    for scenario in [2, 3, 11, 12] {
        runs.insert(scenario, customer.run(scenario).await);
    }
    let mut ends = BTreeMap::new();
    for (scenario, order_id) in &runs {
        let events = customer.all_events_of(order_id).await;
        check_sequence(order_id, &events, &[]);
        ends.insert(*scenario, names(&events).into_iter().map(str::to_owned).collect::<Vec<_>>());
    }
    assert_eq!(ends[&2], ["OrderCreated", "PaymentDeclined", "OrderCancelled"]);
    let outcomes = ["WorkerDeclinedJob", "WorkerOfferExpired", "WorkerAcceptedJob", "DeliveryCompleted", "OrderCompleted"];
    let seen: Vec<_> = ends[&3].iter().filter(|name| outcomes.contains(&name.as_str())).collect();
    assert_eq!(seen, outcomes.iter().collect::<Vec<_>>());
    assert!(
        ends[&11].ends_with(&["WorkerSearchExhausted", "PaymentReversalRequested", "PaymentRefunded", "OrderCancelled"].map(String::from))
    );
    assert_eq!(books::charges_and_refunds(folder.path(), &runs[&11]), (1, 1));
    assert_eq!(ends[&12].iter().filter(|name| *name == "PaymentAccepted").count(), 1);
    assert_eq!(ends[&12].last().unwrap(), "OrderCompleted");
    assert_eq!(books::charges_and_refunds(folder.path(), &runs[&12]), (1, 0), "asked by key, not charged again");
}

async fn a_request_that_comes_again_is_one_order(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let body = json!({"lines": [{"product_id": "canoe", "quantity": 2}]}).to_string();
    let send = async |customer: &Customer, body: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
        customer.send(Method::POST, "/api/orders", &headers, body).await.unwrap()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| send(&customer, &body))).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    let ids: BTreeSet<_> = answers.iter().map(|answer| text(&answer.json, "order_id")).collect();
    assert_eq!((created, ids.len()), (1, 1), "{answers:?}");
    let first = ids.first().unwrap();
    assert_eq!(answers[0].json["total"], json!({"amount_minor": 378_000, "currency": "EUR"}), "the price is the catalogue's");

    let other_body = send(&customer, &body.replace('2', "3")).await;
    assert_eq!((other_body.status, text(&other_body.json, "code")), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch"));
    let neighbour = Customer::visit(&shop).await;
    let theirs = send(&neighbour, &body).await;
    assert!(theirs.status == StatusCode::CREATED && text(&theirs.json, "order_id") != *first);

    shop.kill();
    shop.restart();
    let again = send(&customer, &body).await;
    assert_eq!((again.status, text(&again.json, "order_id")), (StatusCode::OK, *first));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(books::count(folder.path(), "order", "select count(*) from orders"), 2);
}

async fn the_list_has_ones_own_orders_newest_first_page_by_page(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let (customer, neighbour) = (Customer::visit(&shop).await, Customer::visit(&shop).await);
    let mut orders = Vec::new();
    for number in 0..7 {
        orders.push(customer.order(&format!("key-{number}")).await.unwrap());
        neighbour.order(&format!("key-{number}")).await.unwrap();
    }
    orders.reverse();
    let (mut pages, mut path) = (Vec::new(), String::from("/api/orders?limit=3"));
    loop {
        let page = customer.get(&path).await;
        let items = page.json["items"].as_array().unwrap();
        pages.push(items.iter().map(|order| text(order, "order_id").to_owned()).collect::<Vec<_>>());
        match page.json.get("next") {
            Some(next) => path = format!("/api/orders?limit=3&after={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), orders);
    for order_id in &orders {
        customer.end_of(order_id).await;
    }
    let by_status =
        async |status: &str| customer.get(&format!("/api/orders?status={status}")).await.json["items"].as_array().unwrap().len();
    assert_eq!(by_status("completed").await + by_status("cancelled").await, 7);
    assert_eq!(by_status("pending").await, 0);
    assert_eq!(Customer::visit(&shop).await.get("/api/orders").await.json, json!({"items": []}));
}

async fn an_order_that_is_cancelled_under_way_ends_cancelled_with_the_money_returned(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "demo"]);
    let customer = Customer::visit(&shop).await;
    // Nobody is free in scenario 11, so that it stays paid and waiting; in scenario 3 the payment is still being tried.
    let (paid, unpaid) = (customer.run(11).await, customer.run(3).await);
    assert_eq!(customer.cancel(&unpaid).await.status, StatusCode::ACCEPTED);
    customer.wait_until_status(&paid, "confirmed").await;
    assert_eq!(customer.delete(&paid).await.status, StatusCode::CONFLICT);
    assert_eq!(customer.cancel(&paid).await.status, StatusCode::ACCEPTED);
    assert_eq!(customer.cancel(&paid).await.status, StatusCode::ACCEPTED, "asking again changes nothing");

    let cancelling = ["OrderCancellationRequested", "DeliveryCancelled", "PaymentReversalRequested", "PaymentRefunded", "OrderCancelled"];
    let events = customer.all_events_of(&paid).await;
    check_sequence(&paid, &events, &["OrderCancellationRequested"]);
    assert_eq!(names(&events)[events.len() - 5..], cancelling, "{:?}", names(&events));
    assert_eq!(books::charges_and_refunds(folder.path(), &paid), (1, 1));

    let events = customer.all_events_of(&unpaid).await;
    check_sequence(&unpaid, &events, &["OrderCancellationRequested"]);
    let mut steps = names(&events);
    steps.retain(|name| !["OrderCreated", "PaymentAccepted"].contains(name));
    let mut nothing_taken = cancelling;
    nothing_taken[3] = "PaymentNothingTaken";
    assert!(steps == cancelling || steps == nothing_taken, "{steps:?}");
    let (charges, refunds) = books::charges_and_refunds(folder.path(), &unpaid);
    assert_eq!(charges, refunds);

    for order_id in [&paid, &unpaid] {
        let order = customer.get(&format!("/api/orders/{order_id}")).await.json;
        assert_eq!((text(&order, "status"), text(&order, "cancel_reason")), ("cancelled", "customer_request"));
        assert_eq!(customer.cancel(order_id).await.status, StatusCode::ACCEPTED, "it is what was asked for");
    }
}

async fn deleting_erases_the_recipient_everywhere_and_keeps_the_books(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let (customer, neighbour) = (Customer::visit(&shop).await, Customer::visit(&shop).await);
    let name = "Ottilie Quillfeather";
    let recipient = json!({"name": name, "address": "7 Heron Weir, Brookside", "note": "ask for Ottilie"});
    let body = json!({"lines": [{"product_id": "canoe", "quantity": 1}], "recipient": recipient}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "k"), ("cascade-scenario", "3")];
    let created = customer.send(Method::POST, "/api/orders", &headers, body.as_str()).await.unwrap();
    let order_id = text(&created.json, "order_id");
    // The second worker lets the offer expire, so it is still under way.
    let early = customer.delete(order_id).await;
    assert_eq!((early.status, text(&early.json, "code")), (StatusCode::CONFLICT, "order_not_ended"));
    let events = customer.all_events_of(order_id).await;
    assert!(!json!(events).to_string().contains("Ottilie"), "no personal data in any event");
    let found = books::files_with(folder.path(), "Ottilie");
    assert!(!found.is_empty() && found.iter().all(|file| file.starts_with("order.db")), "{found:?}");
    assert_eq!(customer.get(&format!("/api/orders/{order_id}")).await.json["recipient"], recipient);
    let shared = neighbour.get(text(&created.json["links"], "self")).await;
    assert!(shared.status == StatusCode::OK && !shared.text.contains("Ottilie"), "{shared:?}");
    assert_eq!(neighbour.delete(order_id).await.status, StatusCode::NOT_FOUND);
    let delivered = customer.cancel(order_id).await;
    assert_eq!((delivered.status, text(&delivered.json, "code")), (StatusCode::CONFLICT, "already_delivered"));

    assert_eq!(customer.delete(order_id).await.status, StatusCode::NO_CONTENT);
    wait_until("no file has the name", async || books::files_with(folder.path(), "Ottilie").is_empty().then_some(())).await;
    assert!(books::files_with(folder.path(), "Heron Weir").is_empty());
    let order = customer.get(&format!("/api/orders/{order_id}")).await;
    assert_eq!((text(&order.json, "status"), order.json.get("recipient")), ("deleted", None));
    assert_eq!(order.json["total"]["amount_minor"], 189_000);
    assert_eq!(customer.get("/api/orders").await.json["items"], json!([]));
    assert_eq!(customer.delete(order_id).await.status, StatusCode::NO_CONTENT, "it is deleted");
    assert_eq!(customer.cancel(order_id).await.status, StatusCode::GONE);
    let last = wait_until("the order is said to be deleted", async || {
        customer.events_of(order_id).await.last().filter(|event| name_of(event) == "OrderDeleted").cloned()
    })
    .await;
    assert_eq!(last["data"], json!({}));
}

async fn only_its_customer_sees_an_orders_events(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let (customer, neighbour) = (Customer::visit(&shop).await, Customer::visit(&shop).await);
    let order_id = customer.order("key").await.unwrap();
    let events = customer.all_events_of(&order_id).await;
    for path in [format!("/api/orders/{order_id}/events"), format!("/api/events?subject={order_id}"), String::from("/api/events")] {
        assert_eq!(customer.get(&path).await.json["items"], json!(events), "{path}");
    }
    for nosy in [&neighbour, &Customer::stranger(&shop)] {
        assert_eq!(nosy.get(&format!("/api/orders/{order_id}/events")).await.status, StatusCode::NOT_FOUND);
        assert_eq!(nosy.get(&format!("/api/events?subject={order_id}")).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(neighbour.get("/api/events").await.json["items"], json!([]));
    let pages = async |after: &str| customer.get(&format!("/api/orders/{order_id}/events?limit=2&after={after}")).await.json;
    let first = pages("0").await;
    assert_eq!(first["items"], json!(events[..2]));
    assert_eq!(pages(text(&first, "next")).await["items"][0], events[2]);
}
