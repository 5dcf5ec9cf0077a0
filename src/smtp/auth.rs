//! The exchanges of AUTH: PLAIN (RFC 4616) and LOGIN, as RFC 4954 carries them.

use std::fmt;

use super::reply::{AUTH_CANCELED, AUTH_ENCODING, CREDENTIALS_BAD, Canned, MECHANISM_UNKNOWN};
use crate::mail::base64;

/// An exchange that waits for the client's next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// PLAIN, before its only message.
    Plain,
    /// LOGIN, before the user name.
    LoginUsername,
    /// LOGIN, before the password.
    LoginPassword {
        /// What came before.
        username: String,
    },
}

/// What the client's line led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The server's next message, in base64, after which the exchange goes on.
    Challenge(&'static str, Exchange),
    /// All is said.
    Complete(Credentials),
    /// The exchange is over without credentials.
    Refused(Canned),
}

/// Who the client says it is, and its proof.
#[derive(PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The authentication identity.
    pub(crate) username: String,
    /// Not necessarily text.
    pub(crate) password: Vec<u8>,
}

/// Without the password, which must never reach a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Begins an exchange; `initial` is the initial response as it stood in the command.
    pub(crate) fn begin(mechanism: &str, initial: Option<&str>) -> Turn {
        let (exchange, challenge) = if mechanism.eq_ignore_ascii_case("PLAIN") {
            (Self::Plain, "")
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            (Self::LoginUsername, LOGIN_USERNAME)
        } else {
            return Turn::Refused(MECHANISM_UNKNOWN);
        };
        match initial {
            None => Turn::Challenge(challenge, exchange),
            // RFC 4954 §4: "=" is an initial response of no octets.
            Some("=") => exchange.proceed(Vec::new()),
            Some(text) => exchange.line(text.as_bytes()),
        }
    }

    /// Takes the client's next line, without its CRLF.
    pub(crate) fn line(self, line: &[u8]) -> Turn {
        if line == b"*" {
            return Turn::Refused(AUTH_CANCELED);
        }
        match base64::decode(line) {
            Some(message) => self.proceed(message),
            None => Turn::Refused(AUTH_ENCODING),
        }
    }

    fn proceed(self, message: Vec<u8>) -> Turn {
        match self {
            Self::Plain => plain(&message),
            Self::LoginUsername => match String::from_utf8(message) {
                Ok(username) if !username.is_empty() => {
                    Turn::Challenge(LOGIN_PASSWORD, Self::LoginPassword { username })
                }
                _ => Turn::Refused(AUTH_ENCODING),
            },
            Self::LoginPassword { username } => {
                Turn::Complete(Credentials { username, password: message })
            }
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &[u8]) -> Turn {
    let mut parts = message.split(|octet| *octet == 0);
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Turn::Refused(AUTH_ENCODING);
    };
    match std::str::from_utf8(authcid) {
        Ok("") | Err(_) => Turn::Refused(AUTH_ENCODING),
        // Nobody may act for somebody else.
        Ok(_) if !authzid.is_empty() && authzid != authcid => Turn::Refused(CREDENTIALS_BAD),
        Ok(username) => Turn::Complete(Credentials {
            username: username.to_owned(),
            password: password.to_vec(),
        }),
    }
}

/// `Username:`, which clients expect word for word.
const LOGIN_USERNAME: &str = "VXNlcm5hbWU6";
/// `Password:`
const LOGIN_PASSWORD: &str = "UGFzc3dvcmQ6";

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(username: &str, password: &str) -> Turn {
        let (username, password) = (username.to_owned(), password.as_bytes().to_vec());
        Turn::Complete(Credentials { username, password })
    }

    #[test]
    fn plain_takes_one_message_at_once_or_after_a_challenge() {
        for (message, want) in [
            ("AGFwcABzZWNyZXQ=", complete("app", "secret")),
            ("YXBwAGFwcABzZWNyZXQ=", complete("app", "secret")),
            ("cm9vdABhcHAAc2VjcmV0", Turn::Refused(CREDENTIALS_BAD)),
            ("AABzZWNyZXQ=", Turn::Refused(AUTH_ENCODING)),
            ("YXBwAHNlY3JldA==", Turn::Refused(AUTH_ENCODING)),
            ("AGFwcABhAGI=", Turn::Refused(AUTH_ENCODING)),
            ("AP8AeA==", Turn::Refused(AUTH_ENCODING)),
            ("=", Turn::Refused(AUTH_ENCODING)),
            ("not base64", Turn::Refused(AUTH_ENCODING)),
            ("*", Turn::Refused(AUTH_CANCELED)),
        ] {
            assert_eq!(Exchange::begin("plain", Some(message)), want, "{message}");
            assert_eq!(Exchange::begin("PLAIN", None), Turn::Challenge("", Exchange::Plain));
            assert_eq!(Exchange::Plain.line(message.as_bytes()), want, "{message}");
        }
    }

    #[test]
    fn login_asks_for_the_name_and_then_the_password() {
        let Turn::Challenge(LOGIN_USERNAME, exchange) = Exchange::begin("Login", None) else {
            panic!("no challenge");
        };
        let Turn::Challenge(LOGIN_PASSWORD, exchange) = exchange.line(b"YXBw") else {
            panic!("no second challenge");
        };
        assert_eq!(exchange.line(b"c2VjcmV0"), complete("app", "secret"));
        let named = Exchange::LoginPassword { username: "app".to_owned() };
        assert_eq!(Exchange::begin("LOGIN", Some("YXBw")), Turn::Challenge(LOGIN_PASSWORD, named));
        let named = Exchange::LoginPassword { username: "app".to_owned() };
        assert_eq!(named.line(b"*"), Turn::Refused(AUTH_CANCELED));
        assert_eq!(Exchange::begin("LOGIN", Some("=")), Turn::Refused(AUTH_ENCODING));
    }

    #[test]
    fn other_mechanisms_are_refused_and_no_password_is_shown() {
        assert_eq!(Exchange::begin("CRAM-MD5", None), Turn::Refused(MECHANISM_UNKNOWN));
        let shown = format!("{:?}", complete("app", "secret"));
        assert!(shown.contains("app") && !shown.contains("secret"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"secret")), "{shown}");
    }
}
