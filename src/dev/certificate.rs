//! The certificate of `rebound dev`: for this host, signed by itself.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::Certificate;

/// The pair in this data directory; it is made where there is none, so that a client which was
/// told to trust it can go on doing so.
pub fn certificate(data_dir: &Path) -> io::Result<Certificate> {
    let (cert_file, key_file) = (data_dir.join(CERT_FILE), data_dir.join(KEY_FILE));
    if !(cert_file.exists() && key_file.exists()) {
        let names = NAMES.map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        fs::create_dir_all(data_dir)?;
        let mut key = fs::File::options();
        let mut key = key.write(true).create(true).truncate(true).mode(0o600).open(&key_file)?;
        key.write_all(made.signing_key.serialize_pem().as_bytes())?;
        fs::write(&cert_file, made.cert.pem())?;
    }
    Ok(Certificate { cert_file, key_file })
}

/// The name of the file, in the data directory.
pub(super) const CERT_FILE: &str = "dev-cert.pem";
const KEY_FILE: &str = "dev-key.pem";
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::ServerTls;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_pair_is_made_once_and_its_key_is_private() {
        let unique = crate::secret::random_u64();
        let dir = std::env::temp_dir().join(format!("rebound-dev-pair-{unique:016x}"));
        let pair = certificate(&dir).unwrap();
        ServerTls::load(std::slice::from_ref(&pair)).unwrap();
        let mode = fs::metadata(&pair.key_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(&pair.cert_file).unwrap();
        certificate(&dir).unwrap();
        assert_eq!(fs::read(&pair.cert_file).unwrap(), before);
        fs::remove_dir_all(&dir).unwrap();
    }
}
