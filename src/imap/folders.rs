//! Which folders of a mailbox are read: those that the settings name, as the server writes them.

use super::session::Listed;
use crate::mail::base64;

/// The folders that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folders {
    /// Their names on the server, in the order of the settings.
    pub(super) found: Vec<String>,
    /// Names of the settings that the server does not have; a special use may be missing.
    pub(super) missing: Vec<String>,
}

/// Finds the folders that the settings name.
pub(super) fn resolve(wanted: &[String], listed: &[Listed]) -> Folders {
    let mut folders = Folders::default();
    for name in wanted {
        let found = match name.strip_prefix('\\') {
            Some(_) => by_use(name, listed),
            None => by_name(name, listed),
        };
        match found {
            Some(found) if folders.found.contains(&found) => {}
            Some(found) => folders.found.push(found),
            None if name.starts_with('\\') => {}
            None => folders.missing.push(name.clone()),
        }
    }
    folders
}

/// The folder of a special use, such as `\Junk` (RFC 6154); of a server that does not tell uses,
/// the one whose name says so.
fn by_use(name: &str, listed: &[Listed]) -> Option<String> {
    let selectable = || listed.iter().filter(|folder| can_be_selected(folder));
    let named = selectable().find(|folder| folder.is(name)).map(|folder| folder.name.clone());
    if named.is_some() || !name.eq_ignore_ascii_case("\\Junk") {
        return named;
    }
    let is_junk = |folder: &&Listed| {
        let last = match folder.delimiter {
            Some(delimiter) => folder.name.rsplit(delimiter).next(),
            None => Some(folder.name.as_str()),
        };
        last.is_some_and(|last| JUNK_NAMES.iter().any(|junk| last.eq_ignore_ascii_case(junk)))
    };
    selectable().find(is_junk).map(|folder| folder.name.clone())
}

/// The folder of this name, as a person or as the server writes it.
fn by_name(name: &str, listed: &[Listed]) -> Option<String> {
    // INBOX is one folder in whatever case, and need not be listed (RFC 3501 §5.1).
    if name.eq_ignore_ascii_case("INBOX") {
        return Some("INBOX".to_owned());
    }
    let encoded = encode(name);
    let is_it = |folder: &&Listed| folder.name == name || folder.name == encoded;
    listed.iter().filter(|folder| can_be_selected(folder)).find(is_it).map(|f| f.name.clone())
}

fn can_be_selected(folder: &Listed) -> bool {
    !folder.is("\\Noselect") && !folder.is("\\NonExistent")
}

/// A name in modified UTF-7 (RFC 3501 §5.1.3).
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::new();
    let mut run: Vec<u8> = Vec::new();
    for c in name.chars() {
        if matches!(c, ' '..='~') {
            end_run(&mut run, &mut encoded);
            encoded.push(c);
            if c == '&' {
                encoded.push('-');
            }
        } else {
            let mut units = [0_u16; 2];
            run.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    end_run(&mut run, &mut encoded);
    encoded
}

fn end_run(run: &mut Vec<u8>, encoded: &mut String) {
    if !run.is_empty() {
        let text = base64::encode(run);
        encoded.push('&');
        encoded.push_str(&text.trim_end_matches('=').replace('/', ","));
        encoded.push('-');
        run.clear();
    }
}

/// A name of a server for people; what is not modified UTF-7 stays as it is.
pub(super) fn decode(name: &str) -> String {
    try_decode(name).unwrap_or_else(|| name.to_owned())
}

fn try_decode(name: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = name;
    while let Some((plain, tail)) = rest.split_once('&') {
        decoded.push_str(plain);
        let (run, tail) = tail.split_once('-')?;
        if run.is_empty() {
            decoded.push('&');
        } else {
            let padding = "=".repeat(run.len().wrapping_neg() % 4);
            let octets = base64::decode(format!("{}{padding}", run.replace(',', "/")).as_bytes())?;
            let units: Option<Vec<u16>> =
                octets.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes)).collect();
            decoded.push_str(&String::from_utf16(&units?).ok()?);
        }
        rest = tail;
    }
    decoded.push_str(rest);
    Some(decoded)
}

/// What servers that tell no special use call the folder for junk.
const JUNK_NAMES: &[&str] = &["Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"];

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, attributes: &[&str]) -> Listed {
        Listed {
            name: name.to_owned(),
            delimiter: Some('/'),
            attributes: attributes.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    #[test]
    fn folders_are_found_by_name_and_by_use() {
        let with_use =
            [listed("Spam", &[]), listed("Quarantaine", &["\\junk"]), listed("&AOk-t&AOk-", &[])];
        let without = [listed("Mail/junk e-mail", &[]), listed("Junk", &["\\Noselect"])];
        for (wanted, listed, found, missing) in [
            (&["inbox", "\\Junk"][..], &with_use[..], &["INBOX", "Quarantaine"][..], &[][..]),
            (&["INBOX", "\\Junk"], &without, &["INBOX", "Mail/junk e-mail"], &[]),
            (&["INBOX", "\\Junk", "\\Archive"], &[], &["INBOX"], &[]),
            (&["été", "Junk", "Inbox", "INBOX"], &with_use, &["&AOk-t&AOk-", "INBOX"], &["Junk"]),
            (&["Junk"], &without, &[], &["Junk"]),
        ] {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            let folders = resolve(&wanted, listed);
            assert_eq!(
                (&folders.found[..], &folders.missing[..]),
                (found_of(found).as_slice(), found_of(missing).as_slice())
            );
        }
    }

    fn found_of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_written_in_modified_utf_7_and_read_back() {
        // The first is the example of RFC 3501 §5.1.3.
        for (name, encoded) in [
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("INBOX", "INBOX"),
            ("A & B", "A &- B"),
            ("😀", "&2D3eAA-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded), name);
        }
        for odd in ["a&b", "&!!!-", "&AA-", "&2D0-"] {
            assert_eq!(decode(odd), odd);
        }
    }
}
