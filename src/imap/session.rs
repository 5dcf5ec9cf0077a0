//! A session with an IMAP server: one command after the other, each with a deadline and a bound
//! on what it may be answered.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use tokio::time::timeout;

use super::error::ImapError;
use super::idle::tells_news;
use super::response::{self, Malformed, Outcome, Response, Status, Value, for_people, item, parse};
use super::wire::{Stream, Wire};
use crate::mail::Timestamp;

/// A connection that has been greeted.
pub(super) struct Session {
    pub(super) wire: Wire<Box<dyn Stream>>,
    pub(super) capabilities: Capabilities,
    /// For the whole answer to a command.
    limit: Duration,
    last_tag: u32,
    /// Why the server is about to hang up.
    bye: Option<String>,
    /// Whether the server has told of a mail that nobody has looked for yet.
    has_news: bool,
    is_selected: bool,
}

/// What a server offers, in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(BTreeSet<String>);

/// A folder that was selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    /// Mails in it.
    pub(super) exists: u32,
    /// What its unique ids are valid for; 0 where the server does not say.
    pub(super) uid_validity: u32,
    /// The unique id of the next mail, where the server says so.
    pub(super) uid_next: Option<u32>,
    /// The highest mod-sequence, where the server has them.
    pub(super) highest_mod_seq: Option<u64>,
}

/// The header of a mail, and what is known of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) uid: u32,
    /// Octets of the mail as the server counts them.
    pub(super) size_bytes: u64,
    /// The header block, at most `HEADER_BYTES_MAX` of it.
    pub(super) header: Vec<u8>,
    /// The types of its parts; empty where nobody knows them.
    pub(super) kinds: Vec<String>,
}

/// How much is asked for with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// The structure of the mail, too.
    Structure,
    /// Nothing more.
    HeaderOnly,
}

/// How a command is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) status: Status,
    /// What stands in brackets.
    pub(super) code: String,
    pub(super) text: String,
}

/// A line of LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The name as the server writes it, in modified UTF-7 or UTF-8.
    pub(super) name: String,
    /// What stands between the levels of a name.
    pub(super) delimiter: Option<char>,
    /// `\Junk`, `\Noselect` and the like.
    pub(super) attributes: Vec<String>,
}

impl Session {
    pub(super) fn new(wire: Wire<Box<dyn Stream>>, limit: Duration) -> Self {
        Self {
            wire,
            capabilities: Capabilities::default(),
            limit,
            last_tag: 0,
            bye: None,
            has_news: false,
            is_selected: false,
        }
    }

    /// What is given for the whole answer to a command.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether a folder is selected.
    pub(super) fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// Whether the server has told of a mail since somebody looked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Sends a command; hands what comes before its end to `each`, and refuses to go on when
    /// that is too much. What the server says that is no IMAP is counted and passed over.
    pub(super) async fn run(
        &mut self,
        doing: &'static str,
        command: &str,
        each: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<Ended, ImapError> {
        let bound = Bound { limit: self.limit, bytes_max: RESPONSE_BYTES_MAX };
        self.run_bounded(doing, command, bound, each).await
    }

    async fn run_bounded(
        &mut self,
        doing: &'static str,
        command: &str,
        bound: Bound,
        each: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<Ended, ImapError> {
        let talk = async {
            let tag = self.next_tag();
            self.wire.send(format!("{tag} {command}\r\n").as_bytes()).await?;
            self.until_end(doing, &tag, bound.bytes_max, each).await
        };
        let ended = timeout(bound.limit, talk).await;
        ended.map_err(|_elapsed| ImapError::PeerTimeout(doing))?
    }

    /// The same for a command that changes nothing to wait for, and must be done.
    pub(super) async fn must(
        &mut self,
        doing: &'static str,
        command: &str,
        each: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<(), ImapError> {
        self.run(doing, command, each).await?.must(doing).map(drop)
    }

    pub(super) fn next_tag(&mut self) -> String {
        self.last_tag = self.last_tag.wrapping_add(1);
        format!("R{}", self.last_tag)
    }

    /// Reads up to the end of a command; hands every response to `each` and notes what is said
    /// in passing.
    pub(super) async fn until_end(
        &mut self,
        doing: &'static str,
        tag: &str,
        bytes_max: usize,
        each: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<Ended, ImapError> {
        for _ in 0..RESPONSES_MAX {
            let octets = match self.wire.receive(bytes_max).await {
                Ok(octets) => octets,
                Err(ImapError::Lost(error)) => {
                    return Err(self.bye.take().map_or(ImapError::Lost(error), ImapError::PeerBye));
                }
                Err(error) => return Err(error),
            };
            match parse(octets) {
                Ok(Response::Done(ended, outcome)) if ended == tag.as_bytes() => {
                    return Ok(Ended::of(&outcome));
                }
                Ok(Response::Done(..) | Response::Continue(_)) => {
                    return Err(Malformed("an answer belongs to no command").into());
                }
                Ok(Response::Status(outcome)) if outcome.status == Status::Bye => {
                    self.bye = Some(for_people(outcome.text));
                }
                Ok(response) => {
                    self.capabilities.learn(&response);
                    self.has_news |= tells_news(&response);
                    each(&response);
                }
                Err(Malformed(what)) => tracing::debug!(doing, what, "a response is passed over"),
            }
        }
        Err(ImapError::PeerFlood(doing))
    }

    /// The greeting; whether nobody needs to log in.
    pub(super) async fn greeting(&mut self) -> Result<bool, ImapError> {
        let doing = "greeting";
        let received = timeout(self.limit, self.wire.receive(RESPONSE_BYTES_MAX)).await;
        let octets = received.map_err(|_elapsed| ImapError::PeerTimeout(doing))??;
        let response = parse(octets)?;
        self.capabilities.learn(&response);
        match response {
            Response::Status(outcome) => match outcome.status {
                Status::Ok => Ok(false),
                Status::Preauth => Ok(true),
                _ => Err(ImapError::PeerBye(for_people(outcome.text))),
            },
            _ => Err(Malformed("the greeting is none").into()),
        }
    }

    /// Asks what the server offers, which changes with TLS and with the login.
    pub(super) async fn capability(&mut self) -> Result<(), ImapError> {
        self.capabilities = Capabilities::default();
        self.must("asking what the server offers", "CAPABILITY", &mut |_| {}).await
    }

    /// Begins a command that the server asks more for; the response that followed.
    pub(super) async fn begin(
        &mut self,
        doing: &'static str,
        tag: &str,
        line: &str,
        each: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<Step, ImapError> {
        let talk = async {
            self.wire.send(line.as_bytes()).await?;
            for _ in 0..RESPONSES_MAX {
                let octets = self.wire.receive(RESPONSE_BYTES_MAX).await?;
                match parse(octets) {
                    Ok(Response::Continue(text)) => return Ok(Step::Continue(text.to_vec())),
                    Ok(Response::Done(ended, outcome)) if ended == tag.as_bytes() => {
                        return Ok(Step::Ended(Ended::of(&outcome)));
                    }
                    Ok(Response::Status(outcome)) if outcome.status == Status::Bye => {
                        return Err(ImapError::PeerBye(for_people(outcome.text)));
                    }
                    Ok(response) => {
                        self.capabilities.learn(&response);
                        each(&response);
                    }
                    Err(Malformed(what)) => {
                        tracing::debug!(doing, what, "a response is passed over");
                    }
                }
            }
            Err(ImapError::PeerFlood(doing))
        };
        timeout(self.limit, talk).await.map_err(|_elapsed| ImapError::PeerTimeout(doing))?
    }

    /// The folders there are.
    pub(super) async fn list(&mut self) -> Result<Vec<Listed>, ImapError> {
        let can_ask =
            self.capabilities.has("SPECIAL-USE") && self.capabilities.has("LIST-EXTENDED");
        let command = match can_ask {
            true => r#"LIST "" "*" RETURN (SPECIAL-USE)"#,
            false => r#"LIST "" "*""#,
        };
        let mut listed = Vec::new();
        let mut each = |response: &Response<'_>| {
            if let Response::Data(kind, values) = response
                && kind.eq_ignore_ascii_case(b"LIST")
                && listed.len() < FOLDERS_MAX
            {
                listed.extend(Listed::of(values));
            }
        };
        self.must("listing the folders", command, &mut each).await?;
        Ok(listed)
    }

    /// Selects a folder, or only looks at it.
    pub(super) async fn select(
        &mut self,
        folder: &str,
        read_only: bool,
    ) -> Result<Selected, ImapError> {
        let command = if read_only { "EXAMINE" } else { "SELECT" };
        let command = format!("{command} {}", quoted(folder)?);
        let mut selected = Selected::default();
        self.is_selected = false;
        self.must("selecting a folder", &command, &mut |response| selected.learn(response)).await?;
        self.is_selected = true;
        // What the folder holds is no news to those who look at it now.
        self.has_news = false;
        Ok(selected)
    }

    /// What a folder that is not selected holds.
    pub(super) async fn status(&mut self, folder: &str) -> Result<Selected, ImapError> {
        let more = if self.capabilities.has("CONDSTORE") { " HIGHESTMODSEQ" } else { "" };
        let command = format!("STATUS {} (UIDVALIDITY UIDNEXT{more})", quoted(folder)?);
        let mut found = Selected::default();
        let had_news = self.has_news;
        let mut each = |response: &Response<'_>| {
            if let Response::Data(kind, values) = response
                && kind.eq_ignore_ascii_case(b"STATUS")
                && let Some(Value::List(items)) = values.last()
            {
                let number = |name| item(items, name).and_then(Value::number);
                let narrow = |name| number(name).and_then(|number| u32::try_from(number).ok());
                found.uid_validity = narrow("UIDVALIDITY").unwrap_or_default();
                found.uid_next = narrow("UIDNEXT");
                found.highest_mod_seq = number("HIGHESTMODSEQ");
            }
        };
        self.must("asking for the status of a folder", &command, &mut each).await?;
        self.has_news = had_news;
        Ok(found)
    }

    /// The unique ids from `first` to `last` that arrived at `since` or later, in order. The
    /// server knows days only, and may be in any time zone: so it is asked from a day earlier on.
    pub(super) async fn search(
        &mut self,
        (first, last): (u32, u32),
        since: Option<Timestamp>,
    ) -> Result<Vec<u32>, ImapError> {
        let mut command = format!("UID SEARCH UID {first}:{last}");
        if let Some(since) = since {
            let day = since.minus(Duration::from_hours(24));
            write!(command, " SINCE {}", imap_date(day)).unwrap_or_default();
        }
        let mut found = BTreeSet::new();
        let mut each = |response: &Response<'_>| {
            if let Response::Data(kind, values) = response
                && kind.eq_ignore_ascii_case(b"SEARCH")
            {
                let numbers = values.iter().filter_map(Value::number);
                let numbers = numbers.filter_map(|number| u32::try_from(number).ok());
                found.extend(numbers.filter(|uid| (first..=last).contains(uid)));
            }
        };
        self.must("searching for new mails", &command, &mut each).await?;
        Ok(found.into_iter().collect())
    }

    /// The heads of mails; `each` is handed one at a time. What the server does not give is left
    /// out.
    pub(super) async fn heads(
        &mut self,
        uids: &[u32],
        detail: Detail,
        each: &mut (dyn FnMut(Head) + Send),
    ) -> Result<(), ImapError> {
        let structure = if detail == Detail::Structure { " BODYSTRUCTURE" } else { "" };
        let command = format!(
            "UID FETCH {} (UID RFC822.SIZE{structure} BODY.PEEK[HEADER]<0.{HEADER_BYTES_MAX}>)",
            sequence_set(uids)
        );
        let mut each = |response: &Response<'_>| {
            if let Some((uid, items)) = fetched(response, uids)
                && let Some(header) = item(items, "BODY[HEADER]").and_then(Value::octets)
            {
                each(Head {
                    uid,
                    size_bytes: item(items, "RFC822.SIZE").and_then(Value::number).unwrap_or(0),
                    header: header.to_vec(),
                    kinds: item(items, "BODYSTRUCTURE")
                        .map(response::part_kinds)
                        .unwrap_or_default(),
                });
            }
        };
        let doing = "fetching headers";
        self.run(doing, &command, &mut each).await.map(drop)
    }

    /// Mails whole, or the first `octets` of each; together at most `bytes_max`, further ones
    /// are left out, as is what the server does not give.
    pub(super) async fn bodies(
        &mut self,
        uids: &[u32],
        octets: Option<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u32, Vec<u8>)>, ImapError> {
        let part = octets.map(|octets| format!("<0.{octets}>")).unwrap_or_default();
        let command = format!("UID FETCH {} (UID BODY.PEEK[]{part})", sequence_set(uids));
        let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut room = bytes_max;
        let mut each = |response: &Response<'_>| {
            if let Some((uid, items)) = fetched(response, uids)
                && let Some(raw) = item(items, "BODY[]").and_then(Value::octets)
                && raw.len() <= room
                && !found.iter().any(|(known, _)| *known == uid)
            {
                room = room.saturating_sub(raw.len());
                found.push((uid, raw.to_vec()));
            }
        };
        let seconds = u64::try_from(bytes_max).unwrap_or(u64::MAX) / BODY_BYTES_PER_SEC;
        let bound = Bound {
            limit: self.limit.saturating_add(Duration::from_secs(seconds)),
            bytes_max: bytes_max.saturating_add(RESPONSE_BYTES_MAX),
        };
        self.run_bounded("fetching mails", &command, bound, &mut each).await?;
        Ok(found)
    }

    /// Whether a mail is still there, whatever can be read of it.
    pub(super) async fn is_there(&mut self, uid: u32) -> Result<bool, ImapError> {
        Ok(!self.search((uid, uid), None).await?.is_empty())
    }

    /// Adds a flag to mails.
    pub(super) async fn flag(&mut self, uids: &[u32], flag: &str) -> Result<(), ImapError> {
        let command = format!("UID STORE {} +FLAGS.SILENT ({flag})", sequence_set(uids));
        self.must("flagging mails", &command, &mut |_| {}).await
    }

    /// Deletes mails. Without UIDPLUS they are only marked as deleted: EXPUNGE would remove what
    /// others have marked, too.
    pub(super) async fn delete(&mut self, uids: &[u32]) -> Result<(), ImapError> {
        self.flag(uids, "\\Deleted").await?;
        if self.capabilities.has("UIDPLUS") {
            let command = format!("UID EXPUNGE {}", sequence_set(uids));
            self.must("deleting mails", &command, &mut |_| {}).await?;
        }
        Ok(())
    }

    /// Moves mails, and makes the folder where there is none; without MOVE they are copied and
    /// deleted (RFC 6851 §3.3).
    pub(super) async fn move_to(&mut self, uids: &[u32], folder: &str) -> Result<(), ImapError> {
        let (set, name) = (sequence_set(uids), quoted(folder)?);
        let has_move = self.capabilities.has("MOVE");
        let verb = if has_move { "UID MOVE" } else { "UID COPY" };
        let command = format!("{verb} {set} {name}");
        let doing = "moving mails";
        let ended = self.run(doing, &command, &mut |_| {}).await?;
        if ended.status == Status::No && ended.code.eq_ignore_ascii_case("TRYCREATE") {
            self.must("making a folder", &format!("CREATE {name}"), &mut |_| {}).await?;
            self.must(doing, &command, &mut |_| {}).await?;
        } else {
            ended.must(doing)?;
        }
        if has_move { Ok(()) } else { self.delete(uids).await }
    }

    /// Says goodbye; whether the server hears it does not matter.
    pub(super) async fn logout(mut self) {
        let tag = self.next_tag();
        let goodbye = async {
            self.wire.send(format!("{tag} LOGOUT\r\n").as_bytes()).await?;
            self.until_end("logging out", &tag, RESPONSE_BYTES_MAX, &mut |_| {}).await
        };
        drop(timeout(LOGOUT_TIMEOUT, goodbye).await);
    }
}

/// What followed the first part of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The server waits for more.
    Continue(Vec<u8>),
    /// The command has ended.
    Ended(Ended),
}

/// What one command may take.
#[derive(Clone, Copy)]
struct Bound {
    limit: Duration,
    /// Octets of one response.
    bytes_max: usize,
}

impl Ended {
    fn of(outcome: &Outcome<'_>) -> Self {
        Self {
            status: outcome.status,
            code: for_people(outcome.code),
            text: for_people(outcome.text),
        }
    }

    /// An error unless it was done.
    pub(super) fn must(self, doing: &'static str) -> Result<Self, ImapError> {
        match self.status {
            Status::Ok => Ok(self),
            _ => Err(ImapError::PeerRefused { doing, text: self.words() }),
        }
    }

    /// Code and text.
    pub(super) fn words(&self) -> String {
        match self.code.as_str() {
            "" => self.text.clone(),
            code => format!("[{code}] {}", self.text),
        }
    }
}

impl Capabilities {
    /// Whether this is offered.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn learn(&mut self, response: &Response<'_>) {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).to_uppercase();
        match response {
            Response::Data(kind, values) if kind.eq_ignore_ascii_case(b"CAPABILITY") => {
                let names = values.iter().filter_map(Value::octets).map(text);
                self.0 = names.take(CAPABILITIES_MAX).collect();
            }
            Response::Status(outcome) if outcome.has_code("CAPABILITY") => {
                let code = text(outcome.code);
                let names = code.split(' ').skip(1).map(str::to_owned);
                self.0 = names.take(CAPABILITIES_MAX).collect();
            }
            _ => {}
        }
    }
}

impl Selected {
    fn learn(&mut self, response: &Response<'_>) {
        match response {
            Response::Numbered(count, kind, _) if kind.eq_ignore_ascii_case(b"EXISTS") => {
                self.exists = *count;
            }
            Response::Status(outcome) => {
                let narrow =
                    |name| outcome.code_number(name).and_then(|number| u32::try_from(number).ok());
                self.uid_validity = narrow("UIDVALIDITY").unwrap_or(self.uid_validity);
                self.uid_next = narrow("UIDNEXT").or(self.uid_next);
                let mod_seq = outcome.code_number("HIGHESTMODSEQ");
                self.highest_mod_seq = mod_seq.or(self.highest_mod_seq);
            }
            _ => {}
        }
    }
}

impl Listed {
    fn of(values: &[Value<'_>]) -> Option<Self> {
        let [attributes, delimiter, name, ..] = values else { return None };
        let text = |value: &Value<'_>| Some(String::from_utf8_lossy(value.octets()?).into_owned());
        Some(Self {
            name: text(name)?,
            delimiter: text(delimiter).and_then(|delimiter| delimiter.chars().next()),
            attributes: attributes.list().iter().filter_map(text).collect(),
        })
    }

    /// Whether it has an attribute, in whatever case.
    pub(super) fn is(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|known| known.eq_ignore_ascii_case(attribute))
    }
}

/// The unique id and the items of a FETCH that answers for one of `uids`.
fn fetched<'v, 'a>(response: &'v Response<'a>, uids: &[u32]) -> Option<(u32, &'v [Value<'a>])> {
    let Response::Numbered(_, kind, values) = response else { return None };
    let [Value::List(items)] = values.as_slice() else { return None };
    let uid = item(items, "UID").and_then(Value::number)?;
    let uid = u32::try_from(uid).ok().filter(|uid| uids.contains(uid))?;
    kind.eq_ignore_ascii_case(b"FETCH").then_some((uid, items.as_slice()))
}

/// A name as a quoted string.
pub(super) fn quoted(name: &str) -> Result<String, ImapError> {
    if name.chars().any(|c| c.is_control() || !c.is_ascii()) {
        return Err(ImapError::ConfigName(crate::mail::header::sanitized(name)));
    }
    Ok(format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Unique ids in order as a sequence set (RFC 3501 §9): runs as `first:last`.
fn sequence_set(uids: &[u32]) -> String {
    let runs = uids.chunk_by(|left, right| left.checked_add(1) == Some(*right));
    let runs = runs.filter_map(|run| match (run.first()?, run.last()?) {
        (first, last) if first == last => Some(first.to_string()),
        (first, last) => Some(format!("{first}:{last}")),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// A day as SEARCH has it: `1-Feb-1994`.
fn imap_date(time: Timestamp) -> String {
    let day = time.day();
    let months =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = usize::try_from(day / 100 % 100).unwrap_or(1).saturating_sub(1);
    let month = months.get(month).unwrap_or(&"Jan");
    format!("{}-{month}-{:04}", day % 100, day / 10_000)
}

/// Octets of a header block that are fetched.
pub(super) const HEADER_BYTES_MAX: usize = 65_536;
/// Octets of one response, a mail that it holds not counted: a search finds up to 50,000 ids.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Responses to one command.
const RESPONSES_MAX: usize = 100_000;
/// Folders of one mailbox that are looked at.
const FOLDERS_MAX: usize = 10_000;
/// What a server may offer.
const CAPABILITIES_MAX: usize = 500;
/// The slowest pace at which mails may arrive.
const BODY_BYTES_PER_SEC: u64 = 16_384;
/// For the answer to a goodbye.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_runs() {
        for (uids, want) in [
            (&[1][..], "1"),
            (&[1, 2, 3, 7, 9, 10], "1:3,7,9:10"),
            (&[u32::MAX - 1, u32::MAX], "4294967294:4294967295"),
            (&[], ""),
        ] {
            assert_eq!(sequence_set(uids), want);
        }
    }

    #[test]
    fn a_name_cannot_end_its_command() {
        assert_eq!(quoted(r#"a "b" \c"#).unwrap(), r#""a \"b\" \\c""#);
        for bad in ["a\r\nb", "a\nb", "a\0", "ä"] {
            assert!(matches!(quoted(bad), Err(ImapError::ConfigName(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_day_is_written_as_search_has_it() {
        for (millis, want) in [(1_665_576_640_980, "12-Oct-2022"), (0, "1-Jan-1970")] {
            assert_eq!(imap_date(Timestamp::from_millis(millis)), want);
        }
    }

    #[test]
    fn only_what_was_asked_for_is_taken_from_a_fetch() {
        for (line, want) in [
            (&b"* 1 FETCH (UID 5 FLAGS ())"[..], Some(5)),
            (b"* 1 FETCH (UID 6 FLAGS ())", None),
            (b"* 1 FETCH (FLAGS ())", None),
            (b"* 1 FETCH (UID 4294967301)", None),
            (b"* 1 EXISTS", None),
            (b"* LIST (UID 5)", None),
        ] {
            let response = parse(line).unwrap();
            assert_eq!(fetched(&response, &[5]).map(|(uid, _)| uid), want);
        }
    }
}
