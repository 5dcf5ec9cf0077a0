//! The parameters of MAIL and RCPT (RFC 5321 §4.1.2 `esmtp-param`).

use super::reply::{Canned, PARAMETER_SYNTAX, PARAMETER_TWICE, PARAMETER_UNKNOWN};
use crate::mail::envelope::BodyKind;

/// What the parameters of MAIL say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MailParameters {
    /// SIZE (RFC 1870 §6).
    pub(crate) size_bytes: Option<u64>,
    /// BODY (RFC 6152 §2).
    pub(crate) body: BodyKind,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub(crate) smtputf8: bool,
}

/// Reads the parameters of MAIL.
///
/// AUTH names who first submitted the mail (RFC 4954 §5). It is allowed where AUTH is offered,
/// and ignored: we trust no client to speak for somebody else.
pub(crate) fn mail(text: &str, auth_offered: bool) -> Result<MailParameters, Canned> {
    let mut parameters = MailParameters::default();
    for parameter in all(text)? {
        match (parameter.keyword.as_str(), parameter.value) {
            ("SIZE", Some(value)) => parameters.size_bytes = Some(size(value)?),
            ("BODY", Some(value)) => parameters.body = body(value)?,
            ("SMTPUTF8", None) => parameters.smtputf8 = true,
            ("AUTH", Some(_)) if auth_offered => {}
            ("SIZE" | "BODY", None) | ("SMTPUTF8", Some(_)) => return Err(PARAMETER_SYNTAX),
            _ => return Err(PARAMETER_UNKNOWN),
        }
    }
    Ok(parameters)
}

/// Reads the parameters of RCPT; there are none yet.
pub(crate) fn rcpt(text: &str) -> Result<(), Canned> {
    if all(text)?.is_empty() { Ok(()) } else { Err(PARAMETER_UNKNOWN) }
}

struct Parameter<'a> {
    /// In upper case.
    keyword: String,
    value: Option<&'a str>,
}

/// All parameters; one that is given twice is refused, even with the same value.
fn all(text: &str) -> Result<Vec<Parameter<'_>>, Canned> {
    let mut parameters: Vec<Parameter<'_>> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        if !is_keyword(keyword) || !value.is_none_or(is_value) {
            return Err(PARAMETER_SYNTAX);
        }
        let keyword = keyword.to_ascii_uppercase();
        if parameters.iter().any(|known| known.keyword == keyword) {
            return Err(PARAMETER_TWICE);
        }
        parameters.push(Parameter { keyword, value });
    }
    Ok(parameters)
}

fn is_keyword(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Printable, without space and `=`; UTF-8 is let through for RFC 6533 §3.
fn is_value(text: &str) -> bool {
    let inside = |c: char| (c.is_ascii_graphic() && c != '=') || !(c.is_ascii() || c.is_control());
    !text.is_empty() && text.chars().all(inside)
}

/// 1 to 20 digits (RFC 1870 §3); what does not fit 64 bits is larger than any limit.
fn size(value: &str) -> Result<u64, Canned> {
    if value.len() <= 20 && value.bytes().all(|octet| octet.is_ascii_digit()) {
        Ok(value.parse().unwrap_or(u64::MAX))
    } else {
        Err(PARAMETER_SYNTAX)
    }
}

fn body(value: &str) -> Result<BodyKind, Canned> {
    if value.eq_ignore_ascii_case("7BIT") {
        Ok(BodyKind::SevenBit)
    } else if value.eq_ignore_ascii_case("8BITMIME") {
        Ok(BodyKind::EightBitMime)
    } else {
        Err(PARAMETER_SYNTAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters_are_read_or_refused() {
        let said = |size_bytes, body, smtputf8| Ok(MailParameters { size_bytes, body, smtputf8 });
        use BodyKind::{EightBitMime, SevenBit};
        for (text, want) in [
            ("", said(None, SevenBit, false)),
            ("SIZE=0", said(Some(0), SevenBit, false)),
            ("size=1024  body=8bitmime", said(Some(1024), EightBitMime, false)),
            ("BODY=7BIT SMTPUTF8", said(None, SevenBit, true)),
            ("SIZE=99999999999999999999", said(Some(u64::MAX), SevenBit, false)),
            ("SIZE=100000000000000000000", Err(PARAMETER_SYNTAX)),
            ("SIZE=-1", Err(PARAMETER_SYNTAX)),
            ("SIZE=1k", Err(PARAMETER_SYNTAX)),
            ("SIZE=", Err(PARAMETER_SYNTAX)),
            ("SIZE", Err(PARAMETER_SYNTAX)),
            ("SIZE=1 SIZE=1", Err(PARAMETER_TWICE)),
            ("BODY=7BIT body=8BITMIME", Err(PARAMETER_TWICE)),
            ("BODY=BINARYMIME", Err(PARAMETER_SYNTAX)),
            ("BODY", Err(PARAMETER_SYNTAX)),
            ("SMTPUTF8=yes", Err(PARAMETER_SYNTAX)),
            ("=1", Err(PARAMETER_SYNTAX)),
            ("A=b=c", Err(PARAMETER_SYNTAX)),
            ("-A=b", Err(PARAMETER_SYNTAX)),
            ("FOO", Err(PARAMETER_UNKNOWN)),
            ("RET=FULL", Err(PARAMETER_UNKNOWN)),
            ("AUTH=<>", Err(PARAMETER_UNKNOWN)),
        ] {
            assert_eq!(mail(text, false), want, "{text}");
        }
        assert_eq!(mail("AUTH=<>", true), said(None, SevenBit, false));
        assert_eq!(mail("AUTH", true), Err(PARAMETER_UNKNOWN));
    }

    #[test]
    fn rcpt_has_no_parameters() {
        assert_eq!(rcpt(""), Ok(()));
        assert_eq!(rcpt("NOTIFY=NEVER"), Err(PARAMETER_UNKNOWN));
        assert_eq!(rcpt("="), Err(PARAMETER_SYNTAX));
    }
}
