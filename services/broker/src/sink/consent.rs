//! Whether a sink agrees to be sent events: the handshake of CloudEvents web hooks 1.0 (HTTP 1.1 Web Hooks for Event Delivery,
//! section 4). Permission by callback is not offered.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use kit::{
    Timestamp,
    http::client::{Client, Limits},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire;

/// Who asks, and later who sends.
pub(crate) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// Who may send.
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
/// How many requests a minute they may send; a `*` sets no limit.
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
/// How long the handshake may take, and how long its answer may be.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(5), answer_bytes_max: 64 * 1024 };

/// A sink agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consent {
    /// To events from whom.
    pub origin: String,
    /// To how many requests a minute; none sets no limit.
    pub rate_per_minute: Option<u32>,
    /// When.
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
}

/// Why there is no consent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoConsent {
    /// It could not be asked.
    #[error("the sink could not be asked whether it agrees (OPTIONS with `WebHook-Request-Origin`): {0}")]
    Unreachable(String),
    /// It said nothing of the kind.
    #[error("the sink did not agree: its answer to OPTIONS has no `WebHook-Allowed-Origin`")]
    NotSaid,
    /// It agrees to events of somebody else.
    #[error("the sink did not agree: `WebHook-Allowed-Origin` is neither `{0}` nor `*`")]
    OtherOrigin(String),
    /// The rate cannot be read.
    #[error("the sink's `WebHook-Allowed-Rate` is neither a whole number above 0 nor `*`")]
    Rate,
}

/// Asks the sink `url` whether it takes events from `origin`.
///
/// # Errors
/// See [`NoConsent`].
pub(crate) async fn ask(client: &Client, url: &Uri, origin: &str, now: Timestamp) -> Result<Consent, NoConsent> {
    let mut headers = HeaderMap::new();
    headers.insert(REQUEST_ORIGIN, HeaderValue::try_from(origin).map_err(|error| NoConsent::Unreachable(error.to_string()))?);
    let answer = client.send(Method::OPTIONS, url, headers, "".into(), LIMITS).await;
    let answer = answer.map_err(|error| NoConsent::Unreachable(error.to_string()))?;
    // Whatever its status: who does not know the handshake may answer 200 as well (section 4.2).
    let rate_per_minute = read(answer.headers(), origin)?;
    Ok(Consent { origin: origin.to_owned(), rate_per_minute, at: now })
}

/// How many requests a minute an answer agrees to; none sets no limit.
fn read(headers: &HeaderMap, origin: &str) -> Result<Option<u32>, NoConsent> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match text(ALLOWED_ORIGIN) {
        None => return Err(NoConsent::NotSaid),
        Some("*") => {}
        Some(allowed) if allowed.eq_ignore_ascii_case(origin) => {}
        Some(_) => return Err(NoConsent::OtherOrigin(origin.to_owned())),
    }
    match text(ALLOWED_RATE) {
        None | Some("*") => Ok(None),
        Some(rate) if rate.bytes().all(|byte| byte.is_ascii_digit()) => match rate.parse::<u64>() {
            Ok(1..) => Ok(Some(rate.parse().unwrap_or(u32::MAX))),
            // More than anybody could count is more than anybody sends.
            Err(_) if !rate.is_empty() => Ok(None),
            Ok(0) | Err(_) => Err(NoConsent::Rate),
        },
        Some(_) => Err(NoConsent::Rate),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(origin: Option<&str>, rate: Option<&str>) -> Result<Option<u32>, NoConsent> {
        let mut headers = HeaderMap::new();
        headers.extend(origin.map(|value| (ALLOWED_ORIGIN, HeaderValue::try_from(value).unwrap())));
        headers.extend(rate.map(|value| (ALLOWED_RATE, HeaderValue::try_from(value).unwrap())));
        read(&headers, "shop.example")
    }

    #[test]
    fn consent_is_what_names_us_or_everybody() {
        assert_eq!(answer(Some("*"), Some("*")), Ok(None));
        assert_eq!(answer(Some("Shop.Example"), Some("120")), Ok(Some(120)));
        assert_eq!(answer(Some("shop.example"), None), Ok(None));
        assert_eq!(answer(None, Some("*")), Err(NoConsent::NotSaid));
        for other in ["", "example", "shop.example.evil", "https://shop.example", "shop.example, *", "**"] {
            assert_eq!(answer(Some(other), Some("*")), Err(NoConsent::OtherOrigin("shop.example".into())), "{other}");
        }
    }

    #[test]
    fn a_rate_is_a_whole_number_above_zero() {
        assert_eq!(answer(Some("*"), Some(" 1 ")), Ok(Some(1)));
        assert_eq!(answer(Some("*"), Some("99999999999")), Ok(Some(u32::MAX)));
        assert_eq!(answer(Some("*"), Some("99999999999999999999999")), Ok(None));
        for bad in ["", "0", "00", "-1", "+1", "1.5", "1e3", "120/min", "** "] {
            assert_eq!(answer(Some("*"), Some(bad)), Err(NoConsent::Rate), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_takes_us_by_surprise(origin in "\\*?[ -~]{0,20}", rate in "[0-9]{0,30}[ -~]{0,3}") {
            match answer(Some(&origin), Some(&rate)) {
                Ok(limit) => prop_assert!(limit != Some(0) && matches!(origin.trim(), "*" | "shop.example")),
                Err(error) => prop_assert_ne!(error, NoConsent::NotSaid),
            }
        }
    }
}
