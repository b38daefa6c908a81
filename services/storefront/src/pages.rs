//! The client app's files, and the pages made from them. In a debug build the files are read from the source folder at each request.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::scenarios::{CATALOGUE, Scenario};

#[derive(RustEmbed)]
#[folder = "../../web/pages"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "../../web/app"]
#[prefix = "app/"]
struct App;

#[derive(RustEmbed)]
#[folder = "../../web/lib"]
#[prefix = "lib/"]
struct Modules;

/// All comes from this shop: no inline script, no foreign host, no frame around it.
const SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// The shop itself.
pub(crate) fn shop(request: &HeaderMap) -> Response {
    page(request, StatusCode::OK, "shop.html", &[])
}

/// The page that lists the scenarios; `origin` is how the browser reached it, for the commands shown there.
pub(crate) fn scenarios(request: &HeaderMap, origin: &str) -> Response {
    let mut cards = String::new();
    for scenario in CATALOGUE {
        card(&mut cards, scenario);
    }
    page(request, StatusCode::OK, "scenarios.html", &[("{{scenarios}}", &cards), ("{{origin}}", &escape(origin))])
}

/// The page that runs a scenario and shows it live.
pub(crate) fn scenario(request: &HeaderMap, scenario: &Scenario) -> Response {
    let title = format!("Scenario {}: {}", scenario.number, escape(scenario.title));
    page(request, StatusCode::OK, "live.html", &[("{{title}}", &title), ("{{intro}}", &intro(scenario)), ("{{again}}", "Run again")])
}

/// The page that shows an order live.
pub(crate) fn order(request: &HeaderMap) -> Response {
    page(
        request,
        StatusCode::OK,
        "live.html",
        &[("{{title}}", "Order"), ("{{intro}}", r#"<h1 class="unseen">An order, as it happens</h1>"#), ("{{again}}", "To the shop")],
    )
}

/// The page for what is not there; `detail` says what.
pub(crate) fn not_found(request: &HeaderMap, detail: &str) -> Response {
    page(request, StatusCode::NOT_FOUND, "not-found.html", &[("{{detail}}", &escape(detail))])
}

/// A style sheet, script or image of the client app; none if there is no such file.
pub(crate) fn asset(request: &HeaderMap, path: &str) -> Option<Response> {
    let file = App::get(path).or_else(|| Modules::get(path))?;
    let etag: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let media = media_type(&file);
    Some(answer(request, StatusCode::OK, &media, &etag, file.data.into_owned()))
}

fn media_type(file: &EmbeddedFile) -> String {
    let media = file.metadata.mimetype();
    if media.starts_with("text/") { format!("{media}; charset=utf-8") } else { media.to_owned() }
}

fn page(request: &HeaderMap, status: StatusCode, template: &str, parts: &[(&str, &str)]) -> Response {
    let Some(file) = Templates::get(template) else {
        tracing::error!(template, "a page of the client app is missing");
        return kit::Problem::internal().into_response();
    };
    let mut html = String::from_utf8_lossy(&file.data).into_owned();
    for (placeholder, text) in parts {
        html = html.replace(placeholder, text);
    }
    let mut hash = DefaultHasher::new();
    html.hash(&mut hash);
    answer(request, status, "text/html; charset=utf-8", &format!("{:016x}", hash.finish()), html.into_bytes())
}

fn answer(request: &HeaderMap, status: StatusCode, media_type: &str, etag: &str, body: Vec<u8>) -> Response {
    let etag = format!("\"{etag}\"");
    let mut response = if status == StatusCode::OK && is_known(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::try_from(etag).ok().map(|etag| (header::ETAG, etag)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, SECURITY_POLICY);
    response
}

/// Whether the client already has what `etag` stands for (RFC 9110, section 13.1.2).
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    known.map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

fn card(html: &mut String, scenario: &Scenario) {
    let Scenario { number, title, teaches, ends, .. } = scenario;
    let ends = ends.iter().map(|end| format!("<li>{}</li>", end.in_words())).collect::<String>();
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        r#"<li class="card scenario-card"><span class="scenario-number" aria-hidden="true">{number}</span><h3>{title}</h3><p>{teaches}</p><ul class="ends" aria-label="Ends it may have">{ends}</ul><a class="button primary" href="/scenario/{number}" aria-label="Run scenario {number}: {title}">Run</a></li>"#,
        title = escape(title),
        teaches = escape(teaches),
    );
}

fn intro(scenario: &Scenario) -> String {
    let Scenario { number, title, teaches, look_for, .. } = scenario;
    let look_for = look_for.iter().map(|text| format!("<li>{}</li>", escape(text))).collect::<String>();
    format!(
        r#"<section class="intro" data-scenario="{number}"><p class="eyebrow">Scenario {number}</p><h1>{title}</h1><p class="teaches">{teaches}</p><details class="look-for"><summary>What to look for</summary><ul>{look_for}</ul></details></section>"#,
        title = escape(title),
        teaches = escape(teaches),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
