//! Reading the settings: the compiled-in file, the operator's file over it, the environment last.
//!
//! Every error names where the value stands (file, line and key, or the variable) and what was
//! expected there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::keys::{distance, key_at, unknown_key};
use super::{Settings, secrets, validate};

/// The variables of the environment; a test hands in its own.
pub trait Variables {
    /// The value of the variable of that name.
    fn value(&self, name: &str) -> Option<String>;

    /// The names of all variables, to find those that are misspelt; may be left empty.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn value(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Where variables are looked up.
pub type Environment<'a> = &'a dyn Variables;

/// The settings that are in force, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The operator's file, where one was read.
    pub file: Option<PathBuf>,
    sources: BTreeMap<String, Source>,
}

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `conf/rebound.toml`, compiled in.
    Default,
    /// That line of the operator's file.
    File(PathBuf, usize),
    /// That variable.
    Environment(String),
}

/// Why the settings could not be read.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    File(PathBuf, std::io::Error),
    /// The file is not TOML, has an unknown key, or a value that does not fit.
    Setting {
        /// Where it stands.
        source: Source,
        /// Its dotted key; empty where the file itself is no TOML.
        key: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Loaded {
    /// Where the value of the setting with this dotted key came from.
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }

    /// Reads the secrets that the settings only say the place of.
    ///
    /// # Errors
    /// When a file, a systemd credential or a variable is not there or cannot be read.
    pub fn find_secrets(&mut self, environment: Environment<'_>) -> Result<(), ConfigError> {
        secrets::find(&mut self.settings, environment).map_err(|(key, problem)| {
            let source = source_of(&self.sources, &key).clone();
            ConfigError::Setting { source, key, problem }
        })
    }

    /// Every setting with its dotted key and value, in order; secrets do not show.
    pub fn values(&self) -> Vec<(String, String)> {
        let mut values = Vec::new();
        if let Ok(Value::Table(table)) = Value::try_from(&self.settings) {
            flatten("", &table, &mut |key, value| values.push((key, value.to_string())));
        }
        values
    }
}

/// Reads the settings: the defaults, the file at `path` over them, the environment over both.
///
/// # Errors
/// When the file cannot be read, is no TOML, has an unknown key or a value that does not fit.
pub fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
    load_over(&[], path, environment)
}

/// As `load`, with `base` between the defaults and the file: dotted keys and the values that an
/// environment variable would give them.
///
/// # Errors
/// As `load`.
pub fn load_over(
    base: &[(&str, String)],
    path: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Loaded, ConfigError> {
    let mut table = default_table();
    for (key, text) in base {
        set(&mut table, key, text).map_err(|problem| {
            let key = (*key).to_owned();
            ConfigError::Setting { source: Source::Default, key, problem }
        })?;
    }
    let known = known_keys(&table);
    let mut sources = BTreeMap::new();
    if let Some(path) = path {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File(path.to_owned(), error))?;
        let document = DeTable::parse(&text).map_err(|error| no_toml(path, &text, &error))?;
        note_lines(path, &text, "", document.get_ref(), &known, &mut sources)?;
        let own: Table = toml::from_str(&text).map_err(|error| no_toml(path, &text, &error))?;
        lay_over(&mut table, own);
    }
    overlay_environment(&mut table, environment, &mut sources)?;
    let settings: Settings = serde_path_to_error::deserialize(Value::Table(table))
        .map_err(|error| does_not_fit(&error, &sources))?;
    finish(settings, path, environment, sources)
}

/// The settings as they are compiled in, for tests: nothing of the environment is looked at.
pub fn defaults() -> Settings {
    let nothing = |_: &str| None::<String>;
    match load(None, &nothing) {
        Ok(loaded) => loaded.settings,
        Err(error) => unreachable!("the compiled-in settings are good: {error}"),
    }
}

fn finish(
    mut settings: Settings,
    path: Option<&Path>,
    environment: Environment<'_>,
    sources: BTreeMap<String, Source>,
) -> Result<Loaded, ConfigError> {
    let wrong = |(key, problem): (String, String)| ConfigError::Setting {
        source: source_of(&sources, &key).clone(),
        key,
        problem,
    };
    validate::complete(&mut settings, environment);
    validate::check(&settings).map_err(wrong)?;
    Ok(Loaded { settings, file: path.map(Path::to_owned), sources })
}

/// The compiled-in file. It parses: a test reads it.
fn default_table() -> Table {
    toml::from_str(DEFAULTS).unwrap_or_default()
}

/// Tables are merged key by key, everything else is replaced.
fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn known_keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    flatten("", table, &mut |key, _value| keys.push(key));
    keys
}

fn flatten(prefix: &str, table: &Table, each: &mut dyn FnMut(String, &Value)) {
    for (name, value) in table {
        let key = dotted(prefix, name);
        match value {
            Value::Table(inner) => flatten(&key, inner, each),
            value => each(key, value),
        }
    }
}

pub(super) fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Records the line of every key of the operator's file, and refuses keys that do not exist.
fn note_lines(
    path: &Path,
    text: &str,
    prefix: &str,
    table: &DeTable<'_>,
    known: &[String],
    sources: &mut BTreeMap<String, Source>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = dotted(prefix, name.get_ref());
        let source = Source::File(path.to_owned(), line_of(text, name.span().start));
        let is_table = known.iter().any(|known| known.starts_with(&format!("{key}.")));
        if !is_table && !known.contains(&key) {
            return Err(ConfigError::Setting { source, problem: unknown_key(&key, known), key });
        }
        sources.insert(key.clone(), source);
        match value.get_ref() {
            DeValue::Table(inner) => note_lines(path, text, &key, inner, known, sources)?,
            DeValue::Array(items) => note_items(path, text, &key, items, sources),
            _ => {}
        }
    }
    Ok(())
}

/// Records the lines of the tables in an array; serde refuses their unknown keys.
fn note_items(
    path: &Path,
    text: &str,
    key: &str,
    items: &[Spanned<DeValue<'_>>],
    sources: &mut BTreeMap<String, Source>,
) {
    for (index, item) in items.iter().enumerate() {
        let at = |start| Source::File(path.to_owned(), line_of(text, start));
        let item_key = format!("{key}[{index}]");
        sources.insert(item_key.clone(), at(item.span().start));
        for (name, _value) in item.get_ref().as_table().into_iter().flatten() {
            sources.insert(dotted(&item_key, name.get_ref()), at(name.span().start));
        }
    }
}

/// Lays `REBOUND_<SECTION>_<KEY>` and the names known from container images over the table.
fn overlay_environment(
    table: &mut Table,
    environment: Environment<'_>,
    sources: &mut BTreeMap<String, Source>,
) -> Result<(), ConfigError> {
    let known = known_keys(table);
    refuse_misspelt(&known, environment)?;
    for key in known {
        let own = variable_of(&key);
        let alias = ALIASES.iter().find(|(_, known)| *known == key).map(|(alias, _)| *alias);
        let names = [Some(own.as_str()), alias];
        let found =
            names.into_iter().flatten().find_map(|name| Some((name, environment.value(name)?)));
        if let Some((name, text)) = found {
            let source = Source::Environment(name.to_owned());
            set(table, &key, &text).map_err(|problem| ConfigError::Setting {
                source: source.clone(),
                key: key.clone(),
                problem,
            })?;
            sources.insert(key, source);
        }
    }
    if let Some(domains) = environment.value(SENDER_DOMAINS) {
        limit_default_account(table, &domains);
        sources.insert("account".to_owned(), Source::Environment(SENDER_DOMAINS.to_owned()));
    }
    Ok(())
}

/// The variable that a setting with this dotted key can be given in.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// A variable that looks like a setting and is none would be a surprise later: one that names a
/// section, or almost a setting. Others with our prefix may belong to somebody else.
fn refuse_misspelt(known: &[String], environment: Environment<'_>) -> Result<(), ConfigError> {
    let names: Vec<String> = known.iter().map(|key| variable_of(key)).collect();
    let sections = known.iter().filter_map(|key| Some(variable_of(key.split_once('.')?.0) + "_"));
    let sections: BTreeSet<String> = sections.collect();
    for variable in environment.names() {
        if !variable.starts_with(PREFIX) || names.contains(&variable) {
            continue;
        }
        let nearest = names.iter().min_by_key(|name| distance(&variable, name));
        let nearest = nearest.map(String::as_str).unwrap_or_default();
        let in_section = sections.iter().any(|section| variable.starts_with(section));
        if in_section || distance(&variable, nearest) <= 2 {
            return Err(ConfigError::Setting {
                problem: format!("no setting has this variable; did you mean {nearest}?"),
                key: String::new(),
                source: Source::Environment(variable),
            });
        }
    }
    Ok(())
}

/// `ALLOWED_SENDER_DOMAINS=a.example b.example` holds for mail that does not authenticate.
fn limit_default_account(table: &mut Table, domains: &str) {
    let words = domains.split([' ', ',']).filter(|word| !word.is_empty());
    let senders: Vec<Value> = words.map(|domain| Value::String(format!("@{domain}"))).collect();
    let account = Table::from_iter([
        ("name".to_owned(), Value::String("default".to_owned())),
        ("allowed_senders".to_owned(), Value::Array(senders)),
    ]);
    if let Some(Value::Array(accounts)) = table.get_mut("account") {
        accounts.push(Value::Table(account));
    }
}

/// Gives the setting with this dotted key the value that `text` writes; an unknown key stays.
fn set(table: &mut Table, key: &str, text: &str) -> Result<(), String> {
    if let Some(current) = at_mut(table, key) {
        *current = from_text(text, current)?;
    }
    Ok(())
}

fn at_mut<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    let (name, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    match (table.get_mut(name)?, rest) {
        (Value::Table(inner), Some(rest)) => at_mut(inner, rest),
        (value, None) => Some(value),
        (_, Some(_)) => None,
    }
}

/// A variable's text as a value of the same type as the default.
fn from_text(text: &str, like: &Value) -> Result<Value, String> {
    let text = text.trim();
    match like {
        Value::Integer(_) => {
            text.parse().map(Value::Integer).map_err(|_e| format!("`{text}` is no whole number"))
        }
        Value::Boolean(_) => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_e| format!("`{text}` is neither `true` nor `false`")),
        Value::Array(_) if text.starts_with('[') => toml::from_str(&format!("x = {text}"))
            .ok()
            .and_then(|mut table: Table| table.remove("x"))
            .ok_or_else(|| format!("`{text}` is no list such as [\"a\", \"b\"]")),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn no_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or_default();
    let source = Source::File(path.to_owned(), line_of(text, span.start));
    let (key, problem) = match error.message() {
        DUPLICATE => (key_at(text, span), "it is given twice; take one of them away".to_owned()),
        said => (String::new(), said.to_owned()),
    };
    ConfigError::Setting { source, key, problem }
}

fn does_not_fit(
    error: &serde_path_to_error::Error<toml::de::Error>,
    sources: &BTreeMap<String, Source>,
) -> ConfigError {
    let path = error.path().to_string();
    let problem = in_plain_words(error.inner().message().trim());
    // An unknown key in a table of an array is named by the message, not by the path.
    let unknown = problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let key = match unknown {
        Some(name) if !path.ends_with(name) => dotted(&path, name),
        _ => path,
    };
    ConfigError::Setting { source: source_of(sources, &key).clone(), key, problem }
}

/// What the parsers of the standard library and serde say of a value, with what is wanted.
fn in_plain_words(said: &str) -> String {
    if said == "invalid socket address syntax" {
        return "expected an address with its port, such as 127.0.0.1:2525".to_owned();
    }
    match said.split_once(", expected ") {
        Some((found, "u16" | "u32" | "u64" | "usize")) => {
            format!("{found}, expected a whole number, 0 or more")
        }
        _ => said.to_owned(),
    }
}

/// The source of a key, or of the nearest table around it.
fn source_of<'a>(sources: &'a BTreeMap<String, Source>, key: &str) -> &'a Source {
    let mut key = key;
    loop {
        match (sources.get(key), key.rfind(['.', '['])) {
            (Some(source), _) => return source,
            (None, Some(end)) => key = key.get(..end).unwrap_or_default(),
            (None, None) => return &Source::Default,
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count().saturating_add(1)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "cannot read the configuration {}", path.display()),
            Self::Setting { source, key, problem } if key.is_empty() => {
                write!(f, "{source}: {problem}")
            }
            Self::Setting { source, key, problem } => write!(f, "{source}: `{key}`: {problem}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Setting { .. } => None,
        }
    }
}

/// `conf/rebound.toml`.
const DEFAULTS: &str = include_str!("../../conf/rebound.toml");

/// What the parser says of a key that comes again, without saying which it is.
const DUPLICATE: &str = "duplicate key";

/// Names that people know from container images of other relays.
const ALIASES: [(&str, &str); 4] = [
    ("RELAYHOST", "relay.host"),
    ("RELAYHOST_USERNAME", "relay.username"),
    ("RELAYHOST_PASSWORD", "relay.password"),
    ("RELAYHOST_PASSWORD_FILE", "relay.password_file"),
];

/// What the variables of settings begin with.
const PREFIX: &str = "REBOUND_";

const SENDER_DOMAINS: &str = "ALLOWED_SENDER_DOMAINS";

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let name = format!("rebound-config-{:016x}.toml", crate::secret::random_u64());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let loaded = load(Some(&path), &environment);
        let loaded = loaded.and_then(|mut loaded| {
            loaded.find_secrets(&environment)?;
            Ok(loaded)
        });
        std::fs::remove_file(&path).unwrap();
        loaded.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn the_compiled_in_settings_are_good_and_complete() {
        let settings = defaults();
        assert_eq!(settings.submission.listen, ["127.0.0.1:2525".parse().unwrap()]);
        assert_eq!(settings.queue.retry_after.len(), 7);
        assert!(!settings.hostname.is_empty());
        assert!(settings.return_path.key_file.ends_with("return_path.keys"));
    }

    #[test]
    fn a_file_is_laid_over_the_defaults_and_the_environment_over_both() {
        let text = "hostname = \"a.example\"\n[relay]\nhost = \"mx.example:25\"\ntls = \"none\"\n";
        let variables = [("REBOUND_HOSTNAME", "b.example"), ("RELAYHOST", "[mx2.example]:26")];
        let loaded = load_text(text, &variables).unwrap();
        assert_eq!(loaded.settings.hostname, "b.example");
        assert_eq!(loaded.settings.relay.endpoint(), Some(("mx2.example", 26)));
        assert_eq!(loaded.settings.relay.tls, super::super::RelayTls::None);
        assert_eq!(loaded.settings.relay.connections_max, 20);
        let from = Source::Environment("RELAYHOST".to_owned());
        assert_eq!(loaded.source("relay.host"), &from);
        assert!(matches!(loaded.source("relay.tls"), Source::File(_, 4)));
        assert_eq!(loaded.source("relay.username"), &Source::Default);
    }

    #[test]
    fn names_that_others_hear_are_in_a_labels() {
        let text =
            "hostname = \"relay.Müller.example\"\n[return_path]\ndomain = \"b.müller.example\"";
        let settings = load_text(text, &[]).unwrap().settings;
        assert_eq!(settings.hostname, "relay.xn--mller-kva.example");
        assert_eq!(settings.return_path.domain, "b.xn--mller-kva.example");
        assert_eq!(settings.postmaster, "postmaster@relay.xn--mller-kva.example");
    }

    #[test]
    fn variables_have_the_type_of_their_setting() {
        let variables = [
            ("REBOUND_SUBMISSION_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("REBOUND_SUBMISSION_RECIPIENTS_MAX", "7"),
            ("REBOUND_RELAY_TLS_VERIFY", "false"),
            ("REBOUND_QUEUE_RETRY_AFTER", "[\"1m\"]"),
            ("ALLOWED_SENDER_DOMAINS", "a.example b.example"),
        ];
        let settings = load_text("", &variables).unwrap().settings;
        assert_eq!(settings.submission.listen.len(), 2);
        assert_eq!(settings.submission.recipients_max, 7);
        assert!(!settings.relay.tls_verify);
        assert_eq!(settings.queue.retry_after.len(), 1);
        let senders = &settings.account("default").unwrap().allowed_senders;
        assert_eq!(senders, &["@a.example", "@b.example"]);
    }

    #[test]
    fn every_wrong_configuration_names_line_key_and_remedy() {
        for (text, want) in [
            (
                "hostnme = \"x\"",
                "FILE, line 1: `hostnme`: there is no such setting; did you mean `hostname`?",
            ),
            (
                "\n[relay]\nhots = \"x\"",
                "FILE, line 3: `relay.hots`: there is no such setting; did you mean `relay.host`?",
            ),
            (
                "[zzz]\nx = 1",
                "FILE, line 1: `zzz`: there is no such setting; `rebound config show --all` lists them",
            ),
            ("hostname = ", "FILE, line 1: "),
            (
                "[relay]\ntls = \"sometimes\"",
                "FILE, line 2: `relay.tls`: unknown variant `sometimes`, expected one of `auto`",
            ),
            (
                "[queue]\nlifetime = \"5\"",
                "FILE, line 2: `queue.lifetime`: `5` is no time such as 30s, 2m, 4h or 5d",
            ),
            (
                "[submission]\nlisten = [\"localhost\"]",
                "FILE, line 2: `submission.listen[0]`: expected an address with its port",
            ),
            ("[submission]\nrecipients_max = -1", "FILE, line 2: `submission.recipients_max`: "),
            (
                "[submission]\nrecipients_max = 0",
                "FILE, line 2: `submission.recipients_max`: must be at least 1",
            ),
            (
                "[return_path]\nmode = \"verp\"",
                "FILE, line 2: `return_path.mode`: `verp` needs return_path.domain",
            ),
            (
                "[relay]\nhost = \"mx:port\"",
                "FILE, line 2: `relay.host`: `mx:port` is none of name, name:port, [address]:port",
            ),
            (
                "[relay]\nusername = \"u\"",
                "FILE, line 2: `relay.username`: has no password; give relay.password_file",
            ),
            (
                "[relay]\npassword_file = \"/nonexistent\"",
                "FILE, line 2: `relay.password_file`: cannot read /nonexistent: ",
            ),
            (
                "[[account]]\nname = \"a\"\npassword_hash = \"secret\"",
                "FILE, line 3: `account[0].password_hash`: is no argon2 hash; make one with `rebound account hash`",
            ),
            (
                "[[account]]\nname = \"a\"\ncolour = 1",
                "FILE, line 3: `account[0].colour`: unknown field `colour`, expected one of `name`",
            ),
            (
                "[[account]]\nname = \"a\"\n[[account]]\nname = \"a\"",
                "FILE, line 4: `account[1].name`: the name `a` is taken",
            ),
            (
                "hostname = \"a b\"",
                "FILE, line 1: `hostname`: `a b` is no host name such as relay.example.com",
            ),
        ] {
            let error = load_text(text, &[]).unwrap_err();
            assert!(error.starts_with(want), "{text}\n got {error}\nwant {want}");
        }
        let error = load_text("", &[("REBOUND_RELAY_TLS_VERIFY", "perhaps")]).unwrap_err();
        let want = "environment variable REBOUND_RELAY_TLS_VERIFY: `relay.tls_verify`: `perhaps` is neither";
        assert!(error.starts_with(want), "{error}");
    }

    #[test]
    fn a_key_that_is_given_twice_is_named() {
        for (text, want) in [
            (
                "hostname = \"a\"\nhostname = \"b\"",
                "FILE, line 2: `hostname`: it is given twice; take one of them away",
            ),
            (
                "[relay]\nhost = \"a\"\n\n[queue]\nlifetime = \"5d\"\n  lifetime = \"4d\"",
                "FILE, line 6: `queue.lifetime`: it is given twice",
            ),
            (
                "[relay]\nhost = \"a\"\n[queue]\n[relay]\nport = 1",
                "FILE, line 4: `relay`: it is given twice",
            ),
        ] {
            let error = load_text(text, &[]).unwrap_err();
            assert!(error.starts_with(want), "{text}\n got {error}\nwant {want}");
        }
    }

    #[test]
    fn a_bad_verifier_names_line_key_and_remedy() {
        let key = "A".repeat(43) + "=";
        for (iterations, want) in [
            ("4096:", "is no verifier `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`"),
            ("4095:AAAA", "has 4095 iterations, which are not from 4096 to 1000000"),
        ] {
            let verifier = format!("SCRAM-SHA-256${iterations}${key}:{key}");
            let text = format!("[[account]]\nname = \"a\"\npassword_hash = \"{verifier}\"");
            let want = format!(
                "FILE, line 3: `account[0].password_hash`: {want}; \
                 make one with `rebound account hash --scram`"
            );
            assert_eq!(load_text(&text, &[]).unwrap_err(), want);
        }
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_others_are_left_alone() {
        struct Names(&'static str);
        impl Variables for Names {
            fn value(&self, _name: &str) -> Option<String> {
                None
            }

            fn names(&self) -> Vec<String> {
                vec![self.0.to_owned()]
            }
        }
        let error = load(None, &Names("REBOUND_RELAY_HOSST")).unwrap_err().to_string();
        assert!(error.ends_with("did you mean REBOUND_RELAY_HOST?"), "{error}");
        for name in ["REBOUND_RELAY_HOST", "REBOUND_CORPUS", "PATH"] {
            assert!(load(None, &Names(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_password_is_found_and_never_shown() {
        let text = "[relay]\nhost = \"h:1\"\nusername = \"u\"\npassword_env = \"SECRET\"\n";
        let loaded = load_text(text, &[("SECRET", "hunter2")]).unwrap();
        assert_eq!(loaded.settings.relay.password, "hunter2");
        assert!(loaded.values().iter().all(|(_, value)| !value.contains("hunter2")));
    }

    #[test]
    fn an_endpoint_is_read_in_every_form() {
        for (host, want) in [
            ("mx.example", Some(("mx.example", 587))),
            ("mx.example:25", Some(("mx.example", 25))),
            ("[2001:db8::1]:25", Some(("2001:db8::1", 25))),
            ("[2001:db8::1]", Some(("2001:db8::1", 587))),
            ("2001:db8::1", Some(("2001:db8::1", 587))),
            ("192.0.2.1", Some(("192.0.2.1", 587))),
            ("mx.example:x", None),
            ("[mx.example", None),
            ("", None),
        ] {
            let mut relay = defaults().relay;
            host.clone_into(&mut relay.host);
            assert_eq!(relay.endpoint(), want, "{host}");
        }
    }
}
