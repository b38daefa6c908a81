//! A person's browser: Chromium, driven from outside by a chromedriver of its own.
#![allow(dead_code, reason = "each test target uses a part of it")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use fantoccini::{ClientBuilder, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use kit::http::client::{Client, Limits, TcpConnect};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long anything may take that must come to be.
const PATIENCE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), answer_bytes_max: 8 * 1024 * 1024 };

/// A chromedriver, which ends when it is dropped.
pub(crate) struct Driver {
    child: Child,
    base: String,
    _folder: TempDir,
}

impl Driver {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            // What a browser that is killed leaves behind goes with the folder.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver cannot be started; `cargo xtask test --install` installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // It says where it listens once it does.
        let port = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "chromedriver ended");
            if let Some((_, rest)) = line.split_once("successfully on port ") {
                break rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            }
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, base: format!("http://127.0.0.1:{port}"), _folder: folder }
    }

    /// Opens a browser with a profile of its own: another customer.
    pub(crate) async fn browser(&self) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let flags = [
            "--headless=new",
            // Chromium does not run as root otherwise, and the tests may.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
        ];
        let folder = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<&str> = flags.into_iter().chain([folder.as_str()]).collect();
        let Value::Object(wanted) = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }) else {
            unreachable!("an object was written")
        };
        let page =
            ClientBuilder::new(HttpConnector::new()).capabilities(Capabilities::from_iter(wanted)).connect(&self.base).await.unwrap();
        let session = page.session_id().await.unwrap().unwrap();
        let process = page.capabilities().and_then(|given| given.get("goog:processID")?.as_u64()).unwrap();
        Browser {
            page,
            session: format!("{}/session/{session}", self.base),
            http: Client::new(Arc::new(TcpConnect)),
            process,
            _profile: profile,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One person's browser, with one page open.
pub(crate) struct Browser {
    pub(crate) page: fantoccini::Client,
    session: String,
    http: Client,
    /// The process that all its other processes end with.
    process: u64,
    _profile: TempDir,
}

impl Browser {
    /// Runs a script in the page; gives what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until `expression` is true in the page.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        wait_until(expression, async || (self.run(&script).await == Value::Bool(true)).then_some(())).await;
    }

    /// Opens a page of the shop.
    pub(crate) async fn visit(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// Runs a script in each page that is opened from now on, before the page's own.
    pub(crate) async fn prepare(&self, script: &str) {
        let parameters = json!({ "source": script });
        self.post("goog/cdp/execute", &json!({ "cmd": "Page.addScriptToEvaluateOnNewDocument", "params": parameters })).await;
    }

    /// Asks the shop's API as the page would, with the page's session; gives the status and the body.
    pub(crate) async fn fetch(&self, path: &str) -> (u64, Value) {
        let script = "const [path, done] = arguments;
            fetch(path, { headers: { accept: 'application/json' } }).then(async (answer) => done([answer.status, await answer.json()]))";
        let answer = self.page.execute_async(script, vec![path.into()]).await.unwrap();
        (answer[0].as_u64().unwrap(), answer[1].clone())
    }

    /// Shows pages as somebody sees them who has set their machine to `scheme`: light or dark.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.post("goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } })).await;
        self.wait_for(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches")).await;
    }

    /// Makes the screen that of a phone, or with `None` the window's own again.
    pub(crate) async fn hold(&self, phone: Option<(u32, u32)>) {
        let (command, parameters) = match phone {
            Some((width, height)) => {
                ("Emulation.setDeviceMetricsOverride", json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true }))
            }
            None => ("Emulation.clearDeviceMetricsOverride", json!({})),
        };
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await;
    }

    /// Clicks on what `selector` finds first.
    pub(crate) async fn click(&self, selector: &str) {
        self.page.find(fantoccini::Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Presses a key on what has the focus.
    pub(crate) async fn press(&self, key: fantoccini::key::Key) {
        self.page.active_element().await.unwrap().send_keys(&String::from(char::from(key))).await.unwrap();
    }

    /// What the console has said since it was last asked and that is worse than a remark, e.g. a script that the policy forbids.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await;
        let bad = entries.as_array().unwrap().iter().filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    /// What axe-core finds wrong with the page as it is now; it waits for movements to end, because what fades in has no contrast yet.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/node_modules/axe-core/axe.min.js");
        let source = std::fs::read_to_string(source).expect("axe-core is missing; `cargo xtask test --install` installs it");
        self.wait_for(
            "document.getAnimations().every((each) => each.playState !== 'running' || each.effect.getComputedTiming().endTime === Infinity)",
        )
        .await;
        self.run(&format!("{source}; window.axe = axe")).await;
        // What comes while it looks, such as an event's line, is there at once.
        let script = "const [done] = arguments;
            const still = new CSSStyleSheet();
            still.replaceSync('*, *::before, *::after { animation: none !important; transition: none !important }');
            document.adoptedStyleSheets = [still];
            axe.run().then(({ violations }) => {
                document.adoptedStyleSheets = [];
                done(violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target.join(' ')}: ${node.failureSummary}`)));
            })";
        let found = self.page.execute_async(script, Vec::new()).await.unwrap();
        found.as_array().unwrap().iter().map(Value::to_string).collect()
    }

    /// A command of chromedriver's own.
    async fn post(&self, command: &str, body: &Value) -> Value {
        let uri = format!("{}/{command}", self.session).parse().unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let answer = self.http.send(Method::POST, &uri, headers, body.to_string().into(), LIMITS).await.unwrap();
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // By its id: chromedriver leaves its browsers running when it ends.
        let _ = Command::new("kill").arg("-KILL").arg(self.process.to_string()).status();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        // Its folder is removed next, and it must not be writing into it.
        while Path::new(&format!("/proc/{}/exe", self.process)).exists() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Looks until there is what was looked for, named `what`; gives it.
async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
