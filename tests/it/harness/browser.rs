//! A real Chromium without a window, driven over the WebDriver protocol (W3C).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{SOON, TempDir, free_port, program, wait_for};

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _dir: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new("browser");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let driver = Command::new(program("chromedriver", "chromium-driver"))
            .arg(format!("--port={}", address.port()))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut browser = Self { driver, address, session: String::new(), _dir: dir };
        wait_for("chromedriver is ready", SOON, || {
            let status = browser.ask("GET", "/status", &Value::Null).ok()?;
            (status["ready"] == true).then_some(())
        });
        let chromium = program("chromium", "chromium");
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": options,
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": wanted } });
        let made = browser.ask("POST", "/session", &capabilities).unwrap();
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Loads a page.
    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({ "url": url }));
    }

    /// Where it is now.
    pub(crate) fn url(&self) -> String {
        self.call("GET", "/url", &Value::Null).as_str().unwrap().to_owned()
    }

    /// Returns once it is there.
    pub(crate) fn await_url(&self, url: &str) {
        wait_for(&format!("the browser is at {url}"), SOON, || (self.url() == url).then_some(()));
    }

    /// What a function body returns in the page.
    pub(crate) fn script(&self, body: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The text of the first element, as it is shown; empty without one.
    pub(crate) fn text(&self, selector: &str) -> String {
        let selector = Value::from(selector);
        let found = self.script(&format!("return document.querySelector({selector})?.innerText"));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Returns once the element shows the text.
    pub(crate) fn await_text(&self, selector: &str, text: &str) {
        wait_for(&format!("`{selector}` shows `{text}`"), SOON, || {
            self.text(selector).contains(text).then_some(())
        });
    }

    /// Clicks the first element, as a mouse does.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types into a field what `text` says; U+E007 is the Enter key.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("/element/{element}/clear"), &json!({}));
        self.call("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys where the focus is; U+E004 is the Tab key.
    pub(crate) fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let source = json!({ "type": "key", "id": "keys", "actions": strokes });
        self.call("POST", "/actions", &json!({ "actions": [source] }));
    }

    /// `light` or `dark`, and the width of the window.
    pub(crate) fn look(&self, theme: &str, width: u32) {
        let theme = json!({ "name": "prefers-color-scheme", "value": theme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [theme] }));
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false }),
        );
    }

    /// Lets pages run no script from now on; ours still do.
    pub(crate) fn forbid_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    }

    /// Writes a picture of the whole page.
    pub(crate) fn picture(&self, path: &Path) {
        let size = self.script("return [window.innerWidth, document.documentElement.scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", &wanted);
        let octets = rebound::mail::base64::decode(taken["data"].as_str().unwrap().as_bytes());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, octets.unwrap()).unwrap();
    }

    /// What axe-core finds wrong with the page, but for what is minor.
    pub(crate) fn accessibility_faults(&self) -> Vec<String> {
        let rules = "const done = arguments[0]; axe.run().then((found) => done(found.violations));";
        let wanted = json!({ "script": format!("{}\n{rules}", axe()), "args": [] });
        let found = self.call("POST", "/execute/async", &wanted);
        let is_grave = |one: &&Value| one["impact"] == "serious" || one["impact"] == "critical";
        let found = found.as_array().unwrap().iter().filter(is_grave);
        found.map(|one| format!("{}: {:#}", one["id"], one["nodes"])).collect()
    }

    /// What the browser takes for an error since this was asked last.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let lines = self.call("POST", "/se/log", &json!({ "type": "browser" }));
        let lines = lines.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        lines.map(|line| line["message"].to_string()).collect()
    }

    fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.call("POST", "/element", &wanted);
        let (_, id) = found.as_object().unwrap().iter().next().unwrap();
        id.as_str().unwrap().to_owned()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let wanted = json!({ "cmd": command, "params": parameters });
        self.call("POST", "/goog/cdp/execute", &wanted)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.ask(method, &path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request to the driver, which keeps connections open whatever it is told.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect_timeout(&self.address, SOON).map_err(failed)?;
        stream.set_read_timeout(Some(2 * SOON)).map_err(failed)?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (length, host) = (body.len(), self.address);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .map_err(failed)?;
        let mut reader = BufReader::new(stream);
        let mut octets = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(failed)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(length) = line.strip_prefix("content-length:") {
                octets = length.trim().parse().ok();
            } else if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; octets.ok_or("the driver says no length")?];
        reader.read_exact(&mut answer).map_err(failed)?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        match answer["value"].get("error") {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes the browser along; killed, it would leave that behind.
        drop(self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null));
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

fn axe() -> String {
    let place = "target/ci-axe/node_modules/axe-core/axe.min.js";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(place);
    fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{place}: {error}; npm install --prefix target/ci-axe --no-save axe-core@4.14.1")
    })
}
