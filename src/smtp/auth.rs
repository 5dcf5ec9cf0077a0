//! The exchanges of AUTH: PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256 (RFC 7677), as RFC 4954
//! carries them.

use std::fmt;

use super::reply::{AUTH_CANCELED, AUTH_ENCODING, CREDENTIALS_BAD, Canned, MECHANISM_UNKNOWN};
use super::scram::{Challenged, ClientFirst};
use super::service::ScramProof;
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
    /// SCRAM, before the client's first message.
    ScramFirst,
    /// SCRAM, before the client's proof.
    ScramProof(Box<Challenged>),
    /// SCRAM, before the empty line with which the client takes the server's proof.
    ScramEnd {
        /// Who has proved its password.
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
    /// SCRAM goes on with what the service knows of the user.
    Begun(ClientFirst),
    /// SCRAM goes on if the service finds the proof right.
    Proof(ScramProof),
    /// The user has authenticated.
    Proved {
        /// Who it is.
        username: String,
    },
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
    /// Begins an exchange; `initial` is the initial response as it stood in the command, `scram`
    /// whether SCRAM-SHA-256 is offered.
    pub(crate) fn begin(mechanism: &str, initial: Option<&str>, scram: bool) -> Turn {
        let (exchange, challenge) = if mechanism.eq_ignore_ascii_case("PLAIN") {
            (Self::Plain, "")
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            (Self::LoginUsername, LOGIN_USERNAME)
        } else if scram && mechanism.eq_ignore_ascii_case("SCRAM-SHA-256") {
            (Self::ScramFirst, "")
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
            Self::ScramFirst => {
                ClientFirst::parse(&message).map_or_else(Turn::Refused, Turn::Begun)
            }
            Self::ScramProof(challenged) => {
                challenged.proof(&message).map_or_else(Turn::Refused, Turn::Proof)
            }
            // SMTP cannot say more along with 235, so the server's proof is a challenge, which
            // the client answers with nothing (RFC 4954 §4).
            Self::ScramEnd { username } if message.is_empty() => Turn::Proved { username },
            Self::ScramEnd { .. } => Turn::Refused(AUTH_ENCODING),
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
            assert_eq!(Exchange::begin("plain", Some(message), false), want, "{message}");
            assert_eq!(Exchange::begin("PLAIN", None, false), Turn::Challenge("", Exchange::Plain));
            assert_eq!(Exchange::Plain.line(message.as_bytes()), want, "{message}");
        }
    }

    #[test]
    fn login_asks_for_the_name_and_then_the_password() {
        let Turn::Challenge(LOGIN_USERNAME, exchange) = Exchange::begin("Login", None, false)
        else {
            panic!("no challenge");
        };
        let Turn::Challenge(LOGIN_PASSWORD, exchange) = exchange.line(b"YXBw") else {
            panic!("no second challenge");
        };
        assert_eq!(exchange.line(b"c2VjcmV0"), complete("app", "secret"));
        let named = Exchange::LoginPassword { username: "app".to_owned() };
        assert_eq!(
            Exchange::begin("LOGIN", Some("YXBw"), false),
            Turn::Challenge(LOGIN_PASSWORD, named)
        );
        let named = Exchange::LoginPassword { username: "app".to_owned() };
        assert_eq!(named.line(b"*"), Turn::Refused(AUTH_CANCELED));
        assert_eq!(Exchange::begin("LOGIN", Some("="), false), Turn::Refused(AUTH_ENCODING));
    }

    #[test]
    fn scram_begins_with_the_client_and_ends_with_nothing() {
        let Turn::Challenge("", exchange) = Exchange::begin("scram-sha-256", None, true) else {
            panic!("no challenge");
        };
        // `n,,n=app,r=x`
        let Turn::Begun(first) = exchange.line(b"biwsbj1hcHAscj14") else {
            panic!("no user");
        };
        assert_eq!(first.username, "app");
        let end = || Exchange::ScramEnd { username: "app".to_owned() };
        assert_eq!(end().line(b""), Turn::Proved { username: "app".to_owned() });
        for (line, want) in [("*", AUTH_CANCELED), ("=", AUTH_ENCODING), ("eA==", AUTH_ENCODING)] {
            assert_eq!(end().line(line.as_bytes()), Turn::Refused(want), "{line}");
            let begun = Exchange::begin("SCRAM-SHA-256", None, true);
            assert_eq!(begun, Turn::Challenge("", Exchange::ScramFirst));
            assert_eq!(Exchange::ScramFirst.line(line.as_bytes()), Turn::Refused(want), "{line}");
        }
        let turn = Exchange::begin("SCRAM-SHA-256", Some("="), true);
        assert_eq!(turn, Turn::Refused(AUTH_ENCODING));
    }

    #[test]
    fn other_mechanisms_are_refused_and_no_password_is_shown() {
        for (mechanism, scram) in [
            ("CRAM-MD5", true),
            ("SCRAM-SHA-256", false),
            ("SCRAM-SHA-256-PLUS", true),
            ("SCRAM-SHA-1", true),
        ] {
            let turn = Exchange::begin(mechanism, None, scram);
            assert_eq!(turn, Turn::Refused(MECHANISM_UNKNOWN), "{mechanism}");
        }
        let shown = format!("{:?}", complete("app", "secret"));
        assert!(shown.contains("app") && !shown.contains("secret"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"secret")), "{shown}");
    }
}
