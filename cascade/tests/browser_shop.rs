//! Shopping as a person does it: the shop's page in a real browser, at the pace of the demo.
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

use fantoccini::key::Key;
use person::{Browser, Driver};
use serde_json::{Value, json};
use shop::{Shop, name_of};

const IS_OPEN: &str = "document.querySelectorAll('.product .add').length === 8";
const HAS_ORDERS: &str = "!document.querySelector('#orders-empty').textContent.startsWith('Looking')";
const IS_LIVE: &str = "document.querySelector('#connection').dataset.state === 'live'";
const HAVE_ENDED: &str =
    "[...document.querySelectorAll('.purchase')].every((each) => ['completed', 'cancelled'].includes(each.dataset.status))";
const PHONE: (u32, u32) = (390, 844);

fn open_shop(folder: &tempfile::TempDir) -> Shop {
    Shop::open(folder.path(), &["--pace", "demo", "--seed", "7"])
}

/// Opens the shop's page; waits until it shows what there is.
async fn enter(browser: &Browser, shop: &Shop) {
    browser.visit(&format!("{}/", shop.base())).await;
    for what in [IS_OPEN, HAS_ORDERS, IS_LIVE] {
        browser.wait_for(what).await;
    }
}

/// Makes the next orders follow a scenario's script, so that chance does not end them early. People have no such switch.
async fn follow_script(browser: &Browser, scenario: u32) {
    let script = "const [scenario] = arguments; const real = window.fetch;
        window.fetch = (path, options) => real(path, path === '/api/orders' && options?.method === 'POST'
            ? { ...options, headers: { ...options.headers, 'cascade-scenario': scenario } } : options)";
    browser.page.execute(script, vec![json!(scenario.to_string())]).await.unwrap();
}

async fn put(browser: &Browser, product: &str) {
    browser.click(&format!(".add[aria-label='Add {product} to the basket']")).await;
}

/// Waits until the page shows so many orders; gives their ids, newest first.
async fn orders_shown(browser: &Browser, count: usize) -> Vec<String> {
    browser.wait_for(&format!("document.querySelectorAll('.purchase').length === {count}")).await;
    let ids = browser.run("return [...document.querySelectorAll('.purchase')].map((each) => each.id.replace('order-', ''))").await;
    ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// The orders as the API has them, newest first.
async fn orders_kept(browser: &Browser) -> Vec<Value> {
    let (status, page) = browser.fetch("/api/orders").await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

async fn logged(browser: &Browser, order: &str) -> Vec<Value> {
    let (_, events) = browser.fetch(&format!("/api/orders/{order}/events?limit=1000")).await;
    events["items"].as_array().unwrap().clone()
}

/// The ids of the notifications that an order shows, newest first.
async fn notes(browser: &Browser, order: &str) -> Vec<Value> {
    let script = format!("return [...document.querySelectorAll('#order-{order} .note')].map((each) => each.dataset.id)");
    browser.run(&script).await.as_array().unwrap().clone()
}

/// The latest notifications are the latest events of the log, and the status is the API's.
async fn assert_page_is_true(browser: &Browser, order: &str) {
    let shown = notes(browser, order).await;
    let latest: Vec<Value> = logged(browser, order).await.iter().rev().take(shown.len()).map(|event| event["id"].clone()).collect();
    assert!(!shown.is_empty());
    assert_eq!(shown, latest);
    let (_, view) = browser.fetch(&format!("/api/orders/{order}")).await;
    assert_eq!(browser.run(&format!("return document.querySelector('#order-{order}').dataset.status")).await, view["status"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_bought_and_its_notifications_come_live_and_survive_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    enter(&browser, &shop).await;
    // Every product has a picture of its own, and it can be seen.
    let pictures = browser.run("return [...document.querySelectorAll('.product img')].map((each) => new URL(each.src).pathname)").await;
    let (_, products) = browser.fetch("/api/products").await;
    let ids = products["items"].as_array().unwrap().iter().map(|product| product["product_id"].as_str().unwrap());
    let own = ids.map(|id| json!(format!("/assets/app/products/{id}.svg"))).collect();
    assert_eq!(pictures, Value::Array(own));
    browser.wait_for("[...document.querySelectorAll('.product img')].every((each) => each.complete && each.naturalWidth > 0)").await;

    follow_script(&browser, 3).await;
    put(&browser, "Trout socks").await;
    put(&browser, "Trout socks").await;
    put(&browser, "Cedar canoe").await;
    browser.wait_for("document.querySelector('#sum').textContent === '1912.40 EUR'").await;
    browser.click("#buy").await;
    let order = orders_shown(&browser, 1).await.remove(0);
    let kept = orders_kept(&browser).await;
    assert_eq!((kept.len(), kept[0]["total"]["amount_minor"].as_i64()), (1, Some(191_240)));
    browser.wait_for("document.querySelectorAll('.note').length >= 3").await;
    assert!(browser.page.current_url().await.unwrap().path() == "/", "without leaving the page");
    browser.wait_for("document.querySelector('#basket-empty').checkVisibility() && document.querySelector('#buy').disabled").await;

    browser.page.refresh().await.unwrap();
    browser.wait_for("document.querySelectorAll('.note').length >= 3").await;
    assert_eq!(browser.run(&format!("return {HAVE_ENDED}")).await, Value::Bool(false), "reloaded in the middle");
    assert_eq!(orders_shown(&browser, 1).await, [order.as_str()]);
    browser.wait_for(HAVE_ENDED).await;
    browser.wait_for("document.querySelector('.note').textContent.includes('The order is complete')").await;
    assert_page_is_true(&browser, &order).await;
    let shift = "const [done] = arguments; let sum = 0; new PerformanceObserver((list) => {
        for (const each of list.getEntries()) if (!each.hadRecentInput) sum += each.value; }).observe({ type: 'layout-shift', buffered: true });
        requestAnimationFrame(() => setTimeout(() => done(sum), 100))";
    let shift = browser.page.execute_async(shift, Vec::new()).await.unwrap().as_f64().unwrap();
    assert!(shift < 0.05, "the page jumps: {shift}");
    assert_eq!(orders_kept(&browser).await.len(), 1, "a reload orders nothing");
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    browser.click(".all-events").await;
    browser.wait_for("document.querySelector('#order')?.dataset.status === 'completed'").await;
    assert_eq!(browser.page.current_url().await.unwrap().path(), format!("/orders/{order}"));
    browser.click(".bar-link[href='/']").await;
    browser.wait_for(IS_OPEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_is_killed_under_the_open_page_and_a_press_of_buy_meanwhile_makes_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    enter(&browser, &shop).await;
    follow_script(&browser, 3).await;
    browser.run("window.sameDocument = true").await;
    put(&browser, "Moss notebook").await;
    browser.click("#buy").await;
    orders_shown(&browser, 1).await;
    browser.wait_for("document.querySelectorAll('.note').length >= 4").await;

    shop.kill();
    browser.wait_for("document.querySelector('.explain').textContent.includes('does not answer')").await;
    put(&browser, "Waterfall mug").await;
    browser.click("#buy").await;
    browser.wait_for("document.querySelector('#buy-notice').textContent.includes('does not answer')").await;
    // Impatience changes nothing, and what is put in now is for the next order.
    browser.click("#buy").await;
    put(&browser, "Drizzle umbrella").await;
    shop.restart();

    let shown = orders_shown(&browser, 2).await;
    browser.wait_for(&format!("{IS_LIVE} && {HAVE_ENDED}")).await;
    assert_eq!(browser.run("return window.sameDocument").await, Value::Bool(true), "by itself, not by a reload");
    let kept = orders_kept(&browser).await;
    assert_eq!(kept.iter().map(|view| view["order_id"].as_str().unwrap()).collect::<Vec<_>>(), shown);
    assert_eq!(kept[0]["lines"][0]["product_id"], "waterfall-mug");
    for order in &shown {
        browser.wait_for(&format!("document.querySelector('#order-{order} .note').textContent.includes('The order is complete')")).await;
        assert_page_is_true(&browser, order).await;
        assert_eq!(name_of(logged(&browser, order).await.last().unwrap()), "OrderCompleted");
    }
    assert_eq!(browser.run("return document.querySelector('#lines').textContent.includes('Drizzle umbrella')").await, Value::Bool(true));
    assert_eq!(browser.run("return document.querySelector('#buy-notice').textContent").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tabs_of_a_customer_show_an_order_and_another_customer_sees_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let (browser, other) = (driver.browser().await, driver.browser().await);
    enter(&browser, &shop).await;
    let first = browser.page.window().await.unwrap();
    let second = browser.page.new_window(true).await.unwrap().handle;
    browser.page.switch_to_window(second.clone()).await.unwrap();
    enter(&browser, &shop).await;
    enter(&other, &shop).await;

    browser.page.switch_to_window(first.clone()).await.unwrap();
    follow_script(&browser, 3).await;
    put(&browser, "River stone soap").await;
    browser.click("#buy").await;
    let order = orders_shown(&browser, 1).await.remove(0);
    for tab in [second, first] {
        browser.page.switch_to_window(tab).await.unwrap();
        assert_eq!(orders_shown(&browser, 1).await, [order.as_str()]);
        browser.wait_for("document.querySelector('.what').textContent === '1 × River stone soap'").await;
        browser.wait_for("document.querySelector('#basket-empty').checkVisibility()").await;
        browser.wait_for(HAVE_ENDED).await;
        browser.wait_for("document.querySelector('.note').textContent.includes('The order is complete')").await;
        assert_page_is_true(&browser, &order).await;
    }

    // The other customer's feed works: it shows their own order, and nothing else came before it.
    put(&other, "Mill wheel clock").await;
    other.click("#buy").await;
    let own = orders_shown(&other, 1).await;
    assert_ne!(own[0], order);
    other.wait_for(HAVE_ENDED).await;
    assert_page_is_true(&other, &own[0]).await;
    assert_eq!(other.run("return document.body.textContent.includes('1 × River')").await, Value::Bool(false));
    orders_shown(&browser, 1).await;
    assert_eq!((browser.complaints().await, other.complaints().await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_can_shop_by_keyboard_and_is_led_to_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    enter(&browser, &shop).await;
    browser.run("document.querySelector('.add').focus()").await;
    browser.press(Key::Enter).await;
    browser
        .wait_for("document.querySelector('#announcer').textContent.includes('Waterfall mug is in the basket: 1 piece, 14.90 EUR')")
        .await;
    // More and fewer keep the focus; the last piece taken out hands it on.
    browser.run("document.querySelector('.step:last-child').focus()").await;
    browser.press(Key::Enter).await;
    browser.wait_for("document.querySelector('.quantity').textContent === '2' && document.activeElement.textContent === '+'").await;
    browser.run("document.querySelector('.step').focus()").await;
    browser.press(Key::Enter).await;
    browser.press(Key::Enter).await;
    browser.wait_for("document.querySelectorAll('.basket-line').length === 0 && document.activeElement.id === 'basket'").await;

    put(&browser, "Trout socks").await;
    browser.run("document.querySelector('#buy').focus()").await;
    browser.press(Key::Enter).await;
    let order = orders_shown(&browser, 1).await.remove(0);
    browser.wait_for(&format!("document.activeElement.id === 'order-{order}'")).await;
    browser.wait_for("document.querySelector('#announcer').textContent.includes('Trout socks: ')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shut_out_of_the_shop_on_a_desktop_or_a_phone() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    enter(&browser, &shop).await;
    assert_no_barriers(&browser, "empty").await;
    put(&browser, "Trout socks").await;
    put(&browser, "Cedar canoe").await;
    assert_no_barriers(&browser, "with a basket").await;

    // What the shop refuses is said in its own words, and the basket stays.
    let refusal = "window.real = window.fetch; window.fetch = (path, options) => path !== '/api/orders' ? real(path, options) :
        Promise.resolve(new Response(JSON.stringify({ detail: 'there is no product `canoe`' }), { status: 422 }))";
    browser.run(refusal).await;
    browser.click("#buy").await;
    browser.wait_for("document.querySelector('#buy-notice').textContent === 'Not ordered: there is no product `canoe`.'").await;
    browser.wait_for("document.querySelectorAll('.basket-line').length === 2 && !document.querySelector('#buy').disabled").await;
    assert_no_barriers(&browser, "refused").await;

    browser.run("window.fetch = window.real").await;
    follow_script(&browser, 3).await;
    browser.click("#buy").await;
    browser.wait_for("document.querySelectorAll('.note').length >= 2").await;
    assert_no_barriers(&browser, "under way").await;
    browser.wait_for(HAVE_ENDED).await;
    assert_no_barriers(&browser, "done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_alike_however_long_a_price_is() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, driver) = (open_shop(&folder), Driver::start());
    let browser = driver.browser().await;
    enter(&browser, &shop).await;
    for screen in [None, Some(PHONE), Some((320, 640))] {
        browser.hold(screen).await;
        for price in ["1890.00 EUR", "18900.00 EUR", "1234567.00 EUR"] {
            let script = format!(
                "document.querySelectorAll('.price')[3].textContent = '{price}';
                 const widths = [...document.querySelectorAll('.tile')].map((tile) => Math.round(tile.getBoundingClientRect().width * 10));
                 const isBeside = [...document.querySelectorAll('.product')].some((each) => each.scrollWidth > each.clientWidth);
                 return new Set(widths).size === 1 && !isBeside && document.documentElement.scrollWidth <= innerWidth"
            );
            assert_eq!(browser.run(&script).await, Value::Bool(true), "{price} on {screen:?}");
        }
    }
}

async fn assert_no_barriers(browser: &Browser, when: &str) {
    for phone in [Some(PHONE), None] {
        browser.hold(phone).await;
        let is_wide = browser.run("return document.documentElement.scrollWidth > innerWidth").await;
        assert_eq!(is_wide, Value::Bool(false), "nothing is beside the screen: {when}, {phone:?}");
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            assert_eq!(browser.barriers().await, Vec::<String>::new(), "{when}, {phone:?} in {scheme}");
        }
    }
}
