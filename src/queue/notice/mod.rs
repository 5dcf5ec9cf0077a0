//! The mail that Rebound itself writes: DSNs, delay notices, forwarded reports.
//!
//! Text in, octets out. Whatever comes from outside (replies, names, headers) is cleaned before
//! it is written, and everything written is 7-bit unless it is the mail or report of another.

mod dsn;
mod fields;
mod forward;
mod mime;
#[cfg(test)]
mod tests;
mod words;

use crate::bounce::Category;
use crate::mail::envelope::{BodyKind, Recipient};
use crate::mail::lines::has_long_lines;
use crate::mail::{Address, Envelope, MailDsn, MessageId, QueueId, ReversePath, Timestamp};
use crate::store::LiveRecipient;
use crate::store::record::{HEADER_BYTES_MAX, Origin, ReturnPathMode, Submission};

pub use dsn::{delay, failure, relayed};
pub use forward::forward;
use mime::field;

/// A mail of ours: what the store takes over, and all its octets.
pub type Notice = (Submission, Vec<u8>);

/// Who writes a notice, and as which mail.
#[derive(Clone, Copy, Debug)]
pub struct Letterhead<'a> {
    /// Our name: `Reporting-MTA` and the domain of `From`.
    pub hostname: &'a str,
    /// The notice's own queue id.
    pub queue_id: QueueId,
    /// When it is written.
    pub now: Timestamp,
    /// Makes Message-ID and boundary unpredictable.
    pub random: u64,
    /// The value of `X-Rebound-Notice`: `KeyRing::notice` of `queue_id`.
    pub mark: &'a str,
}

/// What a notice says about one recipient.
#[derive(Clone, Copy, Debug)]
pub struct AboutRecipient<'a> {
    /// The recipient as the queue has it.
    pub recipient: &'a LiveRecipient,
    /// What its failure was classified as, where it was.
    pub category: Option<Category>,
}

fn from_field(hostname: &str) -> String {
    field("From", &format!("Mail Delivery System <MAILER-DAEMON@{hostname}>"))
}

fn submission(
    head: &Letterhead<'_>,
    account: &str,
    message_id: MessageId,
    to: &Address,
    octets: &[u8],
    header_len: usize,
) -> Submission {
    let header = octets.get(..header_len.min(HEADER_BYTES_MAX)).unwrap_or(octets);
    Submission {
        queue_id: head.queue_id,
        message_id,
        account: account.to_owned(),
        received_at: head.now,
        envelope: Envelope {
            // RFC 5321 §6.1: a report about a report would have nowhere to go.
            reverse_path: ReversePath::NULL,
            recipients: vec![Recipient::from(to.clone())],
            body: if octets.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime },
            smtputf8: !to.is_ascii(),
            dsn: MailDsn::default(),
        },
        header: header.to_vec(),
        size_bytes: u64::try_from(octets.len()).unwrap_or(u64::MAX),
        // What is forwarded or returned is another's.
        long_lines: has_long_lines(octets),
        origin: Origin::Notice,
        meta: std::collections::BTreeMap::new(),
        client: None,
        return_path: ReturnPathMode::Preserve,
        dsn: false,
        source: Default::default(),
        control: Default::default(),
    }
}

/// RFC 3834 §5.
const AUTO_SUBMITTED: &str = "Auto-Submitted: auto-replied\r\n";
