//! `rebound mailbox check`: logs in to a mailbox and shows what would be read.

use std::path::Path;

use super::{chain, complain, exit, say};
use crate::clock::Clock;
use crate::config::{ConfigError, Environment, Mailbox, load};
use crate::imap::{self, Checked};
use crate::mail::header::sanitized;

/// Logs in to the mailbox of that name, looks at its folders and changes nothing.
pub fn check(name: &str, file: Option<&Path>, environment: Environment<'_>) -> u8 {
    let mailbox = match find(name, file, environment) {
        Ok(Some(mailbox)) => mailbox,
        Ok(None) => {
            complain(format!("no [[mailbox]] has the name `{name}`"));
            return exit::USAGE;
        }
        Err(error) => {
            complain(chain(&error));
            return exit::CONFIG;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("cannot start: {error}"));
            return exit::TRY_AGAIN;
        }
    };
    match runtime.block_on(imap::check(&mailbox, &Clock::system())) {
        Ok(checked) => {
            lines(&checked).iter().for_each(say);
            if checked.missing.is_empty() { exit::OK } else { exit::FAILED }
        }
        Err(error) => {
            complain(format!("mailbox {name}: {}", chain(&error)));
            exit::FAILED
        }
    }
}

/// The mailbox of that name, with its secrets.
pub(super) fn find(
    name: &str,
    file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Option<Mailbox>, ConfigError> {
    let mut loaded = load(file, environment)?;
    // Only this one's secrets are needed here.
    loaded.settings.mailbox.retain(|mailbox| mailbox.name == name);
    loaded.find_secrets(environment)?;
    Ok(loaded.settings.mailbox.pop())
}

fn lines(checked: &Checked) -> Vec<String> {
    let mut lines = vec![
        format!("logged in; the server offers {}", listed(&checked.extensions)),
        format!("folders: {}", sanitized(&checked.all_folders.join(", "))),
    ];
    for folder in &checked.folders {
        let name = sanitized(&folder.name);
        lines.push(format!(
            "{name}: {} mails, {} of them young enough to be read at first; of the newest, {} may \
             be reports",
            folder.mails,
            folder.recent,
            folder.candidates.len(),
        ));
        let subjects = folder.candidates.iter();
        lines.extend(subjects.map(|(uid, subject)| format!("    {uid}  {}", sanitized(subject))));
    }
    let missing = checked.missing.iter();
    lines.extend(missing.map(|name| format!("{}: there is no such folder", sanitized(name))));
    lines
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none of the extensions that help".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::FolderChecked;

    #[test]
    fn what_was_found_is_shown_without_what_could_harm_a_terminal() {
        let checked = Checked {
            extensions: vec!["IDLE", "MOVE"],
            all_folders: vec!["INBOX".to_owned(), "Junk".to_owned()],
            folders: vec![FolderChecked {
                name: "INBOX".to_owned(),
                mails: 7,
                recent: 3,
                candidates: vec![(5, "Undelivered\u{1b}[2J".to_owned())],
            }],
            missing: vec!["Bounces".to_owned()],
        };
        assert_eq!(
            lines(&checked),
            [
                "logged in; the server offers IDLE MOVE",
                "folders: INBOX, Junk",
                "INBOX: 7 mails, 3 of them young enough to be read at first; of the newest, 1 \
                 may be reports",
                "    5  Undelivered [2J",
                "Bounces: there is no such folder",
            ]
        );
    }
}
