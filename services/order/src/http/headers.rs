//! Reads what a request's headers say of a command: its idempotency key, its script, its trace.

use contract::CustomerId;
use http::{HeaderMap, HeaderName};
use kit::{
    Handle, Problem,
    http::{Caller, Gate},
    service::Idempotency,
};
use uuid::Uuid;

use crate::Orders;

/// A client's name for a request that it may send again (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Which script the simulated parts follow; in playground mode only.
const SCENARIO: HeaderName = HeaderName::from_static("cascade-scenario");
/// The trace (W3C Trace Context, section 3.2).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest idempotency key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 255;
/// The longest name of a script, in bytes.
pub(super) const SCENARIO_BYTES_MAX: usize = 64;

/// What makes a request that comes again find its first run; none where the client gave no key.
///
/// A key belongs to whoever sent it. All that is known of an anonymous client is that it is nobody, so they share one scope: two that
/// choose the same key collide. A client that wants keys of its own opens a session first. The key of an anonymous client is also
/// kept for the `owner` that it becomes: it may come again with the session that the first answer opened.
pub(super) fn idempotency(
    headers: &HeaderMap,
    caller: &Caller,
    owner: &CustomerId,
    gate: &Gate,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let invalid = |detail: &str| Problem::bad_request("invalid_idempotency_key", detail).field("idempotency-key");
    let Some(key) = single(headers, &IDEMPOTENCY_KEY).map_err(|()| invalid("there is more than one `Idempotency-Key`"))? else {
        return Ok(None);
    };
    let key = match std::str::from_utf8(key) {
        Ok(text) if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => text.to_owned(),
        Ok(_) | Err(_) => return Err(invalid("`Idempotency-Key` must be 1 to 255 visible ASCII characters")),
    };
    // Stored; never rename. The prefixes keep a customer from being called like another scope.
    let scopes = match caller {
        Caller::Anonymous => vec![String::from("anonymous"), format!("customer/{owner}")],
        Caller::Guest(owner) => vec![format!("customer/{owner}")],
        Caller::Service(name) => vec![format!("service/{name}")],
        Caller::Operator => vec![String::from("operator")],
    };
    Ok(Some(Idempotency { scopes, key, fingerprint: gate.keyring.fingerprint(body) }))
}

/// The trace that a command belongs to: the client's, or a new one.
pub(super) fn trace(headers: &HeaderMap, orders: &Handle<Orders>) -> String {
    continued_trace(headers).unwrap_or_else(|| new_trace(orders.new_uuid(), orders.new_uuid()))
}

/// The script that the simulated parts are to follow for a new order.
pub(super) fn scenario(headers: &HeaderMap, gate: &Gate) -> Result<Option<String>, Problem> {
    let invalid = || {
        let detail = "`Cascade-Scenario` must be one text of 1 to 64 of a-z, 0-9 and -";
        Problem::bad_request("invalid_scenario", detail).field("cascade-scenario")
    };
    let Some(value) = single(headers, &SCENARIO).map_err(|()| invalid())? else { return Ok(None) };
    if !gate.is_playground {
        return Err(Problem::forbidden("the simulated parts can be steered in playground mode only").field("cascade-scenario"));
    }
    let is_allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    match std::str::from_utf8(value) {
        Ok(text) if (1..=SCENARIO_BYTES_MAX).contains(&value.len()) && value.iter().all(is_allowed) => Ok(Some(text.to_owned())),
        Ok(_) | Err(_) => Err(invalid()),
    }
}

/// The trace that the client is in, if it says so validly. A newer version is read as the one we know (W3C Trace Context, section 4.3).
fn continued_trace(headers: &HeaderMap) -> Option<String> {
    let text = std::str::from_utf8(single(headers, &TRACEPARENT).ok()??).ok()?;
    let mut parts = text.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_longer = parts.next().is_some();
    let is_hex =
        |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let is_well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let is_valid = is_well_formed && version != "ff" && !(version == "00" && is_longer) && is_set(trace) && is_set(parent);
    is_valid.then(|| format!("00-{trace}-{parent}-{flags}"))
}

/// A trace of our own. The last half of a UUIDv7 is chance, and never all zero because of the variant bits in it.
fn new_trace(trace: Uuid, parent: Uuid) -> String {
    let (_, parent) = parent.as_u64_pair();
    format!("00-{}-{parent:016x}-01", trace.simple())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use kit::{http::Proxies, security::Keyring};

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    fn gate(is_playground: bool) -> Gate {
        Gate { keyring: Keyring::from_secret([7; 32]), is_playground, hosts: Vec::new(), proxies: Proxies::none() }
    }

    fn read(headers: &HeaderMap, caller: &Caller, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
        idempotency(headers, caller, &"guest-1".parse().unwrap(), &gate(true), body)
    }

    #[test]
    fn an_idempotency_key_is_bound_to_its_sender_and_its_body() {
        let read = |caller, body: &str| read(&with(IDEMPOTENCY_KEY, "k-1"), &caller, body.as_bytes()).unwrap().unwrap();
        let first = read(Caller::Guest(String::from("guest-1")), "{}");
        assert_eq!((first.scopes.as_slice(), first.key.as_str()), ([String::from("customer/guest-1")].as_slice(), "k-1"));
        assert_eq!(first, read(Caller::Guest(String::from("guest-1")), "{}"));
        assert_ne!(first.fingerprint, read(Caller::Anonymous, "{ }").fingerprint);
        assert_eq!(read(Caller::Anonymous, "{}").scopes, ["anonymous", "customer/guest-1"]);
        assert_eq!(super::tests::read(&HeaderMap::new(), &Caller::Anonymous, b"").unwrap(), None);
    }

    #[test]
    fn an_idempotency_key_that_is_empty_long_odd_or_doubled_is_refused() {
        let is_refused = |headers: HeaderMap| {
            let problem = read(&headers, &Caller::Anonymous, b"").unwrap_err();
            (problem.status.as_u16(), problem.code) == (400, "invalid_idempotency_key")
        };
        for bad in ["", "a b", "ä", &"k".repeat(256)] {
            assert!(is_refused(with(IDEMPOTENCY_KEY, bad)), "{bad}");
        }
        let mut doubled = with(IDEMPOTENCY_KEY, "a");
        doubled.append(IDEMPOTENCY_KEY, HeaderValue::from_static("b"));
        assert!(is_refused(doubled));
        assert!(read(&with(IDEMPOTENCY_KEY, &"k".repeat(255)), &Caller::Anonymous, b"").is_ok());
    }

    #[test]
    fn a_scenario_is_taken_in_playground_mode_only() {
        assert_eq!(scenario(&with(SCENARIO, "picky-3"), &gate(true)).unwrap().as_deref(), Some("picky-3"));
        assert_eq!(scenario(&with(SCENARIO, "picky-3"), &gate(false)).unwrap_err().status.as_u16(), 403);
        assert_eq!(scenario(&HeaderMap::new(), &gate(false)).unwrap(), None);
        for bad in ["", "Picky", "a b", "../x", &"a".repeat(65)] {
            assert_eq!(scenario(&with(SCENARIO, bad), &gate(true)).unwrap_err().code, "invalid_scenario", "{bad}");
        }
    }

    #[test]
    fn a_valid_trace_is_continued_and_an_invalid_one_is_not() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(continued_trace(&with(TRACEPARENT, trace)).as_deref(), Some(trace));
        let newer = format!("cc{}-what-the-future-brings", trace.trim_start_matches("00"));
        assert_eq!(continued_trace(&with(TRACEPARENT, &newer)).as_deref(), Some(trace));
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        ] {
            assert_eq!(continued_trace(&with(TRACEPARENT, bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_new_trace_is_one_that_would_be_continued() {
        let ids = kit::ids::Ids::seeded(1);
        let now = kit::Timestamp::from_ms(1);
        let trace = new_trace(ids.uuid_v7(now), ids.uuid_v7(now));
        assert_eq!(continued_trace(&with(TRACEPARENT, &trace)), Some(trace));
    }
}
