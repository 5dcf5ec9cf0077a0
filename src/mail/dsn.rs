//! What a sender asks of delivery reports: the parameters of the DSN extension (RFC 3461 §4).
//!
//! Values are kept as they were written, so that they go on unchanged (RFC 3461 §5.2.1).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::queue_id::QueueId;
use super::xtext::{is_xtext, unitext, unitext_decoded, xtext, xtext_decoded};

/// What MAIL asked of delivery reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailDsn {
    /// `RET`: how much of the mail comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// `ENVID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<EnvelopeId>,
}

/// What RCPT asked of delivery reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientDsn {
    /// `NOTIFY`: of what there is a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// `ORCPT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_recipient: Option<OriginalRecipient>,
}

/// How much of a mail comes back with the report of its failure (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// `RET=FULL`: all of it.
    Full,
    /// `RET=HDRS`: its header.
    Headers,
}

/// What may be reported of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was delivered, expanded, or passed on to where nobody reports.
    Success,
    /// It failed.
    Failure,
    /// It is late.
    Delay,
}

/// The value of `NOTIFY` (RFC 3461 §4.1); of nothing is `NEVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Notify {
    success: bool,
    failure: bool,
    delay: bool,
}

/// The value of `ENVID` (RFC 3461 §4.4), as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvelopeId(String);

/// The value of `ORCPT` (RFC 3461 §4.2), as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginalRecipient(String);

impl MailDsn {
    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.content.is_none() && self.envelope_id.is_none()
    }
}

impl RecipientDsn {
    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.notify.is_none() && self.original_recipient.is_none()
    }

    /// Whether the sender is to be told of `event`, whoever found out about it.
    ///
    /// Without `NOTIFY` these are failures and delays (RFC 3461 §4.1).
    pub fn wants(&self, event: Event) -> bool {
        self.notify.unwrap_or(Notify { success: false, failure: true, delay: true }).has(event)
    }
}

impl Content {
    /// Reads the value of `RET`.
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Full, Self::Headers]
            .into_iter()
            .find(|content| value.eq_ignore_ascii_case(content.keyword()))
    }

    /// The value of `RET`.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

impl Event {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Delay];

    const fn keyword(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Delay => "DELAY",
        }
    }
}

impl Notify {
    /// Of nothing.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Reads the value of `NOTIFY`: `NEVER` alone, or events, each once.
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in value.split(',') {
            let is_meant = |event: &Event| word.eq_ignore_ascii_case(event.keyword());
            let event = Event::ALL.into_iter().find(is_meant)?;
            if notify.has(event) {
                return None;
            }
            notify = notify.and(event);
        }
        Some(notify)
    }

    /// Whether it names `event`.
    pub const fn has(self, event: Event) -> bool {
        match event {
            Event::Success => self.success,
            Event::Failure => self.failure,
            Event::Delay => self.delay,
        }
    }

    /// The same with `event`.
    #[must_use]
    pub const fn and(mut self, event: Event) -> Self {
        match event {
            Event::Success => self.success = true,
            Event::Failure => self.failure = true,
            Event::Delay => self.delay = true,
        }
        self
    }
}

/// The value of `NOTIFY`.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Event::ALL.into_iter().filter(|event| self.has(*event));
        let words: Vec<&str> = named.map(Event::keyword).collect();
        f.write_str(if words.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

impl EnvelopeId {
    /// Reads the value of `ENVID`: xtext of at most 100 octets, printable once it is decoded.
    pub fn parse(value: &str) -> Option<Self> {
        let is_sound = value.len() <= ENVELOPE_ID_BYTES_MAX && is_printable_xtext(value);
        is_sound.then(|| Self(value.to_owned()))
    }

    /// The value that means `text`; `None` for one that is empty, not printable or too long.
    pub fn of(text: &str) -> Option<Self> {
        (!text.is_empty() && text.is_ascii()).then(|| Self::parse(&xtext(text))).flatten()
    }

    /// The value of `ENVID`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it means, for `Original-Envelope-Id` (RFC 3461 §6.3).
    pub fn text(&self) -> String {
        xtext_decoded(&self.0)
    }
}

/// Our own id for a mail whose reports come back to us.
impl From<QueueId> for EnvelopeId {
    fn from(queue_id: QueueId) -> Self {
        Self(xtext(&queue_id.to_string()))
    }
}

impl OriginalRecipient {
    /// Reads the value of `ORCPT`: a type, `;` and xtext, at most 500 octets together.
    ///
    /// The address need not have the form of its type (RFC 3461 §4.2). One of the type `utf-8`
    /// may have characters beyond ASCII (RFC 6533 §3).
    pub fn parse(value: &str) -> Option<Self> {
        let (kind, address) = value.split_once(';')?;
        let is_kind = !kind.is_empty() && kind.chars().all(is_atom);
        let mut plain = address.to_owned();
        if kind.eq_ignore_ascii_case(UTF8) {
            plain.retain(|c| c.is_ascii() || c.is_control());
        }
        let is_address = !address.is_empty() && is_printable_xtext(&plain);
        let is_sound = value.len() <= ORIGINAL_RECIPIENT_BYTES_MAX && is_kind && is_address;
        is_sound.then(|| Self(value.to_owned()))
    }

    /// The value for an address as the sender gave it; `None` for one that it has no room for.
    pub fn of(address: &Address) -> Option<Self> {
        Self::parse(&if address.is_ascii() {
            format!("rfc822;{}", xtext(address.as_str()))
        } else {
            format!("{UTF8};{}", unitext(address.as_str()))
        })
    }

    /// The value of `ORCPT`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same in ASCII, for a next hop without SMTPUTF8 (RFC 6533 §3); `None` where there is no
    /// room for that.
    pub fn to_ascii(&self) -> Option<Self> {
        let coded = |c: char| match c {
            _ if c.is_ascii() => c.to_string(),
            _ => format!("\\x{{{:X}}}", u32::from(c)),
        };
        Self::parse(&self.0.chars().map(coded).collect::<String>())
    }

    /// The type of the address, as it was written.
    pub fn kind(&self) -> &str {
        self.0.split_once(';').map_or("", |(kind, _)| kind)
    }

    /// The address, its coding undone. One that is called `utf-8` and is none is not altered
    /// (RFC 6533 §3).
    pub fn address(&self) -> String {
        let address = self.coded_address();
        match self.is_utf8() {
            true if address.contains('+') => address.to_owned(),
            true => unitext_decoded(address),
            false => xtext_decoded(address),
        }
    }

    /// The address as a report in ASCII may hold it: of the type `utf-8` coded, as it came.
    pub fn address_in_ascii(&self) -> String {
        if self.is_utf8() { self.coded_address().to_owned() } else { self.address() }
    }

    fn is_utf8(&self) -> bool {
        self.kind().eq_ignore_ascii_case(UTF8)
    }

    fn coded_address(&self) -> &str {
        self.0.split_once(';').map_or("", |(_, address)| address)
    }
}

macro_rules! kept_as_text {
    ($name:ident, $text:expr, $what:literal) => {
        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text).ok_or($what)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                $text(value)
            }
        }
    };
}

kept_as_text!(Notify, |notify: Notify| notify.to_string(), "not a value of NOTIFY");
kept_as_text!(EnvelopeId, |id: EnvelopeId| id.0, "not a value of ENVID");
kept_as_text!(OriginalRecipient, |to: OriginalRecipient| to.0, "not a value of ORCPT");

/// Whether `text` is xtext for graphic and white space characters of ASCII (RFC 3461 §4.2, §4.4).
fn is_printable_xtext(text: &str) -> bool {
    is_xtext(text) && xtext_decoded(text).chars().all(|c| matches!(c, ' '..='~' | '\t'))
}

/// RFC 822 §3.3.
fn is_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// The type of addresses with characters beyond ASCII (RFC 6533 §3).
const UTF8: &str = "utf-8";
/// Octets of the value of `ENVID` (RFC 3461 §4.4).
const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// Octets of the value of `ORCPT` (RFC 3461 §4.2).
const ORIGINAL_RECIPIENT_BYTES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_alone_or_events_each_once() {
        for (value, want) in [
            ("NEVER", Some("NEVER")),
            ("never", Some("NEVER")),
            ("SUCCESS", Some("SUCCESS")),
            ("delay,Failure", Some("FAILURE,DELAY")),
            ("DELAY,FAILURE,SUCCESS", Some("SUCCESS,FAILURE,DELAY")),
            ("NEVER,SUCCESS", None),
            ("FAILURE,NEVER", None),
            ("FAILURE,FAILURE", None),
            ("FAILURE,", None),
            (",FAILURE", None),
            ("", None),
            ("ALWAYS", None),
        ] {
            let notify = Notify::parse(value);
            assert_eq!(notify.map(|notify| notify.to_string()).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn who_does_not_say_is_told_of_failures_and_delays() {
        for (notify, want) in [
            (None, [false, true, true]),
            (Some("NEVER"), [false, false, false]),
            (Some("SUCCESS"), [true, false, false]),
            (Some("FAILURE"), [false, true, false]),
            (Some("SUCCESS,DELAY"), [true, false, true]),
        ] {
            let notify = notify.map(|value| Notify::parse(value).unwrap());
            let dsn = RecipientDsn { notify, original_recipient: None };
            assert_eq!(Event::ALL.map(|event| dsn.wants(event)), want, "{notify:?}");
        }
    }

    #[test]
    fn envelope_ids_are_short_printable_xtext_and_kept_as_written() {
        for (value, want) in [
            ("QQ314159", Some("QQ314159")),
            ("a+2Bb+20c+3D", Some("a+b c=")),
            ("+41", Some("A")),
            (&"x".repeat(100), Some(&*"x".repeat(100))),
            (&"x".repeat(101), None),
            ("a+b", None),
            ("a=b", None),
            ("a+0D+0AX", None),
            ("+00", None),
            ("+C3+A9", None),
            ("é", None),
        ] {
            let id = EnvelopeId::parse(value);
            assert_eq!(id.as_ref().map(EnvelopeId::text).as_deref(), want, "{value}");
            assert!(id.is_none_or(|id| id.as_str() == value), "{value}");
        }
    }

    #[test]
    fn original_recipients_have_a_type_and_keep_their_coding() {
        let long = format!("rfc822;{}", "x".repeat(493));
        for (value, want) in [
            ("rfc822;Bob@Example.COM", Some(("rfc822", "Bob@Example.COM"))),
            ("RFC822;b+2Bc@d", Some(("RFC822", "b+c@d"))),
            ("utf-8;Pel\\x{E9}+@d", None),
            ("utf-8;Pel\\x{E9}@d", Some(("utf-8", "Pelé@d"))),
            ("UTF-8;Pelé@d", Some(("UTF-8", "Pelé@d"))),
            // No unitext, and valid all the same: it is passed on as it is.
            ("utf-8;b+2Bc\\x{E9}@d", Some(("utf-8", "b+2Bc\\x{E9}@d"))),
            ("x400;/C=DE/", None),
            ("x400;/C+3DDE/", Some(("x400", "/C=DE/"))),
            (&long, Some(("rfc822", &*"x".repeat(493)))),
            (&format!("{long}x"), None),
            ("rfc822;Pelé@d", None),
            ("utf-8;a\u{85}@d", None),
            ("rfc822;a+0Ab@c", None),
            ("rfc822;", None),
            (";a@b", None),
            ("rfc 822;a@b", None),
            ("rfc@822;a@b", None),
            ("a@b", None),
        ] {
            let to = OriginalRecipient::parse(value);
            let read = to.as_ref().map(|to| (to.kind(), to.address()));
            assert_eq!(read, want.map(|(kind, text)| (kind, text.to_owned())), "{value}");
            assert!(to.is_none_or(|to| to.as_str() == value), "{value}");
        }
    }

    #[test]
    fn an_address_is_written_in_the_coding_of_its_type() {
        for (address, want) in [
            ("b+c@d", Some("rfc822;b+2Bc@d")),
            (r#""a b"@c"#, Some(r#"rfc822;"a+20b"@c"#)),
            ("Pelé+x@d", Some("utf-8;Pelé\\x{2B}x@d")),
            (
                &format!("é{}@d", "+".repeat(62)),
                Some(&format!("utf-8;é{}@d", "\\x{2B}".repeat(62))),
            ),
        ] {
            let address = Address::parse(address).unwrap();
            let to = OriginalRecipient::of(&address);
            assert_eq!(to.as_ref().map(OriginalRecipient::as_str), want);
            let to = to.unwrap();
            assert_eq!(to.address(), address.as_str());
            let in_ascii = to.to_ascii().unwrap();
            assert!(in_ascii.as_str().is_ascii());
            assert_eq!(in_ascii.address(), address.as_str());
        }
    }
}
