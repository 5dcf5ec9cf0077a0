//! Bodies of mails that have ended, each a file of its own for as long as `Options::bodies` says.
//!
//! They are a convenience: none is synced, and one that cannot be kept, is missing or is damaged
//! is one that is gone. A mail has ended whatever becomes of its body.
//!
//! A body lies in the directory of the day of its end, there in that of the day of its mail, so
//! that both its own time and that of its record are over for whole directories.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::create_private_dir;
use super::layout::{self, KeptHeader};
use super::record::{Origin, Submission};
use super::shared::Shared;
use super::spool::{BodyPlace, Pin, Place};
use super::{BodyReader, StoreError, body, index, journal};
use crate::mail::{QueueId, Timestamp};

/// The directory of those whose mails ended on one day.
///
/// Its name is that day, `20221012`. When the clock has gone back, so that the day is still to
/// come, the day on which this was noticed follows, and its time counts from there:
/// `20300101.20221012`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Day {
    ended: u32,
    noticed: Option<u32>,
}

impl Shared {
    /// Whether bodies outlive their mails.
    pub(super) fn keeps_bodies(&self) -> bool {
        !self.keep_bodies.is_zero()
    }

    /// Keeps the bodies of mails that have ended, where they are to be kept, and lets the mails
    /// go. That a body cannot be kept is only logged.
    pub(super) fn let_go(&self, ended: &[QueueId]) {
        let mut failures: usize = 0;
        let mut why = None;
        for queue_id in ended {
            if let Err(error) = self.keep_body(*queue_id) {
                failures = failures.saturating_add(1);
                why = Some(error);
            }
            if self.core().spool.release_mail(*queue_id) {
                body::remove_file(&self.paths.big.join(queue_id.to_string()));
            }
        }
        if let Some(error) = why {
            tracing::warn!(mails = failures, %error, "bodies of mails that have ended are not kept");
        }
    }

    /// Whether a mail has ended whose body is still in the spool, and is not to be shown any more.
    pub(super) fn is_body_over(&self, place: Place) -> bool {
        place.ended_at.is_some_and(|ended_at| self.is_over(ended_at, self.clock.now()))
    }

    /// Drops kept bodies whose time is over, and those of mails before the day `records_from`.
    pub(super) fn prune_bodies(&self, records_from: u32) -> Result<(), StoreError> {
        let mut pruned = Ok(());
        for (day, path) in self.kept_days()? {
            // What fails for one day is no reason to keep the others.
            pruned = pruned.and(self.prune_day(day, &path, records_from));
        }
        pruned
    }

    fn prune_day(&self, day: Day, path: &Path, records_from: u32) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.keeps_bodies() || self.is_day_over(day, now) {
            index::remove_all(path)?;
            tracing::info!(day = day.ended, "dropped the bodies of mails that had ended");
            return Ok(());
        }
        for of_mails in journal::list(path)? {
            let day = of_mails.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            if day.is_some_and(|day| day < records_from) {
                index::remove_all(&of_mails)?;
            }
        }
        let name = day.name(now.day());
        if path.file_name() == Some(name.as_ref()) {
            return Ok(());
        }
        std::fs::rename(path, self.paths.bodies.join(name))
            .map_err(|error| StoreError::io(format!("renaming {}", path.display()), error))
    }

    fn keep_body(&self, queue_id: QueueId) -> Result<(), StoreError> {
        let found = self.core().spool.find(Pin::Mail(queue_id));
        let Some((segment, place)) = found else { return Ok(()) };
        let Some(ended_at) = place.ended_at else { return Ok(()) };
        let now = self.clock.now();
        // An end that is still to come was noted before the clock went back.
        let ended_at = ended_at.min(now);
        if self.is_over(ended_at, now) {
            return Ok(());
        }
        let octets = segment.read_frame(place.offset, place.size)?;
        let frame = layout::decode_frame(&octets, self.seed);
        let parts = frame.and_then(|frame| layout::decode_message(frame.payload));
        let Some((record, _, body)) = parts else {
            return Err(StoreError::Format(format!("the body of {queue_id} is damaged")));
        };
        let submission: Submission = layout::decode_record(record).map_err(StoreError::Format)?;
        if submission.origin != Origin::App {
            return Ok(());
        }
        let path = self.paths.bodies.join(ended_at.day().to_string());
        let path = kept_path(&path, queue_id);
        if place.body == BodyPlace::InFile {
            return self.keep_file(&path, queue_id, ended_at);
        }
        let (len, checksum) = (octets_of(body.len()), crc32c::crc32c(body));
        let place = layout::BODY_HERE;
        self.write_kept(&path, &KeptHeader { queue_id, ended_at, place, len, checksum }, body)
    }

    /// Moves a body out of `spool/big`. When it is not there a start makes up for what was done.
    fn keep_file(
        &self,
        path: &Path,
        queue_id: QueueId,
        ended_at: Timestamp,
    ) -> Result<(), StoreError> {
        let from = self.paths.big.join(queue_id.to_string());
        let failed = |error| StoreError::io(format!("keeping {}", from.display()), error);
        let Some(mut file) = open_if_there(&from).map_err(failed)? else { return Ok(()) };
        let (len, checksum) = measured(&mut file).map_err(failed)?;
        let place = layout::BODY_IN_FILE;
        let header = KeptHeader { queue_id, ended_at, place, len, checksum };
        self.write_kept(path, &header, b"")?;
        std::fs::rename(&from, beside(path)).map_err(|error| {
            body::remove_file(path);
            failed(error)
        })
    }

    fn write_kept(&self, path: &Path, header: &KeptHeader, body: &[u8]) -> Result<(), StoreError> {
        self.disk_has_room(header.len.saturating_add(ROOM_FOR_MAIL_BYTES))?;
        let mut octets = layout::encode_kept_header(header, self.seed);
        octets.extend_from_slice(body);
        let written = path.parent().map_or(Ok(()), create_private_dir).and_then(|()| {
            let file = File::create(path)?;
            self.disk.write_at(&file, &octets, 0).inspect_err(|_error| body::remove_file(path))
        });
        written.map_err(|error| StoreError::io(format!("writing {}", path.display()), error))
    }

    /// The kept body of a mail, open at its first octet; `None` when there is none whose time is
    /// not over and which is whole.
    fn open_kept(&self, queue_id: QueueId) -> Result<Option<File>, StoreError> {
        let now = self.clock.now();
        for (day, path) in self.kept_days()? {
            if self.is_day_over(day, now) {
                continue;
            }
            let path = kept_path(&path, queue_id);
            let opened = self.open_whole(&path, queue_id, now);
            let opened = opened
                .map_err(|error| StoreError::io(format!("reading {}", path.display()), error))?;
            if opened.is_some() {
                return Ok(opened);
            }
        }
        Ok(None)
    }

    fn open_whole(
        &self,
        path: &Path,
        queue_id: QueueId,
        now: Timestamp,
    ) -> std::io::Result<Option<File>> {
        let Some(mut file) = open_if_there(path)? else { return Ok(None) };
        let mut head = Vec::new();
        let head_bytes = octets_of(layout::KEPT_HEADER_BYTES);
        Read::take(&mut file, head_bytes).read_to_end(&mut head)?;
        let header = layout::decode_kept_header(&head, self.seed);
        let header = header.filter(|header| header.queue_id == queue_id);
        let mut body = match &header {
            Some(header) if self.is_over(header.ended_at, now) => return Ok(None),
            Some(header) if header.place == layout::BODY_IN_FILE => open_if_there(&beside(path))?,
            _ => Some(file),
        };
        if let (Some(header), Some(file)) = (header, &mut body) {
            let start = file.stream_position()?;
            if measured(file)? == (header.len, header.checksum) {
                file.seek(SeekFrom::Start(start))?;
                return Ok(body);
            }
        }
        tracing::error!(path = %path.display(), "a kept body is damaged, and counts as gone");
        Ok(None)
    }

    fn kept_days(&self) -> Result<Vec<(Day, PathBuf)>, StoreError> {
        let dirs = journal::list(&self.paths.bodies)?.into_iter();
        Ok(dirs.filter_map(|path| Some((Day::parse(path.file_name()?.to_str()?)?, path))).collect())
    }

    /// Whether a body is not kept any longer whose mail ended then.
    fn is_over(&self, ended_at: Timestamp, now: Timestamp) -> bool {
        ended_at.plus(self.keep_bodies) <= now
    }

    /// Whether no body of a day is kept any longer.
    fn is_day_over(&self, day: Day, now: Timestamp) -> bool {
        day.counts_from(now.day()) < now.minus(self.keep_bodies).day()
    }
}

impl Day {
    fn parse(name: &str) -> Option<Self> {
        match name.split_once('.') {
            Some((ended, noticed)) => {
                Some(Self { ended: ended.parse().ok()?, noticed: Some(noticed.parse().ok()?) })
            }
            None => Some(Self { ended: name.parse().ok()?, noticed: None }),
        }
    }

    /// The day from which its time counts.
    fn counts_from(self, today: u32) -> u32 {
        self.noticed.filter(|_| self.ended > today).unwrap_or(self.ended)
    }

    /// What its directory is to be called.
    fn name(self, today: u32) -> String {
        let noticed = if self.counts_from(today) > today { Some(today) } else { self.noticed };
        match noticed {
            Some(noticed) => format!("{}.{noticed}", self.ended),
            None => self.ended.to_string(),
        }
    }
}

/// The kept body of a mail that has ended, whole; `None` when it is not kept any longer.
pub(super) async fn read(
    shared: &Arc<Shared>,
    queue_id: QueueId,
) -> Result<Option<BodyReader>, StoreError> {
    if !shared.keeps_bodies() {
        return Ok(None);
    }
    let shared = Arc::clone(shared);
    let opening = tokio::task::spawn_blocking(move || shared.open_kept(queue_id));
    let opened =
        opening.await.map_err(|error| StoreError::io("reading a kept body", error.into()))??;
    Ok(opened.map(|file| -> BodyReader { Box::new(tokio::fs::File::from_std(file)) }))
}

/// Where the body of a mail lies in the directory of a day.
fn kept_path(day: &Path, queue_id: QueueId) -> PathBuf {
    day.join(queue_id.time().day().to_string()).join(queue_id.to_string())
}

/// Where a body lies that is not behind its head.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("body")
}

fn open_if_there(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// How many octets follow in a file, and their crc32c.
fn measured(file: &mut File) -> std::io::Result<(u64, u32)> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut len, mut checksum) = (0_u64, 0);
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => return Ok((len, checksum)),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        len = len.saturating_add(octets_of(read));
        checksum = crc32c::crc32c_append(checksum, piece.get(..read).unwrap_or_default());
    }
}

fn octets_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Free disk that kept bodies leave to mail beside the reserve, so that none is refused for them.
const ROOM_FOR_MAIL_BYTES: u64 = 256 << 20;
/// Octets of a file that are read at a time.
const PIECE_BYTES: usize = 65_536;
