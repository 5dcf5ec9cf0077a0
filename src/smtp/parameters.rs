//! The parameters of MAIL and RCPT (RFC 5321 §4.1.2 `esmtp-param`).

use super::reply::{Canned, PARAMETER_SYNTAX, PARAMETER_TWICE, PARAMETER_UNKNOWN};
use crate::mail::dsn::{Content, EnvelopeId, MailDsn, Notify, OriginalRecipient, RecipientDsn};
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
    /// RET and ENVID (RFC 3461 §4.3, §4.4).
    pub(crate) dsn: MailDsn,
}

/// Which extensions are offered that have parameters and are not always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    /// AUTH (RFC 4954).
    pub(crate) auth: bool,
    /// DSN (RFC 3461).
    pub(crate) dsn: bool,
}

/// Reads the parameters of MAIL.
///
/// AUTH names who first submitted the mail (RFC 4954 §5). It is allowed where AUTH is offered,
/// and ignored: we trust no client to speak for somebody else.
pub(crate) fn mail(text: &str, offered: Offered) -> Result<MailParameters, Canned> {
    let mut parameters = MailParameters::default();
    for parameter in all(text)? {
        match (parameter.keyword.as_str(), parameter.value) {
            ("SIZE", Some(value)) => parameters.size_bytes = Some(size(value)?),
            ("BODY", Some(value)) => parameters.body = body(value)?,
            ("SMTPUTF8", None) => parameters.smtputf8 = true,
            ("AUTH", Some(_)) if offered.auth => {}
            ("RET", Some(value)) if offered.dsn => {
                parameters.dsn.content = Some(Content::parse(value).ok_or(PARAMETER_SYNTAX)?);
            }
            ("ENVID", Some(value)) if offered.dsn => {
                let id = EnvelopeId::parse(value).ok_or(PARAMETER_SYNTAX)?;
                parameters.dsn.envelope_id = Some(id);
            }
            ("RET" | "ENVID", None) if offered.dsn => return Err(PARAMETER_SYNTAX),
            ("SIZE" | "BODY", None) | ("SMTPUTF8", Some(_)) => return Err(PARAMETER_SYNTAX),
            _ => return Err(PARAMETER_UNKNOWN),
        }
    }
    Ok(parameters)
}

/// Reads the parameters of RCPT; all there are belong to DSN.
pub(crate) fn rcpt(text: &str, offered: Offered) -> Result<RecipientDsn, Canned> {
    let mut dsn = RecipientDsn::default();
    for parameter in all(text)? {
        match (parameter.keyword.as_str(), parameter.value) {
            ("NOTIFY", Some(value)) if offered.dsn => {
                dsn.notify = Some(Notify::parse(value).ok_or(PARAMETER_SYNTAX)?);
            }
            ("ORCPT", Some(value)) if offered.dsn => {
                let original = OriginalRecipient::parse(value).ok_or(PARAMETER_SYNTAX)?;
                dsn.original_recipient = Some(original);
            }
            ("NOTIFY" | "ORCPT", None) if offered.dsn => return Err(PARAMETER_SYNTAX),
            _ => return Err(PARAMETER_UNKNOWN),
        }
    }
    Ok(dsn)
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

    const ALL: Offered = Offered { auth: true, dsn: true };
    const NONE: Offered = Offered { auth: false, dsn: false };

    #[test]
    fn mail_parameters_are_read_or_refused() {
        let said = |size_bytes, body, smtputf8| {
            Ok(MailParameters { size_bytes, body, smtputf8, dsn: MailDsn::default() })
        };
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
            ("ENVID=a", Err(PARAMETER_UNKNOWN)),
            ("RET", Err(PARAMETER_UNKNOWN)),
            ("NOTIFY=NEVER", Err(PARAMETER_UNKNOWN)),
            ("AUTH=<>", Err(PARAMETER_UNKNOWN)),
        ] {
            assert_eq!(mail(text, NONE), want, "{text}");
        }
        assert_eq!(mail("AUTH=<>", ALL), said(None, SevenBit, false));
        assert_eq!(mail("AUTH", ALL), Err(PARAMETER_UNKNOWN));
    }

    #[test]
    fn what_mail_asks_of_reports_is_read_or_refused() {
        let said = |content, envelope_id: Option<&str>| {
            let envelope_id = envelope_id.map(|id| EnvelopeId::parse(id).unwrap());
            Ok(MailDsn { content, envelope_id })
        };
        for (text, want) in [
            ("ret=full envid=a+2Bb", said(Some(Content::Full), Some("a+2Bb"))),
            ("RET=hdrs", said(Some(Content::Headers), None)),
            ("RET=BODY", Err(PARAMETER_SYNTAX)),
            ("RET=", Err(PARAMETER_SYNTAX)),
            ("RET", Err(PARAMETER_SYNTAX)),
            ("RET=FULL RET=HDRS", Err(PARAMETER_TWICE)),
            ("ENVID", Err(PARAMETER_SYNTAX)),
            ("ENVID=a+b", Err(PARAMETER_SYNTAX)),
            ("ENVID=a ENVID=a", Err(PARAMETER_TWICE)),
            ("NOTIFY=NEVER", Err(PARAMETER_UNKNOWN)),
        ] {
            assert_eq!(mail(text, ALL).map(|said| said.dsn), want, "{text}");
        }
    }

    #[test]
    fn what_rcpt_asks_of_reports_is_read_or_refused() {
        let said = |notify: Option<&str>, original: Option<&str>| {
            let notify = notify.map(|value| Notify::parse(value).unwrap());
            let original_recipient = original.map(|to| OriginalRecipient::parse(to).unwrap());
            Ok(RecipientDsn { notify, original_recipient })
        };
        for (text, want) in [
            ("", said(None, None)),
            ("NOTIFY=success,failure", said(Some("SUCCESS,FAILURE"), None)),
            ("ORCPT=rfc822;a@b NOTIFY=NEVER", said(Some("NEVER"), Some("rfc822;a@b"))),
            ("NOTIFY=NEVER,DELAY", Err(PARAMETER_SYNTAX)),
            ("NOTIFY", Err(PARAMETER_SYNTAX)),
            ("NOTIFY=NEVER NOTIFY=NEVER", Err(PARAMETER_TWICE)),
            ("ORCPT=a@b", Err(PARAMETER_SYNTAX)),
            ("ORCPT", Err(PARAMETER_SYNTAX)),
            ("ORCPT=rfc822;a@b ORCPT=rfc822;a@b", Err(PARAMETER_TWICE)),
            ("RET=FULL", Err(PARAMETER_UNKNOWN)),
            ("=", Err(PARAMETER_SYNTAX)),
        ] {
            assert_eq!(rcpt(text, ALL), want, "{text}");
        }
        for text in ["NOTIFY=NEVER", "NOTIFY", "ORCPT=rfc822;a@b"] {
            assert_eq!(rcpt(text, NONE), Err(PARAMETER_UNKNOWN), "{text}");
        }
    }
}
