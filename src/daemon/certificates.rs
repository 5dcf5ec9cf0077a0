//! Certificates that change on disk are shown without a word from anybody: whoever renews them
//! need not know of us.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cli::chain;
use crate::config::{Certificate, Settings};
use crate::net::shutdown::Shutdown;
use crate::net::tls::{ServerTls, TlsError};

/// Looks at the files from time to time, until the daemon stops.
///
/// New ones that cannot be used are complained about once, and again when they have changed; the
/// old ones are shown in the meantime.
pub(super) async fn watch(
    tls: Option<Arc<ServerTls>>,
    settings: watch::Receiver<Arc<Settings>>,
    stop: Shutdown,
) {
    let Some(tls) = tls else {
        return stop.requested().await;
    };
    let mut files = Files::new(&settings.borrow().tls.certificates);
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let certificates = settings.borrow().tls.certificates.clone();
        // A disk, or a share, may take its time.
        let looked = tokio::task::spawn_blocking(move || {
            let read = files.look(&certificates);
            (files, read)
        });
        let read;
        (files, read) = match looked.await {
            Ok(looked) => looked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match read {
            None => {}
            Some(Ok(changed)) => {
                tls.adopt(&changed);
                tracing::info!("the certificates have changed, and the new ones are shown");
            }
            Some(Err(error)) => {
                let error = chain(&error);
                tracing::error!(error, "the certificates have changed; the old ones are shown");
            }
        }
    }
}

/// The files as they were when they were looked at.
struct Files {
    /// When they were read last, well or not.
    read: Vec<Mark>,
    /// A moment ago.
    seen: Vec<Mark>,
}

/// What tells a file from one that was written or put into its place later; none where there is
/// no file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark(PathBuf, Option<[i64; 2]>, Option<[u64; 3]>);

impl Files {
    /// The files that have just been read.
    fn new(certificates: &[Certificate]) -> Self {
        let read = marks(certificates);
        Self { seen: read.clone(), read }
    }

    /// Reads the files if they are others than those that were read last.
    ///
    /// Certificate and key are written one after the other, and perhaps in pieces: so they are
    /// read once nothing has changed from one look to the next.
    fn look(&mut self, certificates: &[Certificate]) -> Option<Result<ServerTls, TlsError>> {
        let now = marks(certificates);
        let has_settled = now == self.seen;
        self.seen.clone_from(&now);
        if now == self.read || !has_settled || certificates.is_empty() {
            return None;
        }
        self.read = now;
        Some(ServerTls::load(certificates))
    }
}

fn marks(certificates: &[Certificate]) -> Vec<Mark> {
    let paths = certificates.iter().flat_map(|pair| [&pair.cert_file, &pair.key_file]);
    let mark = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok();
        let modified = found.as_ref().map(|found| [found.mtime(), found.mtime_nsec()]);
        let identity = found.as_ref().map(|found| [found.dev(), found.ino(), found.size()]);
        Mark(path.clone(), modified, identity)
    };
    paths.map(mark).collect()
}

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The PEM of a certificate and of its key.
    fn made() -> [String; 2] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [made.cert.pem(), made.signing_key.serialize_pem()]
    }

    /// What a few looks come to: each reading as whether it went well.
    fn looks(files: &mut Files, pair: &Certificate) -> Vec<bool> {
        let certificates = std::slice::from_ref(pair);
        (0..4).filter_map(|_| files.look(certificates)).map(|read| read.is_ok()).collect()
    }

    #[test]
    fn files_are_read_when_they_have_changed_and_only_then() {
        let dir = std::env::temp_dir().join(format!("rebound-renewed-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let pair = Certificate { cert_file: dir.join("cert"), key_file: dir.join("key") };
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        let [cert, key] = made();
        write(&pair.cert_file, &cert);
        write(&pair.key_file, &key);
        let mut files = Files::new(std::slice::from_ref(&pair));
        assert!(looks(&mut files, &pair).is_empty());

        // In place, one after the other within a moment.
        let [cert, key] = made();
        write(&pair.cert_file, &cert);
        assert!(files.look(std::slice::from_ref(&pair)).is_none());
        write(&pair.key_file, &key);
        assert_eq!(looks(&mut files, &pair), [true]);

        // The key comes later: the certificate alone is refused, once.
        let [cert, key] = made();
        write(&pair.cert_file, &cert);
        assert_eq!(looks(&mut files, &pair), [false]);
        assert!(looks(&mut files, &pair).is_empty());
        write(&pair.key_file, &key);
        assert_eq!(looks(&mut files, &pair), [true]);

        // Put into place as a whole, with the length and the time of the old one.
        let new = dir.join("new");
        write(&new, &std::fs::read_to_string(&pair.key_file).unwrap());
        let time = std::fs::metadata(&pair.key_file).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
        std::fs::rename(&new, &pair.key_file).unwrap();
        assert_eq!(looks(&mut files, &pair), [true]);

        std::fs::remove_file(&pair.key_file).unwrap();
        assert_eq!(looks(&mut files, &pair), [false]);
        write(&pair.key_file, &key);
        assert_eq!(looks(&mut files, &pair), [true]);
        assert!(files.look(&[]).is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
