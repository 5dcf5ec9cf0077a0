//! What several tests of this folder need.

use std::fs;
use std::path::{Path, PathBuf};

use super::tokens::TokenFile;
use crate::secret::random_u64;

/// A directory that goes when the test ends.
pub(super) struct Dir(PathBuf);

impl Dir {
    /// A new one, empty.
    pub(super) fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("rebound-http-{:016x}", random_u64()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The tokens file in it, which is not there yet.
    pub(super) fn tokens(&self) -> TokenFile {
        TokenFile::new(self.0.join("tokens"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
