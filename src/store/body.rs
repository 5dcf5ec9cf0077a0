//! Bodies on their way in, and out again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::disk::Disk;
use super::journal::Segment;
use super::layout;
use super::spool::{BodyPlace, Place};
use super::{BodyReader, StoreError};
use crate::mail::QueueId;

/// A body on its way in: in memory while small, in a file of its own beyond that.
pub struct BodyWriter {
    memory: Vec<u8>,
    file: Option<Draft>,
    len: u64,
    path: PathBuf,
    disk: Disk,
}

/// A complete body, which `accept` takes over; dropped without that, its file is removed.
#[derive(Debug)]
pub struct Body {
    pub(super) octets: BodyOctets,
    len: u64,
}

/// Where the octets of a complete body are.
#[derive(Debug)]
pub(super) enum BodyOctets {
    /// In memory; they go into the frame.
    Here(Vec<u8>),
    /// In a synced file.
    InFile(FileGuard),
}

/// A file that is removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct FileGuard(Option<PathBuf>);

struct Draft {
    file: tokio::fs::File,
    guard: FileGuard,
}

impl BodyWriter {
    pub(super) fn new(dir: &Path, queue_id: QueueId, disk: Disk) -> Self {
        let path = dir.join(queue_id.to_string());
        Self { memory: Vec::new(), file: None, len: 0, path, disk }
    }

    /// Adds octets.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        let added = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(added);
        if self.file.is_none()
            && self.memory.len().saturating_add(octets.len()) > BODY_HERE_BYTES_MAX
        {
            self.begin_file().await?;
        }
        match &mut self.file {
            Some(draft) => {
                let written = draft.file.write_all(octets).await;
                written.map_err(|error| failed("writing", &self.path, error))
            }
            None => {
                self.memory.extend_from_slice(octets);
                Ok(())
            }
        }
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the body; a file of its own is synced.
    pub async fn finish(self) -> Result<Body, StoreError> {
        let Some(mut draft) = self.file else {
            return Ok(Body { octets: BodyOctets::Here(self.memory), len: self.len });
        };
        let path = self.path;
        draft.file.flush().await.map_err(|error| failed("writing", &path, error))?;
        let file = draft.file.into_std().await;
        let disk = self.disk;
        let synced = tokio::task::spawn_blocking(move || {
            disk.sync_data(&file)
                .and_then(|()| path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir)))
                .map_err(|error| failed("syncing", &path, error))
        });
        synced.await.map_err(|error| StoreError::io("syncing a body", error.into()))??;
        Ok(Body { octets: BodyOctets::InFile(draft.guard), len: self.len })
    }

    async fn begin_file(&mut self) -> Result<(), StoreError> {
        let file = tokio::fs::File::create(&self.path).await;
        let mut file = file.map_err(|error| failed("creating", &self.path, error))?;
        let guard = FileGuard(Some(self.path.clone()));
        let written = file.write_all(&std::mem::take(&mut self.memory)).await;
        self.file = Some(Draft { file, guard });
        written.map_err(|error| failed("writing", &self.path, error))
    }
}

impl Body {
    /// Octets of the whole body.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FileGuard {
    /// Leaves the file where it is.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for FileGuard {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove_file(path);
        }
    }
}

/// Reads the body whose frame lies at `place`.
pub(super) async fn read(
    segment: Arc<Segment>,
    place: Place,
    seed: u32,
    big_dir: &Path,
    queue_id: QueueId,
) -> Result<BodyReader, StoreError> {
    if place.body == BodyPlace::InFile {
        let path = big_dir.join(queue_id.to_string());
        let file = tokio::fs::File::open(&path).await;
        return Ok(Box::new(file.map_err(|error| failed("opening", &path, error))?));
    }
    let reading = tokio::task::spawn_blocking(move || {
        let octets = segment.read_frame(place.offset, place.size)?;
        let frame = layout::decode_frame(&octets, seed);
        let parts = frame.and_then(|frame| layout::decode_message(frame.payload));
        let body = parts.map(|(_, _, body)| body.to_vec());
        body.ok_or_else(|| StoreError::Format(format!("the body of {queue_id} is damaged")))
    });
    let body = reading.await.map_err(|error| StoreError::io("reading a body", error.into()))??;
    Ok(Box::new(std::io::Cursor::new(body)))
}

/// Removes a body's file; that it cannot be removed is only logged.
pub(super) fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a body's file could not be removed");
        }
        _ => {}
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> StoreError {
    StoreError::io(format!("{doing} {}", path.display()), error)
}

/// Bodies up to this size lie in their frame; larger ones in a file of their own.
pub(super) const BODY_HERE_BYTES_MAX: usize = 262_144;
