//! Who may submit, and as whom.

use std::net::IpAddr;

use crate::config::{Account, AuthPolicy, Network};
use crate::mail::address::canonical;
use crate::mail::{Address, header};
use crate::smtp::Auth;

use super::stamp::without_comments;

/// What a peer may do before and without AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether AUTH is offered and demanded.
    pub auth: Auth,
    /// Whether it may submit without AUTH.
    pub without_auth: WithoutAuth,
}

/// Whether a peer may submit without AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutAuth {
    /// It may.
    Allowed,
    /// It must authenticate, and cannot submit where AUTH is not offered.
    Refused,
}

/// What holds for a peer: one without an address came by a Unix socket, from this host.
pub fn admission(policy: AuthPolicy, trusted: &[Network], peer: Option<IpAddr>) -> Admission {
    let is_local = peer.is_none_or(|address| address.to_canonical().is_loopback());
    let is_trusted = is_local
        || peer.is_some_and(|address| trusted.iter().any(|network| network.contains(address)));
    let is_free = match policy {
        AuthPolicy::Auto => is_local,
        AuthPolicy::Required => false,
        AuthPolicy::Optional | AuthPolicy::None => is_trusted,
    };
    Admission {
        auth: match (policy, is_free) {
            (AuthPolicy::None, _) => Auth::None,
            (_, true) => Auth::Optional,
            (_, false) => Auth::Required,
        },
        without_auth: if is_free { WithoutAuth::Allowed } else { WithoutAuth::Refused },
    }
}

/// Whether an account may send as `sender`: any account with no list may send as anybody.
pub fn may_send_as(account: Option<&Account>, sender: &Address) -> bool {
    let Some(account) = account.filter(|account| !account.allowed_senders.is_empty()) else {
        return true;
    };
    let sender = sender.canonical();
    account.allowed_senders.iter().any(|allowed| {
        let allowed = canonical(allowed);
        match allowed.strip_prefix('@') {
            Some(domain) => sender.rsplit_once('@').is_some_and(|(_local, own)| own == domain),
            None => allowed == sender,
        }
    })
}

/// The first sender in the `From` fields of a header that the account may not send as.
///
/// What cannot be read as an address is such a sender: some program could read it as one.
pub fn forbidden_from(account: Option<&Account>, mail_header: &[u8]) -> Option<String> {
    account.filter(|account| !account.allowed_senders.is_empty())?;
    let fields = header::fields(mail_header).filter(|field| field.is("From"));
    let mut found = fields.flat_map(|field| mailboxes(&field.text()));
    found.find(|text| !Address::parse(text).is_ok_and(|address| may_send_as(account, &address)))
}

/// The addresses of a mailbox list (RFC 5322 §3.4), as text; a list with none has one empty entry.
///
/// What is not well formed yields more entries rather than fewer, so that no reading of it by
/// another program goes unchecked.
pub fn mailboxes(list: &str) -> Vec<String> {
    let (mut found, mut plain, mut angle) = (Vec::new(), String::new(), None::<String>);
    let (mut quoted, mut escaped) = (false, false);
    for c in without_comments(list).chars() {
        let is_literal = quoted || escaped;
        quoted = quoted != (c == '"' && !escaped);
        escaped = quoted && c == '\\' && !escaped;
        match (c, &mut angle) {
            ('<', open) if !is_literal => found.extend(open.replace(String::new())),
            ('>', open) if !is_literal => {
                found.push(open.take().unwrap_or_default());
                plain.clear();
            }
            (',' | ';', None) if !is_literal => found.extend(bare(&std::mem::take(&mut plain))),
            // The name of a group ends here.
            (':', None) if !is_literal => plain.clear(),
            (_, Some(text)) => text.push(c),
            (_, None) => plain.push(c),
        }
    }
    found.extend(angle);
    found.extend(bare(&plain));
    if found.is_empty() {
        found.push(String::new());
    }
    found.into_iter().map(|text| text.trim().to_owned()).collect()
}

/// An address without angle brackets; white space alone is nothing.
fn bare(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(allowed: &[&str]) -> Account {
        Account {
            name: "app".to_owned(),
            password_hash: String::new(),
            from: None,
            allowed_senders: allowed.iter().map(|text| (*text).to_owned()).collect(),
            dsn: crate::config::DsnPolicy::Mail,
            messages_per_minute_max: None,
            recipients_per_minute_max: None,
            return_path: None,
            meta: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn who_must_authenticate() {
        use AuthPolicy::{Auto, None as Never, Optional, Required};
        use WithoutAuth::{Allowed, Refused};
        let trusted = [Network::try_from("192.0.2.0/24".to_owned()).unwrap()];
        for (policy, peer, auth, without_auth) in [
            (Auto, Some("127.0.0.1"), Auth::Optional, Allowed),
            (Auto, Some("::ffff:127.0.0.1"), Auth::Optional, Allowed),
            (Auto, Some("::1"), Auth::Optional, Allowed),
            (Auto, None, Auth::Optional, Allowed),
            (Auto, Some("192.0.2.1"), Auth::Required, Refused),
            (Auto, Some("203.0.113.1"), Auth::Required, Refused),
            (Required, Some("127.0.0.1"), Auth::Required, Refused),
            (Required, Some("192.0.2.1"), Auth::Required, Refused),
            (Optional, Some("127.0.0.1"), Auth::Optional, Allowed),
            (Optional, Some("192.0.2.1"), Auth::Optional, Allowed),
            (Optional, Some("203.0.113.1"), Auth::Required, Refused),
            (Never, Some("192.0.2.1"), Auth::None, Allowed),
            (Never, Some("203.0.113.1"), Auth::None, Refused),
        ] {
            let peer = peer.map(|text| text.parse().unwrap());
            let got = admission(policy, &trusted, peer);
            assert_eq!(got, Admission { auth, without_auth }, "{policy:?} {peer:?}");
        }
    }

    #[test]
    fn an_account_sends_as_its_addresses_and_domains_only() {
        for (allowed, sender, want) in [
            (&[][..], "anybody@anywhere.example", true),
            (&["a@b.example"][..], "A@B.example", true),
            (&["a@b.example"], "c@b.example", false),
            (&["@b.example"], "c@B.EXAMPLE", true),
            (&["@b.example"], "c@sub.b.example", false),
            (&["@b.example"], "c@xb.example", false),
            (&["x@y.example", "@b.example"], "c@b.example", true),
            (&["@müller.example"], "c@xn--mller-kva.example", true),
            (&["@xn--mller-kva.example"], "c@MÜLLER.example", true),
            (&["c@müller.example"], "C@xn--mller-kva.example", true),
            (&["@müller.example"], "c@muller.example", false),
        ] {
            let sender = Address::parse(sender).unwrap();
            assert_eq!(may_send_as(Some(&account(allowed)), &sender), want, "{sender}");
        }
        assert!(may_send_as(None, &Address::parse("a@b").unwrap()));
    }

    #[test]
    fn the_header_from_is_held_to_the_same_list() {
        let own = account(&["@b.example"]);
        for (from, forbidden) in [
            ("From: a@b.example\r\n", None),
            ("From: \"x@evil, y\" <a@b.example>\r\n", None),
            ("From: a@b.example (x@evil)\r\n", None),
            ("FROM:\r\n A <a@b.example>,\r\n B <b@B.example>\r\n", None),
            ("From: team: a@b.example, b@b.example;\r\n", None),
            ("From: \"a\\\"b\" <a@b.example>\r\n", None),
            ("Subject: no From at all\r\n", None),
            ("From: x@evil.example\r\n", Some("x@evil.example")),
            ("From: a@b.example <x@evil.example>\r\n", Some("x@evil.example")),
            ("From: A <a@b.example>, x@evil.example\r\n", Some("x@evil.example")),
            ("From: <a@b.example><x@evil.example>\r\n", Some("x@evil.example")),
            ("From: a@b.example\r\nFrom: x@evil.example\r\n", Some("x@evil.example")),
            ("From: team: x@evil.example;\r\n", Some("x@evil.example")),
            ("From: nobody\r\n", Some("nobody")),
            ("From:\r\n", Some("")),
            ("From: <x@evil.example\r\n", Some("x@evil.example")),
        ] {
            let got = forbidden_from(Some(&own), from.as_bytes());
            assert_eq!(got.as_deref(), forbidden, "{from}");
            assert_eq!(forbidden_from(None, from.as_bytes()), None);
        }
    }
}
