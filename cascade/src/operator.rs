//! What an operator asks a running shop: where it is, by what it knows them, and what it answers or refuses.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use clap::{Args, ValueHint};
use kit::{
    Environment, Position,
    http::{
        client::{Client, Limits, Pieces},
        identity::OPERATOR,
    },
    security::{Keyring, SecretError},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    cli::URL,
    scenario::{drawing::printable, feed::Feed},
    usage,
};

/// How long the shop may take to answer, and how long its answer may be.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), answer_bytes_max: 16 * 1024 * 1024 };
/// A shop proves a silent stream alive every 20 seconds: one that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How much is read of a stream's answer that says what is wrong, in bytes.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// The media type of what is said to the shop.
const JSON: &str = "application/json";
/// The largest file that holds a token, in bytes.
const TOKEN_BYTES_MAX: u64 = 1024;
/// The secret's file in the data folder.
const SECRET: &str = "secret";

/// Flags that say where the shop is, and by what it knows an operator.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Where the shop is, or its broker.
    #[arg(long, global = true, value_name = "URL", default_value = URL, value_parser = usage::base_url, value_hint = ValueHint::Url)]
    pub(crate) url: String,

    /// The shop's data folder, if it is on this machine: its secret says that an operator asks.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "cascade-data", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: PathBuf,

    /// The file that holds the shop's secret [default: `secret` in the data folder].
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,

    /// A file that holds a token, for who has no secret.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
}

/// A running shop, as an operator asks it.
pub(crate) struct Shop {
    client: Client,
    base: String,
    authorization: HeaderValue,
}

impl Access {
    /// The shop that the flags mean.
    pub(crate) fn shop(&self, environment: &Environment) -> anyhow::Result<Shop> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.token()?)).context("the token cannot be sent")?;
        authorization.set_sensitive(true);
        Ok(Shop { client: Client::new(environment.connect.clone()), base: self.url.clone(), authorization })
    }

    fn token(&self) -> anyhow::Result<String> {
        if let Some(path) = &self.token_file {
            let failed = || format!("token file `{}`", path.display());
            let mut text = String::new();
            File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)).with_context(failed)?;
            let token = text.trim();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                bail!("{} must hold a token and nothing else", failed());
            }
            return Ok(token.to_owned());
        }
        let path = self.secret_file.clone().unwrap_or_else(|| self.data_dir.join(SECRET));
        let keyring = Keyring::load(&path).map_err(|error| match &error {
            SecretError::File { .. } if self.secret_file.is_none() => {
                anyhow!("{error}; name the shop's --data-dir or --secret-file, or a --token-file")
            }
            _ => anyhow!(error),
        })?;
        Ok(keyring.service_token(OPERATOR))
    }
}

/// What a request says beside its path.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// The body, and its media type.
    pub(crate) body: Option<(&'static str, String)>,
    /// What must be there for it to be done.
    pub(crate) condition: Option<Condition>,
}

/// What must be there for a request to be done (RFC 9110, section 13.1).
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// The version with this entity tag; `*` means any.
    IfMatch(HeaderValue),
    /// Nothing.
    IfNone,
}

/// What the shop answered: JSON.
pub(crate) struct Answer {
    text: String,
    base: String,
    /// The version of what is shown.
    pub(crate) etag: Option<String>,
}

/// What the shop did not do, and why.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(crate) struct Refused {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// The problem's code; empty where the answer was no problem document.
    pub(crate) code: String,
    /// The field at fault, if one is.
    pub(crate) field: Option<String>,
    /// How many of the events that were sent are in the log.
    pub(crate) landed: Option<usize>,
    said: String,
}

impl Request {
    /// Says `json`.
    pub(crate) fn json(json: &Value) -> Self {
        Self { body: Some((JSON, json.to_string())), condition: None }
    }
}

impl Answer {
    /// Reads it.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        serde_json::from_str(&self.text)
            .with_context(|| format!("the answer of {} cannot be read: is it this version of the shop?", self.base))
    }

    /// As it came.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Shop {
    /// Asks, and reads the answer. `body` goes as JSON, if there is one; an answer without a body is `null`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        self.send(method, path, body.map(Request::json).unwrap_or_default()).await?.read()
    }

    /// Asks for what is at `path`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, Request::default()).await
    }

    /// Sends a request; an answer without a body is `null`. What the shop refuses is a [`Refused`].
    pub(crate) async fn send(&self, method: Method, path: &str, request: Request) -> anyhow::Result<Answer> {
        let mut headers = self.headers();
        match request.condition {
            Some(Condition::IfMatch(tag)) => drop(headers.insert(header::IF_MATCH, tag)),
            Some(Condition::IfNone) => drop(headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"))),
            None => {}
        }
        let bytes = request.body.map(|(media, text)| {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
            text
        });
        let answer = self.client.send(method, &self.uri(path)?, headers, bytes.unwrap_or_default().into(), LIMITS).await;
        let answer = answer.with_context(|| format!("the shop at {} does not answer", self.base))?;
        if !answer.status().is_success() {
            return Err(refusal(answer.status(), answer.body()).into());
        }
        let etag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(printable);
        let text = if answer.body().is_empty() { "null".into() } else { String::from_utf8_lossy(answer.body()).into_owned() };
        Ok(Answer { text, base: self.base.clone(), etag })
    }

    /// Opens the stream of events at `path`.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Feed> {
        let mut headers = self.headers();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let answer = self.client.stream(&self.uri(path)?, headers, SILENCE_MAX).await;
        let answer = answer.with_context(|| format!("the shop at {} does not answer", self.base))?;
        match answer.status() {
            StatusCode::OK => Ok(Feed::new(answer.into_body())),
            status => Err(refusal(status, &beginning_of(answer.into_body()).await).into()),
        }
    }

    fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, self.authorization.clone())])
    }

    fn uri(&self, path: &str) -> anyhow::Result<Uri> {
        format!("{}{path}", self.base).parse().with_context(|| format!("`{}{path}` is no URL", self.base))
    }
}

/// Runs what an operator asked for.
pub(crate) fn block_on<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")?;
    runtime.block_on(what)
}

/// A path with a query of these pairs.
pub(crate) fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// The name of a token or a subscription, as a flag: it goes into a path.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    let is_name = (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_name { Ok(text.to_owned()) } else { Err("it must be 1 to 64 of a-z, 0-9 and `-`, and begin with a letter") }
}

/// A place in the log, as a flag.
pub(crate) fn position(text: &str) -> Result<Position, &'static str> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.map(Position).ok_or("it must be a position in the log: a whole number such as 42")
}

/// What a problem document says, with the field at fault.
fn refusal(status: StatusCode, body: &[u8]) -> Refused {
    #[derive(Deserialize)]
    struct Document {
        code: String,
        detail: String,
        field: Option<String>,
        landed: Option<usize>,
    }
    let Ok(Document { code, detail, field, landed }) = serde_json::from_slice::<Document>(body) else {
        return Refused { status, code: String::new(), field: None, landed: None, said: format!("the shop answered {status}") };
    };
    let said = match &field {
        _ if status == StatusCode::UNAUTHORIZED && code == "unauthorized" => {
            String::from("the shop does not know us: its secret is another one")
        }
        Some(field) if landed.is_none() && !detail.contains(field) => format!("{detail} (`{field}`)"),
        Some(_) | None => detail,
    };
    let plain = |text: String| text.chars().filter(|letter| !letter.is_control()).collect::<String>();
    Refused { status, code, field: field.map(plain), landed, said: plain(said) }
}

/// As much of an answer as a problem document may be long; what comes behind that is not read.
pub(crate) async fn beginning_of(mut pieces: Pieces) -> Vec<u8> {
    let mut read = Vec::new();
    while let Ok(Some(piece)) = pieces.next().await {
        read.extend_from_slice(&piece);
        if read.len() > PROBLEM_BYTES_MAX {
            break;
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_query_is_encoded() {
        let query = |subject: &str| with_query("/api/events", [("subject", subject.to_owned()), ("limit", "1".into())]);
        assert_eq!(query("a&b=ä +"), "/api/events?subject=a%26b%3D%C3%A4+%2B&limit=1");
        assert_eq!(with_query("/api/events", []), "/api/events");
    }

    #[test]
    fn a_position_is_a_whole_number_from_0_on() {
        assert_eq!((position("42"), position("0")), (Ok(Position(42)), Ok(Position(0))));
        for bad in ["-1", "", "first", "4.2", "9223372036854775808"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }

    fn access(folder: &std::path::Path) -> Access {
        Access { url: URL.into(), data_dir: folder.into(), secret_file: None, token_file: None }
    }

    #[test]
    fn an_operator_is_known_by_the_secret_or_by_a_token_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let said = access(folder.path()).token().unwrap_err().to_string();
        assert!(said.contains("secret") && said.contains("--token-file"), "{said}");
        let keyring = Keyring::load_or_create(&folder.path().join(SECRET), &kit::ids::Ids::seeded(1)).unwrap();
        assert_eq!(access(folder.path()).token().unwrap(), keyring.service_token("operator"));
        let file = folder.path().join("token");
        let with_token = || Access { token_file: Some(file.clone()), ..access(folder.path()) };
        assert!(with_token().token().unwrap_err().to_string().contains("token file"));
        for (text, expected) in [("cascade_a_1\n", Some("cascade_a_1")), ("", None), ("two words", None), ("ä", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(with_token().token().ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_the_shop_refuses_is_said_in_its_words() {
        let said = |status: u16, body: &str| refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).to_string();
        assert_eq!(said(409, r#"{"code":"token_exists","detail":"there is\n one"}"#), "there is one");
        assert_eq!(said(401, r#"{"code":"unauthorized","detail":"x"}"#), "the shop does not know us: its secret is another one");
        assert_eq!(said(401, r#"{"code":"expired_token","detail":"this token has expired"}"#), "this token has expired");
        assert_eq!(said(403, r#"{"code":"missing_scope","detail":"not covered","field":"types"}"#), "not covered (`types`)");
        assert_eq!(said(422, r#"{"code":"invalid","detail":"`sink` must be a URL","field":"sink"}"#), "`sink` must be a URL");
        assert_eq!(said(502, "<html>"), "the shop answered 502 Bad Gateway");
    }
}
