//! The reverse-path that names one recipient: written when mail leaves, read when a report comes.
//!
//! The shapes only: whether a token is ours is for whoever holds the keys to say.

use super::address::{Address, ReversePath, ascii_domain};
use super::return_token::ReturnToken;

/// How reverse-paths of ours are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnPathFormat<'a> {
    /// What stands before the token: `b`.
    pub prefix: &'a str,
    /// What sets prefix or app's user name off from what follows: `+`.
    pub delimiter: char,
    /// The bounce domain; empty where there is none.
    pub domain: &'a str,
}

/// The two shapes of a reverse-path that carries a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenForm {
    /// `b+token@bounce-domain`.
    Verp,
    /// `user+b.token@own-domain`.
    Plus,
}

/// A token as it was found in an address, its MAC not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundToken {
    /// The token.
    pub token: ReturnToken,
    /// The shape it stood in.
    pub form: TokenForm,
}

impl ReturnPathFormat<'_> {
    /// The reverse-path that carries `token`; `None` when the mail must leave with the app's own.
    ///
    /// That is so for a null reverse-path (RFC 5321 §4.5.5), where a local part is quoted or
    /// would pass 64 octets (RFC 5321 §4.5.3.1.1), and for `Verp` without a domain.
    pub fn write(
        &self,
        form: TokenForm,
        reverse_path: &ReversePath,
        token: &ReturnToken,
    ) -> Option<Address> {
        let own = reverse_path.address()?;
        let Self { prefix, delimiter, domain } = self;
        let text = match form {
            TokenForm::Verp => format!("{prefix}{delimiter}{token}@{domain}"),
            TokenForm::Plus if own.local_part().starts_with('"') => return None,
            TokenForm::Plus => {
                format!("{}{delimiter}{prefix}.{token}@{}", own.local_part(), own.domain())
            }
        };
        Address::parse(&text).ok()
    }

    /// The token in an address that has one of our two shapes.
    ///
    /// Case is ignored: mail systems on the way may change it. The domain of the `Verp` shape
    /// must be the bounce domain; that of the `Plus` shape is whatever the app sent from.
    pub fn read(&self, address: &Address) -> Option<FoundToken> {
        let local = address.local_part();
        if let Some(text) = strip_prefix_ignoring_case(local, self.prefix)
            .and_then(|rest| rest.strip_prefix(self.delimiter))
            && let Some(token) = ReturnToken::parse(text)
        {
            let own = ascii_domain(self.domain);
            let ours = ascii_domain(address.domain()).eq_ignore_ascii_case(&own);
            return ours.then_some(FoundToken { token, form: TokenForm::Verp });
        }
        let (_user, tag) = local.rsplit_once(self.delimiter)?;
        let text = strip_prefix_ignoring_case(tag, self.prefix)?.strip_prefix('.')?;
        let token = ReturnToken::parse(text)?;
        Some(FoundToken { token, form: TokenForm::Plus })
    }

    /// Whether an address lies in the bounce domain or has a shape that only we write, so that
    /// its refusal is about a bad token rather than an unknown mailbox.
    pub fn looks_like_ours(&self, address: &Address) -> bool {
        let local = address.local_part();
        let after_prefix = strip_prefix_ignoring_case(local, self.prefix)
            .is_some_and(|rest| rest.starts_with(self.delimiter));
        let after_tag = local.rsplit_once(self.delimiter).is_some_and(|(_user, tag)| {
            strip_prefix_ignoring_case(tag, self.prefix).is_some_and(|rest| rest.starts_with('.'))
        });
        after_prefix || after_tag
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{QueueId, Timestamp};

    const FORMAT: ReturnPathFormat<'_> =
        ReturnPathFormat { prefix: "b", delimiter: '+', domain: "bounces.example.com" };

    fn token() -> ReturnToken {
        let queue_id = QueueId::new(Timestamp::from_millis(1_665_576_640_980), 9);
        ReturnToken { queue_id, recipient: 2, key_id: 1, mac: [0x5a; 10] }
    }

    fn from(text: &str) -> ReversePath {
        ReversePath::Address(Address::parse(text).unwrap())
    }

    #[test]
    fn a_bounce_domain_is_read_in_both_of_its_forms() {
        let format = ReturnPathFormat { domain: "b.müller.example", ..FORMAT };
        let path = format.write(TokenForm::Verp, &from("app@example.org"), &token()).unwrap();
        for address in [path.clone(), path.to_ascii().unwrap()] {
            assert_eq!(format.read(&address).unwrap().token, token(), "{address}");
            assert!(FORMAT.read(&address).is_none(), "{address}");
        }
    }

    #[test]
    fn each_form_is_written_and_read_back_in_any_case() {
        for (form, app, start, end) in [
            (TokenForm::Verp, "app@example.org", "b+", "@bounces.example.com"),
            (TokenForm::Plus, "app@example.org", "app+b.", "@example.org"),
            (TokenForm::Plus, "app+tag@Example.org", "app+tag+b.", "@Example.org"),
            (TokenForm::Verp, "\"a b\"@example.org", "b+", "@bounces.example.com"),
        ] {
            let path = FORMAT.write(form, &from(app), &token()).unwrap();
            assert!(path.as_str().starts_with(start) && path.as_str().ends_with(end), "{path}");
            for text in [path.to_string(), path.as_str().to_ascii_uppercase()] {
                let found = FORMAT.read(&Address::parse(&text).unwrap());
                assert_eq!(found, Some(FoundToken { token: token(), form }), "{text}");
            }
        }
    }

    #[test]
    fn null_reverse_path_is_never_rewritten() {
        for form in [TokenForm::Verp, TokenForm::Plus] {
            assert_eq!(FORMAT.write(form, &ReversePath::NULL, &token()), None);
        }
    }

    #[test]
    fn plus_past_64_octets_falls_back() {
        // 37 of the token, `+b.` and the user name make 64.
        let fits = format!("{}@example.org", "u".repeat(24));
        let passes = format!("{}@example.org", "u".repeat(25));
        assert!(FORMAT.write(TokenForm::Plus, &from(&fits), &token()).is_some());
        assert_eq!(FORMAT.write(TokenForm::Plus, &from(&passes), &token()), None);
        assert_eq!(FORMAT.write(TokenForm::Plus, &from("\"a b\"@example.org"), &token()), None);
    }

    #[test]
    fn verp_without_a_domain_falls_back() {
        let format = ReturnPathFormat { domain: "", ..FORMAT };
        assert_eq!(format.write(TokenForm::Verp, &from("a@example.org"), &token()), None);
    }

    #[test]
    fn what_is_no_return_path_is_not_read() {
        let token = token();
        for (text, ours) in [
            ("b@bounces.example.com".to_owned(), false),
            ("b+@bounces.example.com".to_owned(), true),
            ("b+short@bounces.example.com".to_owned(), true),
            (format!("b+{token}@elsewhere.example"), true),
            (format!("b-{token}@bounces.example.com"), false),
            (format!("c+{token}@bounces.example.com"), false),
            (format!("b+{token}x@bounces.example.com"), true),
            (format!("app+c.{token}@example.org"), false),
            (format!("app+b.{token}x@example.org"), true),
            ("é@bounces.example.com".to_owned(), false),
        ] {
            let address = Address::parse(&text).unwrap();
            assert_eq!(FORMAT.read(&address), None, "{text}");
            assert_eq!(FORMAT.looks_like_ours(&address), ours, "{text}");
        }
    }
}
