//! Which recipients the inbound listener takes: valid return tokens and configured addresses.
//!
//! A token says by itself whether it is ours and how old it is, so nothing is looked up; but for
//! one of ours that looks too old, whose mail may have been sent long after it was taken over.

use crate::config::Settings;
use crate::mail::{Address, EnhancedStatus, QueueId, Reply, ReturnPathFormat, Timestamp};
use crate::secret::KeyRing;

/// Why a recipient is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It carries a token of ours: this recipient of this submission.
    Token(QueueId, u32),
    /// It is a configured bounce address.
    Address,
}

/// Why a recipient is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is nothing of ours.
    Unknown,
    /// It has the shape of a return path, but we did not make it.
    Forged,
    /// Its token, for this recipient of this submission, was made too long ago.
    Expired(QueueId, u32),
    /// It is a configured bounce address, but `require_token` is set.
    TokenRequired,
}

/// Whether `recipient` is taken.
pub fn admit(
    settings: &Settings,
    keys: &KeyRing,
    now: Timestamp,
    recipient: &Address,
) -> Result<Admission, NotAdmitted> {
    let format = return_path_format(settings);
    if let Some(found) = format.read(recipient) {
        let token = found.token;
        if !keys.verify(&token) {
            return Err(NotAdmitted::Forged);
        }
        let lifetime = settings.return_path.token_lifetime.duration();
        // A clock that went backward makes no token too old.
        if now.since(token.queue_id.time()) > lifetime {
            return Err(NotAdmitted::Expired(token.queue_id, u32::from(token.recipient)));
        }
        return Ok(Admission::Token(token.queue_id, u32::from(token.recipient)));
    }
    let name = recipient.canonical();
    let is_configured =
        settings.inbound.addresses.iter().any(|address| address.canonical() == name);
    match (is_configured, settings.inbound.require_token) {
        (true, false) => Ok(Admission::Address),
        (true, true) => Err(NotAdmitted::TokenRequired),
        (false, _) if format.looks_like_ours(recipient) => Err(NotAdmitted::Forged),
        (false, _) => Err(NotAdmitted::Unknown),
    }
}

/// How our reverse-paths are written under these settings.
pub fn return_path_format(settings: &Settings) -> ReturnPathFormat<'_> {
    let return_path = &settings.return_path;
    ReturnPathFormat {
        prefix: &return_path.prefix,
        delimiter: return_path.delimiter,
        domain: &return_path.domain,
    }
}

impl NotAdmitted {
    /// What the client is told.
    pub fn reply(self, recipient: &Address) -> Reply {
        let (subject, detail, why) = match self {
            Self::Unknown => (1, 1, "no such mailbox here"),
            Self::Forged => (7, 1, "not a return path that was made here"),
            Self::Expired(..) => (7, 1, "this return path is too old"),
            Self::TokenRequired => (7, 1, "this address takes no mail without a return token"),
        };
        Reply::new(550, EnhancedStatus::new(5, subject, detail), format!("<{recipient}>: {why}"))
    }

    /// The word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Forged => "forged",
            Self::Expired(..) => "expired",
            Self::TokenRequired => "token-required",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mail::{ReturnToken, ReversePath, TokenForm};

    const MADE_AT: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn settings() -> Settings {
        let mut settings = crate::config::defaults();
        settings.return_path.domain = "bounces.example.com".to_owned();
        settings.inbound.addresses = vec![Address::parse("Bounces@example.com").unwrap()];
        settings
    }

    fn written(token: &ReturnToken, form: TokenForm) -> String {
        let app = ReversePath::Address(Address::parse("app@example.org").unwrap());
        let settings = settings();
        return_path_format(&settings).write(form, &app, token).unwrap().to_string()
    }

    #[test]
    fn only_what_is_ours_is_admitted() {
        let keys = KeyRing::from_secret([7; 32]);
        let foreign = KeyRing::from_secret([8; 32]);
        let queue_id = QueueId::new(MADE_AT, 5);
        let token = keys.token(queue_id, 3);
        let ours = Ok(Admission::Token(queue_id, 3));
        let verp = written(&token, TokenForm::Verp);
        let plus = written(&token, TokenForm::Plus);
        let other = ReturnToken { recipient: 4, ..token };
        for (recipient, want) in [
            (verp.clone(), ours),
            (verp.to_ascii_uppercase(), ours),
            (plus.clone(), ours),
            (plus.to_ascii_uppercase(), ours),
            (written(&foreign.token(queue_id, 3), TokenForm::Verp), Err(NotAdmitted::Forged)),
            (written(&foreign.token(queue_id, 3), TokenForm::Plus), Err(NotAdmitted::Forged)),
            (written(&other, TokenForm::Verp), Err(NotAdmitted::Forged)),
            (verp.replace("bounces.example.com", "example.net"), Err(NotAdmitted::Forged)),
            (verp.replace("b+", "c+"), Err(NotAdmitted::Unknown)),
            ("b+x@bounces.example.com".to_owned(), Err(NotAdmitted::Forged)),
            ("bounces@EXAMPLE.com".to_owned(), Ok(Admission::Address)),
            ("bounces@example.org".to_owned(), Err(NotAdmitted::Unknown)),
            ("postmaster@bounces.example.com".to_owned(), Err(NotAdmitted::Unknown)),
        ] {
            let address = Address::parse(&recipient).unwrap();
            assert_eq!(admit(&settings(), &keys, MADE_AT, &address), want, "{recipient}");
        }
    }

    #[test]
    fn a_token_is_taken_for_its_lifetime() {
        let keys = KeyRing::from_secret([7; 32]);
        let settings = settings();
        let lifetime = settings.return_path.token_lifetime.duration();
        let token = keys.token(QueueId::new(MADE_AT, 5), 0);
        let address = Address::parse(&written(&token, TokenForm::Verp)).unwrap();
        for (now, want) in [
            (MADE_AT.minus(Duration::from_secs(3600)), true),
            (MADE_AT.plus(lifetime), true),
            (MADE_AT.plus(lifetime).plus(Duration::from_millis(1)), false),
        ] {
            let got = admit(&settings, &keys, now, &address);
            assert_eq!(got.is_ok(), want, "{now}");
            assert!(want || matches!(got, Err(NotAdmitted::Expired(..))), "{now}");
        }
    }

    #[test]
    fn addresses_can_be_made_to_need_a_token() {
        let keys = KeyRing::from_secret([7; 32]);
        let mut settings = settings();
        settings.inbound.require_token = true;
        let address = Address::parse("bounces@example.com").unwrap();
        let got = admit(&settings, &keys, MADE_AT, &address);
        assert_eq!(got, Err(NotAdmitted::TokenRequired));
        let reply = NotAdmitted::TokenRequired.reply(&address).to_string();
        assert!(reply.starts_with("550 5.7.1 <bounces@example.com>: "), "{reply}");
    }
}
