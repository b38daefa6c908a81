//! What an operator asks a running shop: where it is, by what it knows them, and what it answers or refuses.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use clap::{Args, ValueHint};
use kit::{
    Environment,
    http::{
        client::{Client, Limits},
        identity::OPERATOR,
    },
    security::{Keyring, SecretError},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{cli::URL, usage};

/// How long the shop may take to answer, and how long its answer may be.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), answer_bytes_max: 16 * 1024 * 1024 };
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

impl Shop {
    /// Asks, and reads the answer. `body` goes as JSON, if there is one; an answer without a body is `null`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        let uri: Uri = format!("{}{path}", self.base).parse().with_context(|| format!("`{}{path}` is no URL", self.base))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let answer = self.client.send(method, &uri, headers, bytes.into(), LIMITS).await;
        let answer = answer.with_context(|| format!("the shop at {} does not answer", self.base))?;
        if !answer.status().is_success() {
            return Err(refusal(answer.status(), answer.body()));
        }
        let text: &[u8] = if answer.body().is_empty() { b"null" } else { answer.body() };
        serde_json::from_slice(text).with_context(|| format!("the answer of {} cannot be read: is it this version of the shop?", self.base))
    }
}

/// What a problem document says, with the field at fault.
fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    #[derive(Deserialize)]
    struct Document {
        code: String,
        detail: String,
    }
    let Ok(Document { code, detail }) = serde_json::from_slice::<Document>(body) else { return anyhow!("the shop answered {status}") };
    if status == StatusCode::UNAUTHORIZED && code == "unauthorized" {
        return anyhow!("the shop does not know us: its secret is another one");
    }
    anyhow!(detail.chars().filter(|letter| !letter.is_control()).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(said(502, "<html>"), "the shop answered 502 Bad Gateway");
    }
}
