//! The shop as a person sees it: its pages in a real browser, at the pace of the demo.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

/// A person's browser.
#[path = "browser/mod.rs"]
mod person;

mod shop;

use person::{Browser, Driver};
use serde_json::Value;
use shop::{Shop, name_of};

const ROWS: &str = "document.querySelectorAll('.timeline .row[data-id]').length";
const FRESH_ROWS: &str = "document.querySelectorAll('.timeline .row.fresh').length";
const HAS_ENDED: &str = "['completed', 'cancelled'].includes(document.querySelector('#order').dataset.status)";
const IS_LIVE: &str = "document.querySelector('#connection').dataset.state === 'live'";

fn open_shop(folder: &tempfile::TempDir) -> Shop {
    Shop::open(folder.path(), &["--pace", "demo", "--seed", "7"])
}

/// Opens a scenario's page; gives the order that it runs, as its address names it.
async fn start_run(browser: &Browser, shop: &Shop, scenario: u32) -> String {
    browser.visit(&format!("{}/scenario/{scenario}", shop.base())).await;
    browser.wait_for("new URL(location).searchParams.has('run')").await;
    browser.run("return new URL(location).searchParams.get('run')").await.as_str().unwrap().to_owned()
}

/// The ids of the events on the page, from top to bottom.
async fn shown(browser: &Browser) -> Vec<Value> {
    let ids = browser.run("return [...document.querySelectorAll('.timeline .row[data-id]')].map((row) => row.dataset.id)").await;
    ids.as_array().unwrap().clone()
}

/// The order's events as the API has them.
async fn logged(browser: &Browser, order: &str) -> Vec<Value> {
    let (status, events) = browser.fetch(&format!("/api/orders/{order}/events?limit=1000")).await;
    assert_eq!(status, 200, "{events}");
    events["items"].as_array().unwrap().clone()
}

fn ids(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| event["id"].clone()).collect()
}

/// The page shows every event of the log once, in the log's sequence, and the state that the API has.
async fn assert_page_is_true(browser: &Browser, order: &str) {
    let events = logged(browser, order).await;
    assert_eq!(shown(browser).await, ids(&events));
    let (_, view) = browser.fetch(&format!("/api/orders/{order}")).await;
    assert_eq!(browser.run("return document.querySelector('#order').dataset.status").await, view["status"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scenario_is_watched_live_and_a_reload_shows_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    let order = start_run(&browser, &shop, 1).await;
    let address = browser.page.current_url().await.unwrap();

    browser.wait_for(HAS_ENDED).await;
    let all = shown(&browser).await;
    assert_page_is_true(&browser, &order).await;
    // Each event was shown as it happened, none as history.
    assert_eq!(browser.run(&format!("return {FRESH_ROWS}")).await, all.len());
    let title = browser.page.title().await.unwrap();
    assert!(title.ends_with("Scenario 1: The dummy order · Cascade") && !title.starts_with("Scenario"), "{title}");

    browser.page.refresh().await.unwrap();
    browser.wait_for(HAS_ENDED).await;
    browser.wait_for(&format!("{ROWS} === {}", all.len())).await;
    assert_eq!(browser.page.current_url().await.unwrap(), address);
    assert_eq!(shown(&browser).await, all);
    assert_eq!(browser.run(&format!("return {FRESH_ROWS}")).await, 0, "history makes no show");
    let (_, orders) = browser.fetch("/api/orders").await;
    assert_eq!(orders["items"].as_array().unwrap().len(), 1, "a reload orders nothing");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_is_killed_under_the_open_page_and_the_page_heals() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    // Long enough to be killed in the middle: the second worker lets five seconds pass.
    let order = start_run(&browser, &shop, 3).await;
    browser.wait_for(&format!("{ROWS} >= 6")).await;
    browser.run("window.sameDocument = true").await;
    let before = shown(&browser).await;
    shop.kill();
    assert_eq!(browser.run(&format!("return {HAS_ENDED}")).await, Value::Bool(false), "killed in the middle");
    browser.wait_for("document.querySelector('#connection').dataset.state === 'reconnecting'").await;
    browser.wait_for("document.querySelector('#explanation').textContent.includes('does not answer')").await;
    browser.wait_for("document.querySelector('#cancel').disabled").await;
    shop.restart();

    browser.wait_for(IS_LIVE).await;
    browser.wait_for(HAS_ENDED).await;
    assert_eq!(browser.run("return window.sameDocument").await, Value::Bool(true), "by itself, not by a reload");
    let after = shown(&browser).await;
    assert!(after.len() > before.len() && after.starts_with(&before));
    assert_page_is_true(&browser, &order).await;
    assert_eq!(name_of(logged(&browser, &order).await.last().unwrap()), "OrderCompleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_customer_sees_an_order_with_its_link_only() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let (browser, other) = (driver.browser().await, driver.browser().await);
    let order = start_run(&browser, &shop, 2).await;
    browser.wait_for(HAS_ENDED).await;
    let (_, view) = browser.fetch(&format!("/api/orders/{order}")).await;

    let address = browser.page.current_url().await.unwrap();
    for page in [address.to_string(), format!("{}/orders/{order}", shop.base())] {
        other.visit(&page).await;
        other.wait_for("document.querySelector('#order').dataset.status === 'failed'").await;
        assert_eq!(shown(&other).await, Vec::<Value>::new());
    }
    for path in [format!("/api/orders/{order}"), format!("/api/orders/{order}/events")] {
        let (status, problem) = other.fetch(&path).await;
        // Nothing of the order is in the answer, and not that there is one.
        assert!(status == 404 || problem["items"] == serde_json::json!([]), "{path}: {status} {problem}");
    }

    other.visit(&format!("{}{}", shop.base(), view["links"]["page"].as_str().unwrap())).await;
    other.wait_for(HAS_ENDED).await;
    assert_eq!(shown(&other).await, shown(&browser).await);
    assert_eq!(other.run("return document.querySelector('#cancel').disabled").await, Value::Bool(true), "the link is for reading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_cancelled_by_the_button_and_the_money_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    let order = start_run(&browser, &shop, 3).await;
    browser.wait_for(&format!("{ROWS} >= 3 && !document.querySelector('#cancel').disabled")).await;
    browser.page.find(fantoccini::Locator::Id("cancel")).await.unwrap().click().await.unwrap();
    browser.wait_for(HAS_ENDED).await;
    assert_page_is_true(&browser, &order).await;
    let names: Vec<_> = logged(&browser, &order).await.iter().map(|event| name_of(event).to_owned()).collect();
    assert_eq!(names.last().unwrap(), "OrderCancelled", "{names:?}");
    assert!(names.contains(&"PaymentRefunded".to_owned()), "{names:?}");
    browser.wait_for("document.querySelector('#explanation').textContent.includes('went back in full')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Puts itself between the page and its feed: `isDeaf` keeps what comes from the page, `say` gives it something else.
const BETWEEN: &str = "const Real = WebSocket;
    window.isDeaf = false;
    window.WebSocket = class extends Real {
        set onmessage(take) {
            super.onmessage = (message) => window.isDeaf || take(message);
            window.say = (message) => take({ data: JSON.stringify(message) });
        }
    };";

/// Hears nothing until the order has ended, as the API says; then hears that what came meanwhile is no longer kept.
async fn miss_the_end(browser: &Browser, order: &str) {
    browser.run("window.isDeaf = true").await;
    let ask = format!(
        "window.isOver = false;
         (async () => {{
             while (!isOver) isOver = (await (await fetch('/api/orders/{order}')).json()).status === 'completed';
         }})()"
    );
    browser.run(&ask).await;
    browser.wait_for("window.isOver").await;
    let last = logged(browser, order).await.last().unwrap()["position"].clone();
    assert_eq!(browser.run(SHOWN_AS_ENDED).await, Value::Bool(false), "nobody has told the page");
    let data = serde_json::json!({"reason": "trimmed", "asked": "1", "after": last});
    browser.run(&format!("say({{ type: 'cascade.live.reset.v1', data: {data} }})")).await;
}

const SHOWN_AS_ENDED: &str = "return document.querySelector('[data-status=completed]') !== null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_events_are_no_longer_kept_shows_how_the_order_stands_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    browser.prepare(BETWEEN).await;
    // One that always completes: others may be declined.
    let order = start_run(&browser, &shop, 3).await;
    browser.wait_for(&format!("{ROWS} >= 2")).await;
    miss_the_end(&browser, &order).await;
    browser.wait_for(HAS_ENDED).await;
    assert!(browser.run(&format!("return {ROWS}")).await.as_u64().unwrap() < 8, "what it missed it does not make up");
    let said = "document.querySelector('.timeline').textContent.includes('no longer keeps the oldest events')";
    browser.wait_for(said).await;
    browser.wait_for("document.querySelector('#explanation').textContent === 'Somebody brought it.'").await;
    browser.wait_for("document.querySelector('#cancel').disabled").await;

    // The shop's page, with another order; the first one would be shown as ended.
    let other = driver.browser().await;
    other.prepare(BETWEEN).await;
    other.visit(&format!("{}/", shop.base())).await;
    other.wait_for(IS_LIVE).await;
    let start = "const [done] = arguments;
        fetch('/api/scenarios/3/runs', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })
            .then(async (answer) => done((await answer.json()).order_id))";
    let order = other.page.execute_async(start, Vec::new()).await.unwrap().as_str().unwrap().to_owned();
    other.wait_for("['confirmed', 'in_delivery'].includes(document.querySelector('.purchase')?.dataset.status)").await;
    miss_the_end(&other, &order).await;
    other.wait_for(&format!("document.querySelector('#order-{order}').dataset.status === 'completed'")).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    assert_eq!(other.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shut_out_in_light_or_dark() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    let none = Vec::<String>::new();
    for path in ["/scenarios", "/no/such/page"] {
        browser.visit(&format!("{}{path}", shop.base())).await;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            assert_eq!(browser.barriers().await, none, "{path} in {scheme}");
        }
    }
    assert_eq!(browser.page.title().await.unwrap(), "Not found · Cascade");
    start_run(&browser, &shop, 1).await;
    browser.wait_for(HAS_ENDED).await;
    // With an event opened: its raw data must be reachable too.
    browser.run("document.querySelector('.timeline summary').click()").await;
    browser.wait_for("document.querySelector('.timeline pre')").await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        assert_eq!(browser.barriers().await, none, "the scenario in {scheme}");
    }
}
