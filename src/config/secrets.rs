//! Where secrets are: in a file, a systemd credential or a variable of the environment.

use std::fs;
use std::path::{Path, PathBuf};

use super::load::Environment;
use super::validate::{Problem, problem};
use super::{Mailbox, Relay, Settings, Webhook, webhook};

/// The settings that say where one secret is, and the secret itself.
struct Place<'a> {
    /// The dotted key of the secret: those of its places begin with it.
    key: String,
    value: &'a mut String,
    file: &'a mut PathBuf,
    credential: &'a str,
    variable: &'a str,
}

/// Takes every secret from wherever the settings say it is.
pub(super) fn find(settings: &mut Settings, environment: Environment<'_>) -> Result<(), Problem> {
    of_relay(&mut settings.relay).find(environment)?;
    for (index, mailbox) in settings.mailbox.iter_mut().enumerate() {
        for place in of_mailbox(index, mailbox) {
            place.find(environment)?;
        }
    }
    for (index, webhook) in settings.webhook.iter_mut().enumerate() {
        of_webhook(index, webhook).find(environment)?;
    }
    webhook::check_secrets(&settings.webhook)
}

impl Settings {
    /// Whether a secret is a systemd credential, which only the service can read.
    pub fn names_credentials(&self) -> bool {
        let of_mailbox = |mailbox: &Mailbox| {
            let oauth2 = mailbox.oauth2.as_ref();
            !mailbox.password_credential.is_empty()
                || oauth2.is_some_and(|oauth2| !oauth2.client_secret_credential.is_empty())
        };
        !self.relay.password_credential.is_empty()
            || self.mailbox.iter().any(of_mailbox)
            || self.webhook.iter().any(|webhook| !webhook.secret_credential.is_empty())
    }
}

fn of_relay(relay: &mut Relay) -> Place<'_> {
    Place {
        key: "relay.password".to_owned(),
        value: &mut relay.password,
        file: &mut relay.password_file,
        credential: &relay.password_credential,
        variable: &relay.password_env,
    }
}

fn of_webhook(index: usize, webhook: &mut Webhook) -> Place<'_> {
    Place {
        key: format!("webhook[{index}].secret"),
        value: &mut webhook.secret,
        file: &mut webhook.secret_file,
        credential: &webhook.secret_credential,
        variable: &webhook.secret_env,
    }
}

fn of_mailbox(index: usize, mailbox: &mut Mailbox) -> Vec<Place<'_>> {
    let mut places = vec![Place {
        key: format!("mailbox[{index}].password"),
        value: &mut mailbox.password,
        file: &mut mailbox.password_file,
        credential: &mailbox.password_credential,
        variable: &mailbox.password_env,
    }];
    places.extend(mailbox.oauth2.as_mut().map(|oauth2| Place {
        key: format!("mailbox[{index}].oauth2.client_secret"),
        value: &mut oauth2.client_secret,
        file: &mut oauth2.client_secret_file,
        credential: &oauth2.client_secret_credential,
        variable: &oauth2.client_secret_env,
    }));
    places
}

impl Place<'_> {
    /// Puts the secret where it is used. A credential is a file, too, once its place is known.
    fn find(self, environment: Environment<'_>) -> Result<(), Problem> {
        let Self { key, value, file, credential, variable } = self;
        let mut from = format!("{key}_file");
        if file.as_os_str().is_empty() && !credential.is_empty() {
            from = format!("{key}_credential");
            let Some(dir) = environment.value("CREDENTIALS_DIRECTORY") else {
                let text = "there are no systemd credentials; add LoadCredential= to the unit";
                return problem(&from, text);
            };
            *file = Path::new(&dir).join(credential);
        }
        if !file.as_os_str().is_empty() {
            let read = read_secret(file);
            *value = read.or_else(|error| {
                problem(&from, &format!("cannot read {}: {error}", file.display()))
            })?;
        } else if !variable.is_empty() {
            let found = environment.value(variable);
            let text = format!("the environment has no variable `{variable}`");
            *value = found.map_or_else(|| problem(&format!("{key}_env"), &text), Ok)?;
        }
        Ok(())
    }
}

/// A secret in a file of its own, without the line ending that editors leave.
///
/// # Errors
/// When the file cannot be read.
pub fn read_secret(path: &Path) -> std::io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
}
