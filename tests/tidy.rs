//! The rules of the tree that a compiler does not hold: who may know whom, where each crate is
//! at home, how long a file is, how an RFC is cited, what the README must list.
//!
//! The tables below are the ones of `src/README.md`; change both together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of `src/` and the modules of ours that it may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("metrics", &[]),
    ("secret", &["mail"]),
    ("clock", &["mail"]),
    ("config", &["mail", "secret"]),
    ("maillog", &["mail"]),
    ("smtp", &["mail"]),
    ("bounce", &["mail"]),
    ("store", &["mail", "bounce", "clock", "metrics", "maillog"]),
    ("view", &["mail", "bounce", "store"]),
    ("net", &["mail", "config", "clock", "metrics"]),
    ("capture", &["mail", "bounce", "store", "clock", "maillog", "metrics", "secret"]),
    ("relay", &["mail", "config", "clock", "net", "secret", "metrics"]),
    (
        "queue",
        &[
            "mail", "bounce", "config", "clock", "store", "capture", "relay", "secret", "maillog",
            "metrics", "net",
        ],
    ),
    (
        "submission",
        &["mail", "smtp", "config", "clock", "store", "net", "secret", "maillog", "metrics"],
    ),
    (
        "inbound",
        &[
            "mail", "smtp", "config", "clock", "store", "capture", "net", "secret", "maillog",
            "metrics",
        ],
    ),
    (
        "imap",
        &[
            "mail", "bounce", "config", "clock", "store", "capture", "net", "secret", "maillog",
            "metrics",
        ],
    ),
    (
        "webhook",
        &["mail", "config", "clock", "store", "view", "net", "secret", "maillog", "metrics"],
    ),
    (
        "http",
        &[
            "mail",
            "bounce",
            "config",
            "clock",
            "store",
            "capture",
            "submission",
            "view",
            "webhook",
            "net",
            "secret",
            "maillog",
            "metrics",
        ],
    ),
];

/// Modules that may use everything.
const ROOF: &[&str] = &["cli", "dev", "daemon", "main", "lib"];

/// A crate, as it is written in a path, and the modules where it is at home.
const HOMES: &[(&str, &[&str])] = &[
    ("idna", &["mail"]),
    ("idna_adapter", &["mail"]),
    ("jiff", &["mail"]),
    ("data_encoding", &["mail", "secret"]),
    ("argon2", &["secret"]),
    ("getrandom", &["secret"]),
    ("hmac", &["secret"]),
    ("pbkdf2", &["secret"]),
    ("sha2", &["secret"]),
    ("subtle", &["secret"]),
    ("toml", &["config"]),
    ("serde_path_to_error", &["config"]),
    ("prometheus_client", &["metrics"]),
    ("tracing_subscriber", &["daemon"]),
    ("samotop_core", &["smtp"]),
    ("mail_parser", &["bounce", "view"]),
    ("blake3", &["store"]),
    ("crc32c", &["store"]),
    ("rmp_serde", &["store"]),
    ("rustix", &["store", "config"]),
    ("sled", &["store"]),
    ("listenfd", &["net"]),
    ("rustls_native_certs", &["net"]),
    ("tokio_rustls", &["net"]),
    ("mail_send", &["relay"]),
    // In relay, for its tests only, which are a file of their own.
    ("rcgen", &["dev", "relay"]),
    ("axum", &["http"]),
    ("mail_builder", &["http"]),
    ("hyper", &["http", "net", "webhook"]),
    ("hyper_util", &["http", "net"]),
    ("http_body_util", &["http", "net"]),
    ("maud", &["http"]),
    ("serde_json", &["http", "view", "imap", "cli", "dev"]),
    ("clap", &["main", "cli"]),
    ("sd_notify", &["daemon"]),
];

/// Modules that may not know a socket, a file or the clock.
const PURE: &[&str] = &["mail", "bounce"];

const FILE_LINES_MAX: usize = 700;

struct Source {
    module: String,
    path: PathBuf,
    /// Without the tests at the foot.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            let lines = text.lines().count();
            found.push(Source { module: module.to_owned(), path: path.to_owned(), code, lines });
        }
    });
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, each) } else { each(&path) }
    }
}

/// The names that stand right after `prefix` in the code, comments left out; names in braces too.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let code: Vec<&str> =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_word_before = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric());
        let rest = &code[at + prefix.len()..];
        if is_word_before {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let parts = list.split_inclusive([',', '{', '}', '\n']);
                let mut start_of_name = true;
                for part in parts {
                    if depth == 0 && start_of_name {
                        names.insert(word(part.trim_start()));
                    }
                    depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
                    start_of_name = part.ends_with([',', '\n', '}']);
                    if depth < 0 {
                        break;
                    }
                }
            }
            None => {
                names.insert(word(rest));
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn no_module_knows_one_above_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        if ROOF.contains(&source.module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == source.module) else {
            panic!("{}: the module has no row in LAYERS", source.path.display());
        };
        for name in names_after(&source.code, "crate::") {
            let known =
                LAYERS.iter().any(|(module, _)| *module == name) || ROOF.contains(&name.as_str());
            if known && name != source.module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_stays_at_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            let used = !names_after(&source.code, &format!("{name}::")).is_empty();
            if used && !homes.contains(&source.module.as_str()) {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_has_a_home() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let everywhere = ["serde", "tokio", "tracing"];
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        let name = name.replace('-', "_");
        let housed = HOMES.iter().any(|(home, _)| *home == name);
        assert!(housed || everywhere.contains(&name.as_str()), "{name} has no row in HOMES");
    }
}

#[test]
fn the_core_is_pure() {
    for source in sources().iter().filter(|source| PURE.contains(&source.module.as_str())) {
        for word in ["tokio::", "std::fs", "std::net::Tcp", "SystemTime", "Instant", "tracing::"] {
            let found = source.code.contains(word);
            assert!(!found, "{} uses {word}", source.path.display());
        }
    }
}

#[test]
fn every_file_has_a_head_and_fits() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        if !source.code.starts_with("//! ") && !source.code.starts_with("#![doc") {
            wrong.push(format!("{path} does not begin with `//!`"));
        }
        if source.lines > FILE_LINES_MAX {
            wrong.push(format!("{path} has {} lines; a seam is missing there", source.lines));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rfcs_are_cited_alike() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let glued = comment.match_indices("RFC").any(|(at, _)| {
                comment[at + 3..].starts_with(|c: char| c.is_ascii_digit() || c == '-')
            });
            let worded = comment.contains("RFC ")
                && (comment.contains(" section ") || comment.contains(" Section "));
            if glued || worded {
                let path = source.path.display();
                wrong.push(format!("{path}:{}: write `RFC 5321 §4.5.2`", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_lists_every_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let loaded = rebound::config::load(None, &|_: &str| None).unwrap();
    let missing: Vec<String> = loaded
        .values()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !readme.contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "README.md does not list {missing:?}");
}

#[test]
fn the_architecture_lists_every_limit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("src/README.md")).unwrap();
    let mut missing = Vec::new();
    for source in sources() {
        let constants =
            source.code.lines().filter_map(|line| line.split_once("const ")?.1.split_once(':'));
        for (name, _) in constants {
            let is_limit =
                name.contains("_MAX") || name.contains("TIMEOUT") || name.ends_with("_SECS");
            if is_limit && !readme.contains(&format!("`{name}`")) {
                missing.push(format!("{name} of {}", source.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "src/README.md does not list\n{}", missing.join("\n"));
}

#[test]
fn every_path_in_the_architecture_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("src/README.md")).unwrap();
    // These are directories of the store, not of the sources.
    let is_data = |path: &str| {
        ["spool/", "log/", "index/"].into_iter().any(|directory| path.starts_with(directory))
    };
    let quoted = readme.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let paths: BTreeSet<&str> = quoted
        .filter(|path| [".rs", ".txt", ".toml", "/"].iter().any(|end| path.ends_with(end)))
        .filter(|path| !path.contains(' ') && !is_data(path))
        .collect();
    assert!(paths.len() > 20, "the paths were not found");
    let missing: Vec<&str> = paths
        .into_iter()
        .filter(|path| !root.join("src").join(path).exists() && !root.join(path).exists())
        .collect();
    assert!(missing.is_empty(), "src/README.md names what is not there: {missing:?}");
}

#[test]
fn no_file_names_a_private_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for dir in ["src", "tests", "conf", "systemd", ".ci"] {
        walk(&root.join(dir), &mut |path| {
            let text = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&text);
            let itself = path.ends_with("tidy.rs");
            for place in ["/root/", "/home/"] {
                if text.contains(place) && !itself {
                    wrong.push(format!("{} names {place}", path.display()));
                }
            }
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
