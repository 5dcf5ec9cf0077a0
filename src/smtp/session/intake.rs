//! A mail on its way in: by DATA (RFC 5321 §4.1.1.4) or in pieces by BDAT (RFC 3030 §2).

use samotop_core::smtp::SmtpSession;

use super::super::body::{BodyReader, Framing};
use super::super::reply::{self, Canned};
use super::super::service::{BareNewline, DATA_BLOCK_BYTES, Protocol, SessionEnd, SessionOptions};
use super::{Awaiting, BDAT_MODE, Question, Session, Step, is_over};
use crate::mail::{EnhancedStatus, Reply};

/// What has come of a mail so far.
#[derive(Debug, Default)]
pub(super) struct Intake {
    reader: BodyReader,
    /// What the service is asked about.
    chunk: Vec<u8>,
    bytes: u64,
    /// Why the rest is read and thrown away.
    pub(super) refusal: Option<Reply>,
}

/// What one BDAT announced.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: u64,
    left: u64,
    last: bool,
    /// The mail's last octets were dealt with.
    finished: bool,
    /// Why its octets are read and thrown away.
    discarded: Option<Reply>,
}

impl Session {
    /// The octets of the mail that the service is asked about.
    pub(crate) fn chunk(&self) -> &[u8] {
        self.intake.as_ref().map(|intake| intake.chunk.as_slice()).unwrap_or_default()
    }

    /// Takes the service's replies to the end of the mail.
    pub(crate) fn ended(&mut self, replies: Vec<Reply>) {
        self.awaiting = Awaiting::Nothing;
        // RFC 2033 §4.2: exactly one reply for each accepted recipient, whatever the service says.
        let owed = self.close_transaction();
        let silent = std::iter::repeat_with(reply::unspecific);
        let replies: Vec<Reply> = replies.into_iter().chain(silent).take(owed).collect();
        for reply in &replies {
            self.write_reply(reply);
        }
        if replies.iter().any(Reply::is_positive) {
            self.counters.errors = 0;
            self.counters.idle_commands = 0;
        } else if replies.iter().any(Reply::is_permanent) {
            self.count_error();
        }
        if replies.iter().any(|reply| reply.code == 421) {
            self.close(SessionEnd::Refused);
        }
    }

    /// The service wants the mail.
    pub(super) fn begin_intake(&mut self) {
        let framing = if self.piece.is_some() { Framing::Count } else { Framing::Dot };
        let reader = BodyReader::new(framing);
        self.intake = Some(Intake { reader, ..Intake::default() });
        match framing {
            Framing::Count => self.frame.session.mode = Some(BDAT_MODE),
            Framing::Dot => {
                self.frame.session.mode = Some(SmtpSession::DATA_MODE);
                self.say(reply::START_DATA);
            }
        }
    }

    /// Takes BDAT: its octets come in any case, and are no commands whatever is wrong with it.
    pub(super) fn bdat(&mut self, bytes: u64, last: bool) -> Option<Question> {
        let piece = Piece { bytes, left: bytes, last, finished: false, discarded: None };
        if self.intake.is_some() {
            self.piece = Some(piece);
            self.frame.session.mode = Some(BDAT_MODE);
            return None;
        }
        match self.data_refusal() {
            None => {
                self.piece = Some(piece);
                self.awaiting = Awaiting::Data;
                Some(Question::Data)
            }
            Some(refusal) => {
                if !self.count_idle() {
                    return None;
                }
                self.piece = Some(Piece { discarded: Some(refusal.into()), ..piece });
                self.frame.session.mode = Some(BDAT_MODE);
                None
            }
        }
    }

    /// The service does not want the mail whose first octets are on their way.
    ///
    /// RFC 3030 §2 leaves open what state that is; here the transaction is over, so that the
    /// BDATs that are already in the pipe are refused, too.
    pub(super) fn discard(&mut self, refusal: Reply) {
        self.owe_reset();
        self.frame.session.mode = Some(BDAT_MODE);
        if let Some(piece) = self.piece.as_mut() {
            piece.discarded = Some(refusal);
        }
    }

    pub(super) fn data_turn(&mut self) -> Option<Step> {
        let intake = self.intake.get_or_insert_default();
        if intake.reader.is_at_end() {
            self.frame.session.mode = None;
            self.progress = self.progress.saturating_add(1);
            return self.mail_complete();
        }
        let input = self.frame.session.input.get(self.taken..).unwrap_or_default();
        if input.is_empty() {
            return Some(Step::Read);
        }
        let read = intake.take(input, &self.options);
        self.taken = self.taken.saturating_add(read);
        self.advance(read);
        self.offer_chunk()
    }

    pub(super) fn piece_turn(&mut self) -> Option<Step> {
        let Some(piece) = self.piece.as_mut() else {
            self.frame.session.mode = None;
            return None;
        };
        if piece.left == 0 {
            return self.piece_complete();
        }
        let input = self.frame.session.input.get(self.taken..).unwrap_or_default();
        let bytes = usize::try_from(piece.left).unwrap_or(usize::MAX).min(input.len());
        let octets = input.get(..bytes).unwrap_or_default();
        if octets.is_empty() {
            return Some(Step::Read);
        }
        piece.left = piece.left.saturating_sub(count(bytes));
        self.taken = self.taken.saturating_add(bytes);
        if let Some(intake) = self.intake.as_mut() {
            intake.take(octets, &self.options);
        }
        self.advance(bytes);
        self.offer_chunk()
    }

    fn piece_complete(&mut self) -> Option<Step> {
        let piece = self.piece.as_mut()?;
        if piece.last && !piece.finished && piece.discarded.is_none() {
            piece.finished = true;
            self.intake.as_mut()?.finish(&self.options);
            return self.offer_chunk();
        }
        let piece = self.piece.take()?;
        self.frame.session.mode = None;
        self.progress = self.progress.saturating_add(1);
        if let Some(refusal) = piece.discarded {
            // Those that were in the pipe already are no new mistakes.
            self.write_reply(&refusal);
            if refusal.code == 421 {
                self.close(SessionEnd::Refused);
            }
            return None;
        }
        if piece.last || self.intake.as_ref().is_some_and(|intake| intake.refusal.is_some()) {
            let replies = if piece.last { usize::MAX } else { 1 };
            return self.mail_complete_with(replies);
        }
        let text = format!("{} octets received", piece.bytes);
        self.write_reply(&Reply::new(250, EnhancedStatus::new(2, 0, 0), text));
        None
    }

    /// The deadline moves with every block, whatever becomes of the octets.
    fn advance(&mut self, bytes: usize) {
        self.block_bytes = self.block_bytes.saturating_add(count(bytes));
        if self.block_bytes >= DATA_BLOCK_BYTES {
            self.block_bytes = 0;
            self.progress = self.progress.saturating_add(1);
        }
    }

    /// Asks the service about what was read, unless it is thrown away.
    fn offer_chunk(&mut self) -> Option<Step> {
        let intake = self.intake.as_ref()?;
        if intake.refusal.is_some() || intake.chunk.is_empty() {
            return None;
        }
        self.awaiting = Awaiting::Chunk;
        Some(Step::Ask(Question::Chunk))
    }

    fn mail_complete(&mut self) -> Option<Step> {
        self.mail_complete_with(usize::MAX)
    }

    /// The mail has ended, or a BDAT has that was refused; then no more than `replies_max` are
    /// due.
    fn mail_complete_with(&mut self, replies_max: usize) -> Option<Step> {
        match self.intake.take().and_then(|intake| intake.refusal) {
            None => {
                self.awaiting = Awaiting::End;
                Some(Step::Ask(Question::End))
            }
            Some(refusal) => {
                let owed = self.close_transaction().min(replies_max);
                (1..owed).for_each(|_| self.write_reply(&refusal));
                self.refuse(&refusal);
                Some(Step::Ask(Question::Reset))
            }
        }
    }

    /// Ends the transaction with a mail, accepted or not; says how many replies that takes.
    fn close_transaction(&mut self) -> usize {
        self.counters.transactions = self.counters.transactions.saturating_add(1);
        let recipients = self.transaction.take().map_or(0, |transaction| transaction.accepted);
        match self.options.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => usize::try_from(recipients).unwrap_or(usize::MAX),
        }
    }
}

impl Intake {
    /// Reads from `input` what belongs to the mail; says how much that was.
    fn take(&mut self, input: &[u8], options: &SessionOptions) -> usize {
        self.chunk.clear();
        let read = self.reader.read(input, &mut self.chunk);
        self.judge(options);
        read
    }

    /// Ends a mail whose octets were counted.
    fn finish(&mut self, options: &SessionOptions) {
        self.chunk.clear();
        self.reader.finish(&mut self.chunk);
        self.judge(options);
    }

    fn judge(&mut self, options: &SessionOptions) {
        self.bytes = self.bytes.saturating_add(count(self.chunk.len()));
        // What is worst about a mail is said of it, however its octets were cut on their way.
        if let Some(defect) = self.defect(options) {
            self.refusal = Some(defect.into());
        }
    }

    fn defect(&self, options: &SessionOptions) -> Option<Canned> {
        let defects = self.reader.defects();
        if defects.nul {
            Some(reply::NUL_IN_MAIL)
        } else if defects.bare_newline && options.bare_newline == BareNewline::Refuse {
            Some(reply::BARE_NEWLINE)
        } else if is_over(self.bytes, options) {
            Some(reply::TOO_LARGE)
        } else {
            None
        }
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
