//! `rebound account hash`: the hash that an account's `password_hash` is set to.

use std::io::{BufRead, IsTerminal, Read, Write};

use super::{chain, complain, exit, say};
use crate::secret::{ScramVerifier, hash_password};

/// Reads a password from standard input, asking where a person sits there, and prints its hash:
/// of argon2id, or the verifier of SCRAM-SHA-256.
pub fn hash(scram: bool) -> u8 {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let mut stderr = std::io::stderr().lock();
        let asked =
            write!(stderr, "Password (it shows as you type): ").and_then(|()| stderr.flush());
        drop(asked);
    }
    match password(&mut stdin.lock()).and_then(|password| {
        hashed(&password, scram).map_err(|problem| format!("cannot hash the password: {problem}"))
    }) {
        Ok(hash) => {
            say(hash);
            exit::OK
        }
        Err(problem) => {
            complain(problem);
            exit::DATA
        }
    }
}

fn hashed(password: &[u8], scram: bool) -> Result<String, String> {
    if scram {
        let verifier = ScramVerifier::of_password(password);
        verifier.map(|verifier| verifier.to_string()).map_err(|error| chain(&error))
    } else {
        hash_password(password).map_err(|error| error.to_string())
    }
}

/// The first line of `input` without its line ending.
fn password(input: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let limit = u64::try_from(PASSWORD_BYTES_MAX.saturating_add(2)).unwrap_or(u64::MAX);
    input
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot read the password: {}", chain(&error)))?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    match line.len() {
        0 => Err("the password is empty".to_owned()),
        1..=PASSWORD_BYTES_MAX => Ok(line),
        _ => Err(format!("the password is longer than {PASSWORD_BYTES_MAX} octets")),
    }
}

/// Octets of a password; AUTH PLAIN must fit it into one line (RFC 4616 §2).
const PASSWORD_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_and_nothing_of_its_ending() {
        let long = "x".repeat(PASSWORD_BYTES_MAX);
        let too_long = format!("{long}x");
        for (input, want) in [
            ("secret\n", Some("secret")),
            ("secret\r\n", Some("secret")),
            (" with spaces \nmore\n", Some(" with spaces ")),
            ("no newline", Some("no newline")),
            (long.as_str(), Some(long.as_str())),
            (too_long.as_str(), None),
            ("\n", None),
            ("", None),
        ] {
            let got = password(&mut input.as_bytes()).ok();
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{input:?}");
        }
    }
}
