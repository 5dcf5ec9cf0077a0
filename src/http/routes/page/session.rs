//! Who has signed in to the page.
//!
//! A browser sends its cookies to every port of a host, and keeps them. So it does not get the
//! token but a random name for it, which is good here only, and no longer than it is used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};

use crate::mail::Timestamp;
use crate::secret::{random_bytes, sha256_hex};

/// The sessions that are open; a restart ends them all.
#[derive(Default)]
pub(super) struct Sessions {
    /// By the SHA-256 of their names, so that looking one up tells nothing of the others.
    open: Mutex<HashMap<String, Session>>,
}

struct Session {
    token: String,
    ends: Timestamp,
}

impl Sessions {
    /// Begins a session; the value of its cookie, or nothing where the system has no random
    /// octets.
    pub(super) fn begin(&self, token: &str, now: Timestamp) -> Option<String> {
        let octets = random_bytes::<NAME_BYTES>().ok()?;
        let name: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let mut open = self.open();
        open.retain(|_, session| session.ends > now);
        if open.len() >= SESSIONS_MAX {
            let first = open.iter().min_by_key(|(_, session)| session.ends);
            let first = first.map(|(hash, _)| hash.clone());
            first.and_then(|hash| open.remove(&hash));
        }
        let session = Session { token: token.to_owned(), ends: now.plus(SESSION_LIFETIME) };
        open.insert(sha256_hex(name.as_bytes()), session);
        Some(name)
    }

    /// The token of the session that a request belongs to, which goes on.
    pub(super) fn token(&self, headers: &HeaderMap, now: Timestamp) -> Option<String> {
        let hash = sha256_hex(cookie(headers)?.as_bytes());
        let mut open = self.open();
        let session = open.get_mut(&hash).filter(|session| session.ends > now)?;
        session.ends = session.ends.max(now.plus(SESSION_LIFETIME));
        Some(session.token.clone())
    }

    /// Ends the session that a request belongs to.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(name) = cookie(headers) {
            self.open().remove(&sha256_hex(name.as_bytes()));
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `Set-Cookie` for a session, or for none any more.
///
/// Lax: the browser sends it along when a person follows a link from elsewhere, so that he sees
/// the page, but in no frame and with nothing that another page loads. What other sites post is
/// refused whatever comes with it (`sign_in::is_from_here`).
pub(super) fn set_cookie(name: Option<&str>, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    let age = if name.is_none() { "; Max-Age=0" } else { "" };
    let value = name.unwrap_or_default();
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|one| one.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
}

/// The name of the cookie.
const COOKIE: &str = "rebound_session";

/// Random octets of a session's name.
const NAME_BYTES: usize = 32;

/// Sessions that are open at a time; the one that would end first makes room.
const SESSIONS_MAX: usize = 1000;

/// How long a session lasts after it was used last.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn sent(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    #[test]
    fn a_session_stands_for_a_token_until_it_ends_or_is_not_used() {
        let sessions = Sessions::default();
        let name = sessions.begin("rebound_t", NOW).unwrap();
        assert!(!set_cookie(Some(&name), false).contains("rebound_t"));
        let ours = sent(&format!("a=b; rebound_session={name}; c=d"));
        let hour = Duration::from_secs(3600);
        for (after, want) in [(0, true), (11, true), (22, true), (35, false)] {
            let found = sessions.token(&ours, NOW.plus(after * hour));
            assert_eq!(found.is_some(), want, "after {after} hours");
        }
        let name = sessions.begin("rebound_t", NOW).unwrap();
        let ours = sent(&format!("rebound_session={name}"));
        assert_eq!(sessions.token(&ours, NOW).as_deref(), Some("rebound_t"));
        for other in ["rebound_session=", "rebound_session=00", "session=x", "", "x"] {
            assert_eq!(sessions.token(&sent(other), NOW), None, "{other}");
        }
        sessions.end(&ours);
        assert_eq!(sessions.token(&ours, NOW), None);
    }

    #[test]
    fn no_number_of_sign_ins_takes_more_memory() {
        let sessions = Sessions::default();
        let first = sessions.begin("first", NOW).unwrap();
        for _ in 0..SESSIONS_MAX {
            sessions.begin("t", NOW.plus(Duration::from_secs(1))).unwrap();
        }
        assert_eq!(sessions.open().len(), SESSIONS_MAX);
        assert_eq!(sessions.token(&sent(&format!("rebound_session={first}")), NOW), None);
    }

    #[test]
    fn no_script_reads_the_cookie_and_other_sites_send_it_with_links_only() {
        let cookie = set_cookie(Some("ab"), true);
        assert_eq!(cookie, "rebound_session=ab; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(set_cookie(None, false).ends_with("SameSite=Lax; Max-Age=0"));
    }
}
