//! What the local part of a simulated address asks for.
//!
//! Pure: the grammar stands in the table at the head of `dev`.

use std::time::Duration;

use crate::mail::{EnhancedStatus, Reply};

/// What the simulator does with one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Takes the mail and says nothing more.
    Take,
    /// Refuses it.
    Refuse {
        /// What it answers.
        reply: Reply,
        /// Where in the conversation.
        at: RefuseAt,
        /// How often.
        times: RefuseTimes,
    },
    /// Takes it and reports on it later.
    Report {
        /// What the report says.
        report: ReportKind,
        /// How long after the 250.
        after: Duration,
    },
}

/// Which command is answered with the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefuseAt {
    /// `MAIL`: the address is looked for in the reverse-path.
    Mail,
    /// `RCPT`.
    Rcpt,
    /// `DATA`.
    Data,
    /// The end of the data.
    End,
}

/// How often a refusal is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefuseTimes {
    /// At the first try of a mail only.
    Once,
    /// At every try.
    Always,
}

/// What is mailed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// A DSN with `Action: failed`.
    Failed(EnhancedStatus, Returned),
    /// A DSN with `Action: delayed`.
    Delayed(EnhancedStatus),
    /// A DSN with `Action: delivered`.
    Delivered,
    /// An out-of-office answer, which is no report at all.
    AutoReply,
}

/// What of the mail comes back with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// Its header and the beginning of its body.
    Message,
    /// Nothing.
    Nothing,
}

/// Reads a local part, apart from a `+tag` at its end; what it does not know is `Take`.
pub(super) fn behaviour(local_part: &str) -> Behaviour {
    let lower = local_part.split('+').next().unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = lower.split('-').collect();
    refusal(&words).or_else(|| report(&words)).unwrap_or(Behaviour::Take)
}

/// `CODE[-STATUS][-once][-at-STAGE]`, the last two in either order.
fn refusal(words: &[&str]) -> Option<Behaviour> {
    let (code, mut rest) = words.split_first()?;
    let code = Reply::parse(code)?.code;
    if code < 400 {
        return None;
    }
    let class: u8 = if code < 500 { 4 } else { 5 };
    let mut status = EnhancedStatus::new(class, 0, 0);
    if let Some((word, tail)) = rest.split_first()
        && let Some(given) = EnhancedStatus::parse(word)
    {
        (status, rest) = (given, tail);
    }
    let (mut at, mut times) = (RefuseAt::Rcpt, RefuseTimes::Always);
    loop {
        match rest {
            [] => break,
            ["once", tail @ ..] => (times, rest) = (RefuseTimes::Once, tail),
            ["at", stage, tail @ ..] => (at, rest) = (refuse_at(stage)?, tail),
            _ => return None,
        }
    }
    let reply = Reply::new(code, status, words_for(status));
    Some(Behaviour::Refuse { reply, at, times })
}

fn refuse_at(stage: &str) -> Option<RefuseAt> {
    match stage {
        "mail" => Some(RefuseAt::Mail),
        "rcpt" => Some(RefuseAt::Rcpt),
        "data" => Some(RefuseAt::Data),
        "end" => Some(RefuseAt::End),
        _ => None,
    }
}

/// `dsn[-noheaders][-STATUS]`, `delay[-STATUS]`, `delivered`, `autoreply`, each `[-after-Ns]`.
fn report(words: &[&str]) -> Option<Behaviour> {
    let (words, after) = match words {
        [front @ .., "after", span] => (front, seconds(span)?),
        _ => (words, AFTER_DEFAULT),
    };
    let report = match words {
        ["dsn"] => ReportKind::Failed(NO_SUCH_USER, Returned::Message),
        ["dsn", "noheaders"] => ReportKind::Failed(NO_SUCH_USER, Returned::Nothing),
        ["dsn", "noheaders", status] => {
            ReportKind::Failed(status_of_class(status, 5)?, Returned::Nothing)
        }
        ["dsn", status] => ReportKind::Failed(status_of_class(status, 5)?, Returned::Message),
        ["delay"] => ReportKind::Delayed(NO_ANSWER),
        ["delay", status] => ReportKind::Delayed(status_of_class(status, 4)?),
        ["delivered"] => ReportKind::Delivered,
        ["autoreply"] => ReportKind::AutoReply,
        _ => return None,
    };
    Some(Behaviour::Report { report, after })
}

/// A status of that class; a failed report may also carry a 4yz status, as Postfix writes when a
/// transient refusal has outlived the queue.
fn status_of_class(text: &str, class: u8) -> Option<EnhancedStatus> {
    let status = EnhancedStatus::parse(text)?;
    (status.class == class || (class == 5 && status.class == 4)).then_some(status)
}

/// `2s`, at most `AFTER_SECS_MAX`.
fn seconds(text: &str) -> Option<Duration> {
    let secs: u64 = text.strip_suffix('s')?.parse().ok()?;
    (secs <= AFTER_SECS_MAX).then(|| Duration::from_secs(secs))
}

/// The words in which servers of note say this status.
pub(super) fn words_for(status: EnhancedStatus) -> &'static str {
    let key = (status.class, status.subject, status.detail);
    let row = WORDS.iter().find(|(known, _)| *known == key);
    row.map_or("Simulated refusal", |(_, words)| words)
}

const NO_SUCH_USER: EnhancedStatus = EnhancedStatus::new(5, 1, 1);
const NO_ANSWER: EnhancedStatus = EnhancedStatus::new(4, 4, 1);
const AFTER_DEFAULT: Duration = Duration::from_secs(1);
const AFTER_SECS_MAX: u64 = 3_600;

/// What is said with which status; phrased as Postfix, Gmail and Outlook do, so that the
/// classifier sees in `rebound dev` what it will see outside.
const WORDS: &[((u8, u16, u16), &str)] = &[
    ((4, 2, 0), "Greylisted, please try again later"),
    ((4, 2, 1), "Mailbox temporarily disabled"),
    ((4, 2, 2), "Mailbox full, over quota"),
    ((4, 3, 0), "Temporary server error, please try again later"),
    ((4, 3, 2), "System not accepting network messages, try again later"),
    ((4, 4, 1), "connect to mx.sim.test: Connection timed out"),
    ((4, 7, 0), "Too many messages, rate limit exceeded"),
    ((5, 1, 1), "No such user here: recipient address rejected, user unknown"),
    ((5, 1, 2), "Domain not found"),
    ((5, 1, 3), "Bad recipient address syntax"),
    ((5, 2, 1), "Mailbox disabled, not accepting messages"),
    ((5, 2, 2), "Mailbox full, over quota"),
    ((5, 2, 3), "Message size exceeds the limit of this mailbox"),
    ((5, 3, 4), "Message size exceeds fixed maximum message size"),
    ((5, 4, 6), "Mail loop detected"),
    ((5, 7, 1), "Message rejected as spam"),
    ((5, 7, 26), "Unauthenticated mail is not accepted due to the domain's DMARC policy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(code: u16, status: &str, at: RefuseAt, times: RefuseTimes) -> Behaviour {
        let status = EnhancedStatus::parse(status).unwrap();
        Behaviour::Refuse { reply: Reply::new(code, status, words_for(status)), at, times }
    }

    #[test]
    fn refusals_carry_the_code_status_and_stage_of_the_address() {
        use RefuseAt::{Data, End, Mail, Rcpt};
        use RefuseTimes::{Always, Once};
        for (local, want) in [
            ("550-5.1.1", refuse(550, "5.1.1", Rcpt, Always)),
            ("452-4.2.2", refuse(452, "4.2.2", Rcpt, Always)),
            ("450-4.2.0-once", refuse(450, "4.2.0", Rcpt, Once)),
            ("554-5.7.1-at-data", refuse(554, "5.7.1", Data, Always)),
            ("554-5.7.1-at-end", refuse(554, "5.7.1", End, Always)),
            ("451-4.3.0-once-at-end", refuse(451, "4.3.0", End, Once)),
            ("451-4.3.0-at-end-once", refuse(451, "4.3.0", End, Once)),
            ("550-5.7.26-AT-MAIL", refuse(550, "5.7.26", Mail, Always)),
            ("550", refuse(550, "5.0.0", Rcpt, Always)),
            ("421", refuse(421, "4.0.0", Rcpt, Always)),
            ("550-5.1.1+user42", refuse(550, "5.1.1", Rcpt, Always)),
            ("599-5.9.9", refuse(599, "5.9.9", Rcpt, Always)),
        ] {
            assert_eq!(behaviour(local), want, "{local}");
        }
    }

    #[test]
    fn reports_carry_the_status_and_time_of_the_address() {
        let status = |text: &str| EnhancedStatus::parse(text).unwrap();
        for (local, report, after_secs) in [
            ("dsn-5.2.2-after-2s", ReportKind::Failed(status("5.2.2"), Returned::Message), 2),
            ("dsn-5.2.2", ReportKind::Failed(status("5.2.2"), Returned::Message), 1),
            ("dsn", ReportKind::Failed(status("5.1.1"), Returned::Message), 1),
            ("dsn-4.4.7-after-0s", ReportKind::Failed(status("4.4.7"), Returned::Message), 0),
            ("dsn-noheaders", ReportKind::Failed(status("5.1.1"), Returned::Nothing), 1),
            ("dsn-noheaders-5.2.1", ReportKind::Failed(status("5.2.1"), Returned::Nothing), 1),
            ("delay", ReportKind::Delayed(status("4.4.1")), 1),
            ("delay-4.2.2-after-3s", ReportKind::Delayed(status("4.2.2")), 3),
            ("delivered", ReportKind::Delivered, 1),
            ("autoreply-after-3600s", ReportKind::AutoReply, 3600),
        ] {
            let after = Duration::from_secs(after_secs);
            assert_eq!(behaviour(local), Behaviour::Report { report, after }, "{local}");
        }
    }

    #[test]
    fn everything_else_is_taken_and_discarded() {
        for local in [
            "ok",
            "anna",
            "",
            "-",
            "250-2.0.0",
            "600-5.1.1",
            "550-6.1.1",
            "550-5.1.1-at-noon",
            "550-5.1.1-at",
            "550-5.1.1-twice",
            "dsn-2.0.0",
            "delay-5.1.1",
            "dsn-5.1.1-after-3601s",
            "dsn-5.1.1-after-99999999999999999999s",
            "dsn-5.1.1-after-2m",
            "delivered-5.1.1",
            "+550-5.1.1",
        ] {
            assert_eq!(behaviour(local), Behaviour::Take, "{local}");
        }
    }
}
