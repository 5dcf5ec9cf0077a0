//! What an app tells us alone about a mail: control headers by SMTP, fields beside it by HTTP.
//!
//! The names are EmailEngine's. The headers do not leave; `stamp` removes them.

use std::time::Duration;

use crate::mail::{Envelope, Timestamp, header};
use crate::secret::sha256_hex;
use crate::store::record::{Control, Idempotency};

/// A control that cannot be followed; the mail is refused rather than sent otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadControl {
    /// The header field.
    pub field: &'static str,
    /// What it must be.
    pub expected: String,
}

/// What the control headers of a mail say; of several of a name the first counts.
///
/// # Errors
/// When one of them cannot be followed.
pub fn of_header(
    mail_header: &[u8],
    envelope: &Envelope,
    now: Timestamp,
    ahead_max: Duration,
) -> Result<Control, BadControl> {
    let value = |name: &'static str| header::find(mail_header, name).map(|field| field.text());
    let bad = |field, expected| BadControl { field, expected };
    let mut control = Control::default();
    if let Some(text) = value(SEND_AT) {
        control.send_at =
            send_at(&text, now, ahead_max).map_err(|expected| bad(SEND_AT, expected))?;
    }
    if let Some(text) = value(ATTEMPTS) {
        let read = text.parse().ok().and_then(attempts_max);
        control.attempts_max = Some(read.ok_or_else(|| bad(ATTEMPTS, attempts_expected()))?);
    }
    if let Some(key) = value(KEY) {
        if !is_key(&key) {
            return Err(bad(KEY, key_expected()));
        }
        control.idempotency = Some(Idempotency { key, fingerprint: fingerprint(envelope) });
    }
    Ok(control)
}

/// Reads when a mail is to be sent, as a date (RFC 3339) or milliseconds since 1970; `None` for
/// what is not in the future.
///
/// # Errors
/// With what is expected when it is neither, or further ahead than mail is kept waiting.
pub fn send_at(
    text: &str,
    now: Timestamp,
    ahead_max: Duration,
) -> Result<Option<Timestamp>, String> {
    let millis = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let time = millis.map(Timestamp::from_millis).or_else(|| Timestamp::parse(text));
    let time = time.ok_or("a date such as 2022-10-12T12:10:34.845Z")?;
    if time.since(now) > ahead_max {
        let days = ahead_max.as_secs().checked_div(86_400).unwrap_or_default();
        return Err(format!("a date at most {days} days ahead (queue.send_at_max)"));
    }
    Ok(Some(time).filter(|time| *time > now))
}

/// A number of attempts, where it is one.
pub fn attempts_max(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| (1..=ATTEMPTS_MAX).contains(number))
}

/// What a number of attempts must be.
pub fn attempts_expected() -> String {
    format!("a number from 1 to {ATTEMPTS_MAX}")
}

/// Whether a text may be an idempotency key: printable ASCII.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// What an idempotency key must be.
pub fn key_expected() -> String {
    format!("1 to {KEY_BYTES_MAX} printable characters of ASCII")
}

/// What makes a mail the same by SMTP: who it is from and for. Clients make the Date, the
/// Message-ID and the boundaries of a mail anew for each try.
fn fingerprint(envelope: &Envelope) -> String {
    let recipients = envelope.recipients.iter().map(|to| to.address.as_str());
    let from = envelope.reverse_path.to_string();
    // No address holds a line break.
    let lines: Vec<&str> = std::iter::once(from.as_str()).chain(recipients).collect();
    sha256_hex(lines.join("\n").as_bytes())
}

const SEND_AT: &str = "X-EE-Send-At";
const ATTEMPTS: &str = "X-EE-Delivery-Attempts";
const KEY: &str = "X-EE-Idempotency-Key";
/// Attempts that an app may ask for.
const ATTEMPTS_MAX: u32 = 1_000;
/// Octets of an idempotency key.
const KEY_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::BodyKind;
    use crate::mail::{Address, MailDsn, Recipient, ReversePath};

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);
    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn envelope(to: &[&str]) -> Envelope {
        let recipient = |to: &&str| Recipient::from(Address::parse(to).unwrap());
        Envelope {
            reverse_path: ReversePath::NULL,
            recipients: to.iter().map(recipient).collect(),
            body: BodyKind::default(),
            smtputf8: false,
            dsn: MailDsn::default(),
        }
    }

    fn read(mail_header: &str) -> Result<Control, BadControl> {
        of_header(mail_header.as_bytes(), &envelope(&["a@b"]), NOW, MONTH)
    }

    #[test]
    fn a_mail_is_sent_later_at_a_date_or_a_number_of_milliseconds() {
        let at = |millis| Ok(Some(Timestamp::from_millis(millis)));
        let wrong = Err("a date such as 2022-10-12T12:10:34.845Z".to_owned());
        let far = Err("a date at most 30 days ahead (queue.send_at_max)".to_owned());
        for (text, want) in [
            ("2022-10-12T13:10:40.980Z", at(1_665_580_240_980)),
            ("2022-10-12T15:10:40.980+02:00", at(1_665_580_240_980)),
            ("1665580240980", at(1_665_580_240_980)),
            ("2022-10-12T12:10:40.980Z", Ok(None)),
            ("1999-01-01", Ok(None)),
            ("0", Ok(None)),
            ("tomorrow", wrong.clone()),
            ("", wrong.clone()),
            ("-1", wrong),
            ("2023-10-12", far.clone()),
            ("18446744073709551615", far),
        ] {
            assert_eq!(send_at(text, NOW, MONTH), want, "{text}");
        }
    }

    #[test]
    fn control_headers_say_what_the_fields_over_http_say() {
        let control = read(
            "Subject: x\r\nx-ee-send-at: 2022-10-13\r\nX-EE-Delivery-Attempts: 3\r\n\
             X-EE-Idempotency-Key: order 17\r\nX-EE-Delivery-Attempts: 4\r\n",
        )
        .unwrap();
        assert_eq!(control.send_at, Timestamp::parse("2022-10-13"));
        assert_eq!(control.attempts_max, Some(3));
        assert_eq!(control.idempotency.unwrap().key, "order 17");
        assert_eq!(read("Subject: x\r\n"), Ok(Control::default()));
        for (line, field) in [
            ("X-EE-Send-At: soon", SEND_AT),
            ("X-EE-Delivery-Attempts: 0", ATTEMPTS),
            ("X-EE-Delivery-Attempts: many", ATTEMPTS),
            ("X-EE-Delivery-Attempts: 1001", ATTEMPTS),
            ("X-EE-Idempotency-Key:", KEY),
            ("X-EE-Idempotency-Key: clé", KEY),
        ] {
            let error = read(&format!("{line}\r\n")).unwrap_err();
            assert_eq!(error.field, field, "{line}");
        }
    }

    #[test]
    fn by_smtp_the_envelope_makes_a_mail_the_same() {
        let of = |to: &[&str]| fingerprint(&envelope(to));
        assert_eq!(of(&["a@b", "c@d"]), of(&["a@b", "c@d"]));
        assert_ne!(of(&["a@b", "c@d"]), of(&["a@b"]));
    }
}
