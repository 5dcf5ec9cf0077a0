//! A provider of access tokens: its token and device endpoints, and the one where Dovecot asks
//! whether a token is good (RFC 6749, RFC 8628, RFC 7662).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::SOON;
use super::dovecot::USER;

/// A provider with one grant, whose refresh token is new after every use.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    refresh_token: Option<String>,
    given: u32,
    good: BTreeSet<String>,
    lifetime_secs: u64,
    is_agreed: bool,
}

impl Provider {
    /// One whose refresh token is `refresh-0` at first.
    pub(crate) fn start(lifetime_secs: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let state = State {
            refresh_token: Some("refresh-0".to_owned()),
            given: 0,
            good: BTreeSet::new(),
            lifetime_secs,
            is_agreed: false,
        };
        let state = Arc::new(Mutex::new(state));
        let provider = Self { address: listener.local_addr().unwrap(), state };
        let server = provider.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, server) = (stream.unwrap(), server.clone());
                thread::spawn(move || server.answer(stream).unwrap_or_default());
            }
        });
        provider
    }

    /// How many access tokens it has given.
    pub(crate) fn given(&self) -> u32 {
        self.state().given
    }

    /// No access token is good any more.
    pub(crate) fn expire_all(&self) {
        self.state().good.clear();
    }

    /// The grant is gone, and all tokens with it.
    pub(crate) fn revoke(&self) {
        self.state().refresh_token = None;
        self.expire_all();
    }

    /// There is a grant again, with this refresh token.
    pub(crate) fn grant(&self, refresh_token: &str) {
        self.state().refresh_token = Some(refresh_token.to_owned());
    }

    /// The person with the device code agrees.
    pub(crate) fn agree(&self) {
        self.state().is_agreed = true;
    }

    /// The table of a mailbox that logs in with its tokens.
    pub(crate) fn table(&self, refresh_token_file: &str) -> String {
        let Self { address, .. } = self;
        format!(
            "oauth2 = {{ token_url = \"http://{address}/token\", \
             device_url = \"http://{address}/device\", client_id = \"app\", \
             refresh_token_file = \"{refresh_token_file}\", scope = \"mail offline\" }}"
        )
    }

    /// What Dovecot needs to ask it.
    pub(crate) fn dovecot_conf(&self) -> String {
        format!(
            "introspection_url = http://{}/introspect?token=\nintrospection_mode = get\n\
             username_attribute = username\nactive_attribute = active\nactive_value = true\n",
            self.address
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(SOON))?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body = String::from_utf8(body).unwrap();
            let (status, json) = self.say(request.split(' ').nth(1).unwrap(), &body);
            write!(
                reader.get_mut(),
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{json}",
                json.len()
            )?;
        }
    }

    fn say(&self, path: &str, form: &str) -> (u16, String) {
        let field = |name: &str| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let mut state = self.state();
        if let Some(query) = path.strip_prefix("/introspect?token=") {
            // Dovecot says who it is behind the token.
            let is_good = state.good.contains(query.split('&').next().unwrap());
            return (200, format!("{{\"active\":{is_good},\"username\":\"{USER}\"}}"));
        }
        if path == "/device" {
            return (
                200,
                "{\"device_code\":\"dc\",\"user_code\":\"ABCD-EFGH\",\"interval\":1,\
                 \"verification_uri\":\"https://provider.test/device\",\"expires_in\":60}"
                    .to_owned(),
            );
        }
        assert_eq!((path, field("client_id").as_deref()), ("/token", Some("app")));
        let is_device = field("device_code").is_some();
        if is_device && !state.is_agreed {
            return (400, "{\"error\":\"authorization_pending\"}".to_owned());
        }
        let known = field("refresh_token");
        if !is_device && (known.is_none() || known != state.refresh_token) {
            return (
                400,
                "{\"error\":\"invalid_grant\",\"error_description\":\"Token was revoked\"}"
                    .to_owned(),
            );
        }
        state.given += 1;
        let number = state.given;
        state.refresh_token = Some(format!("refresh-{number}"));
        state.good.insert(format!("access-{number}"));
        let lifetime = state.lifetime_secs;
        (
            200,
            format!(
                "{{\"access_token\":\"access-{number}\",\"expires_in\":{lifetime},\
                 \"refresh_token\":\"refresh-{number}\",\"token_type\":\"Bearer\"}}"
            ),
        )
    }
}
