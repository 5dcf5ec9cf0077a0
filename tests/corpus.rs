//! Reads the mails of `corpus/` and compares everything that is read with the `.json` beside each.
//!
//! They are written by us after the formats of real systems. With `REBOUND_CORPUS` an external
//! set of real mails is scored, too, and must reach the figures at the foot of this file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rebound::bounce::classify::classify_reply;
use rebound::bounce::{self, Parsed, Rules};
use serde_json::Value;

#[test]
fn every_mail_is_read_as_its_json_says() {
    let rules = Rules::compiled_in();
    let mut wrong = Vec::new();
    let mails = golden_mails();
    assert!(mails.len() >= 150, "only {} mails in tests/corpus", mails.len());
    for path in mails {
        let found = read(&fs::read(&path).unwrap(), &rules);
        let want = path.with_extension("json");
        let want: Value = serde_json::from_slice(&fs::read(&want).unwrap()).unwrap();
        if found != want {
            wrong.push(format!("{}:\n{}", path.display(), difference(&want, &found)));
        }
    }
    assert!(wrong.is_empty(), "{} mails are read otherwise\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_reply_means_the_category_it_stands_under() {
    let rules = Rules::compiled_in();
    let mut category = "";
    let mut read = 0;
    let mut wrong = Vec::new();
    for line in REPLIES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some(reply) = line.strip_prefix("    ") else {
            category = line;
            continue;
        };
        read += 1;
        let found = classify_reply(&rules, &reply.replace("\\n", "\n"));
        if found.category.as_str() != category {
            wrong.push(format!("{reply}: {} by {}, not {category}", found.category, found.rule));
        }
    }
    assert!(read >= 300, "only {read} replies in tests/corpus/replies.txt");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_cut_makes_a_recipient_that_does_not_stand_in_the_mail() {
    for path in golden_mails() {
        let mail = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&mail).to_lowercase();
        let is_coded =
            ["base64", "quoted-printable", "+2b", "\\x{"].iter().any(|c| text.contains(c));
        let step = (mail.len() / 40).max(1);
        for at in (0..=mail.len()).step_by(step) {
            for piece in [&mail[..at], &mail[at..]] {
                for recipient in bounce::read(piece).report.recipients {
                    let address = recipient.final_recipient.to_lowercase();
                    let stray = address.contains(['\r', '\n', '\0']);
                    assert!(!stray && address.len() <= 400, "{}: {address:?}", path.display());
                    let local = address.rsplit_once('@').map_or(address.as_str(), |(l, _)| l);
                    assert!(is_coded || text.contains(local), "{}: {address:?}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_line_ending_changes_nothing() {
    let rules = Rules::compiled_in();
    for path in golden_mails() {
        let mail = fs::read(&path).unwrap();
        // Where octets are mixed on purpose there is no line ending to change.
        if mail.contains(&b'\r') || path.to_string_lossy().contains("hostile") {
            continue;
        }
        let text = String::from_utf8_lossy(&mail);
        if text.len() != mail.len() {
            continue;
        }
        let with_crlf = text.replace('\n', "\r\n");
        assert_eq!(read(&mail, &rules), read(with_crlf.as_bytes(), &rules), "{}", path.display());
    }
}

#[test]
fn hostile_shapes_are_read_in_bounded_memory_and_time() {
    let head = "From: MAILER-DAEMON@x.example\nReturn-Path: <>\nSubject: failure notice\n";
    let report = "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\
                  Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n";
    let nested = (0..20_000)
        .map(|n| format!("--b{n}\nContent-Type: multipart/mixed; boundary=b{}\n\n", n + 1))
        .collect::<String>();
    let recipients = (0..100_000)
        .map(|n| {
            format!("Final-Recipient: rfc822; u{n}@x.example\nAction: failed\nStatus: 5.1.1\n\n")
        })
        .collect::<String>();
    for (shape, mail, kind, count) in [
        (
            "deep nesting",
            format!("{head}Content-Type: multipart/mixed; boundary=b0\n\n{nested}"),
            "other",
            0,
        ),
        ("headers", format!("{head}{}\n\nhello", "X-H: v\n".repeat(100_000)), "other", 0),
        (
            "recipients",
            format!("{head}{report}{recipients}--b--\n"),
            "bounce",
            bounce::RECIPIENTS_MAX,
        ),
        ("dots", format!("{head}\n{}", ".".repeat(1_000_000)), "other", 0),
        (
            "boundaries",
            format!(
                "{head}Content-Type: multipart/mixed; boundary=b\n\n{}",
                "--b\n".repeat(250_000)
            ),
            "other",
            0,
        ),
        ("at signs", format!("{head}\n{}", "@".repeat(1_000_000)), "other", 0),
        ("tags", format!("{head}Content-Type: text/html\n\n{}", "<p".repeat(500_000)), "other", 0),
        ("encoded words", format!("{head}To: {}\n\nhello", "=?".repeat(500_000)), "other", 0),
    ] {
        let parsed = Parsed::new(bounce::read(mail.as_bytes()), &Rules::compiled_in());
        assert_eq!((parsed.kind, parsed.recipients.len()), (kind, count), "{shape}");
    }
}

#[test]
fn the_external_corpus_is_read_as_well_as_promised() {
    let Some(dir) = std::env::var_os("REBOUND_CORPUS").map(PathBuf::from) else { return };
    let rules = Rules::compiled_in();
    let rows = fs::read_to_string(dir.join("gold.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut score = Score::default();
    let mut bait_alarms = Vec::new();
    let mut several = (0, 0);
    for row in unique(&rows) {
        let file = text(&row["file"]);
        let mail = fs::read(dir.join("mail").join(file)).unwrap();
        let found = read(&mail, &rules);
        score.add(row, &found);
        let is_bounce = matches!(text(&row["kind"]), "bounce" | "delayed");
        if text(&row["source"]) == "bait" && found["is_bounce"] == true && !is_bounce {
            bait_alarms.push(file.to_owned());
        }
        let wanted = list(&row["recipients"]);
        if is_bounce && wanted.len() > 1 {
            several.0 += wanted.len();
            several.1 += matches(&failing(wanted), &failing(list(&found["recipients"]))).len();
        }
    }
    println!("{score:#?}\nin mails with several recipients: {several:?}");
    assert!(bait_alarms.is_empty(), "{bait_alarms:?}");
    let short = score.shortfalls();
    assert!(short.is_empty(), "{}", short.join("\n"));
}

#[test]
fn the_external_replies_are_classified_as_well_as_promised() {
    let Some(dir) = std::env::var_os("REBOUND_CORPUS").map(PathBuf::from) else { return };
    let rules = Rules::compiled_in();
    let rows = fs::read_to_string(dir.join("replies.jsonl")).unwrap();
    let mut right = Share::default();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        // Some rows have a label of their source and no meaning that all sources share.
        let meaning = text(&row["category"]);
        if meaning.is_empty() {
            continue;
        }
        let also = neutral(&text(&row["label"]).to_lowercase()).unwrap_or_default();
        let found = classify_reply(&rules, text(&row["text"])).category;
        let found = neutral(found.as_str()).unwrap_or_default();
        right.add(found.iter().any(|found| *found == meaning || also.contains(found)));
    }
    println!("replies that mean what their label says: {right:?}");
    assert!(right.reaches(940), "{right:?}");
}

#[cfg(test)]
fn golden_mails() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut found = BTreeSet::new();
    for kind in ["dsn", "freeform", "arf", "not-a-bounce", "hostile"] {
        for entry in fs::read_dir(root.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "eml") {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
fn read(mail: &[u8], rules: &Rules) -> Value {
    serde_json::to_value(Parsed::new(bounce::read(mail), rules)).unwrap()
}

/// The lines that only one of the two has.
#[cfg(test)]
fn difference(want: &Value, found: &Value) -> String {
    let lines = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let (want, found) = (lines(want), lines(found));
    let wanted: HashSet<&str> = want.lines().collect();
    let had: HashSet<&str> = found.lines().collect();
    let missing = want.lines().filter(|line| !had.contains(line)).map(|line| format!("- {line}"));
    let extra = found.lines().filter(|line| !wanted.contains(line)).map(|line| format!("+ {line}"));
    missing.chain(extra).collect::<Vec<_>>().join("\n")
}

/// A share: how many of how many.
#[derive(Clone, Copy, Debug, Default)]
struct Share(usize, usize);

impl Share {
    fn add(&mut self, right: bool) {
        self.0 += usize::from(right);
        self.1 += 1;
    }

    fn reaches(self, permille: usize) -> bool {
        self.0 * 1000 >= self.1 * permille
    }
}

/// What the scoring of the external corpus counts; every share is of unique mails.
#[derive(Debug, Default)]
struct Score {
    mails: usize,
    found_are_bounces: Share,
    bounces_are_found: Share,
    delays_are_found: Share,
    named_are_recipients: Share,
    recipients_are_named: Share,
    status: Share,
    action: Share,
    category: Share,
    message_id: Share,
    message_ids_wrong: usize,
    false_alarms: Vec<String>,
}

impl Score {
    fn add(&mut self, row: &Value, found: &Value) {
        self.mails += 1;
        let kind = text(&row["kind"]);
        let is_bounce = found["is_bounce"] == true;
        match kind {
            "bounce" => {
                self.bounces_are_found.add(is_bounce);
                if is_bounce {
                    self.found_are_bounces.add(true);
                }
            }
            "delayed" => self.delays_are_found.add(is_bounce),
            _ if is_bounce => {
                self.found_are_bounces.add(false);
                self.false_alarms.push(text(&row["file"]).to_owned());
            }
            _ => {}
        }
        if !matches!(kind, "bounce" | "delayed") {
            return;
        }
        let wanted = failing(list(&row["recipients"]));
        if wanted.iter().any(|r| text(&r["address"]).contains('@')) {
            let named = if is_bounce { failing(list(&found["recipients"])) } else { Vec::new() };
            self.recipients(row, &wanted, &named);
        }
        let original = id(&row["original_message_id"]);
        if !original.is_empty() {
            let also = list(&row["mid_alt"])
                .iter()
                .map(id)
                .any(|alternative| is_bounce && alternative == id(&found["original_message_id"]));
            let got = if is_bounce { id(&found["original_message_id"]) } else { String::new() };
            let right = got == original || also;
            self.message_id.add(right);
            self.message_ids_wrong += usize::from(!right && !got.is_empty());
        }
    }

    fn recipients(&mut self, row: &Value, wanted: &[&Value], named: &[&Value]) {
        let wanted: Vec<&Value> =
            wanted.iter().copied().filter(|r| text(&r["address"]).contains('@')).collect();
        let pairs = matches(&wanted, named);
        self.recipients_are_named.0 += pairs.len();
        self.recipients_are_named.1 += wanted.len();
        self.named_are_recipients.0 += pairs.len();
        self.named_are_recipients.1 += named.len();
        for (want, got) in pairs {
            let is_literal = want["status_literal"] == true || want["src"] == "dsn-fields";
            if !text(&want["status"]).is_empty() && is_literal {
                let got = &got["status"];
                let is_field = !want["status_field"].is_null() && want["status_field"] == *got;
                let is_also = list(&want["status_alt"]).contains(got);
                self.status.add(want["status"] == *got || is_field || is_also);
            }
            let action = text(&want["action"]);
            let is_word =
                ["failed", "delayed", "delivered", "relayed", "expanded"].contains(&action);
            if is_word && want["action_src"].is_null() {
                self.action.add(text(&got["action"]) == action);
            }
            let disagree =
                list(&row["uncertain"]).iter().any(|u| text(u).contains("tables disagree"));
            let reason = text(&want["reason"]).to_lowercase();
            if let Some(accepted) = neutral(&reason).filter(|_| !disagree) {
                let got = neutral(text(&got["category"])).unwrap_or_default();
                self.category.add(accepted.iter().any(|category| got.contains(category)));
            }
        }
    }

    /// What is not reached.
    fn shortfalls(&self) -> Vec<String> {
        let mut short = Vec::new();
        for (name, share, permille) in [
            ("detection precision", self.found_are_bounces, 998),
            ("detection recall", self.bounces_are_found, 990),
            ("delays", self.delays_are_found, 980),
            ("recipient precision", self.named_are_recipients, 995),
            ("recipient recall", self.recipients_are_named, 985),
            ("exact status", self.status, 985),
            ("action", self.action, 980),
            ("category", self.category, 950),
            ("Message-ID", self.message_id, 985),
        ] {
            if !share.reaches(permille) {
                short.push(format!(
                    "{name}: {} of {}, {permille} permille wanted",
                    share.0, share.1
                ));
            }
        }
        if self.message_ids_wrong > 0 {
            short.push(format!("{} Message-IDs are wrong", self.message_ids_wrong));
        }
        if self.false_alarms.len() > 1 {
            short.push(format!("false alarms: {:?}", self.false_alarms));
        }
        short
    }
}

/// The rows that count: each mail once, the best known source first.
fn unique(rows: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = rows.iter().collect();
    sorted.sort_by_key(|row| match text(&row["source"]) {
        "sisimai" => 0,
        "flufl" | "bounceparser" | "emailengine" => 1,
        _ => 5,
    });
    let mut seen = HashSet::new();
    sorted.retain(|row| seen.insert(text(&row["norm"])));
    sorted.retain(|row| {
        row["excluded"] != true && !matches!(text(&row["source"]), "sisimai-mac" | "crisp")
    });
    sorted
}

/// The recipients that something went wrong for, each address once.
fn failing(recipients: &[Value]) -> Vec<&Value> {
    let mut seen = HashSet::new();
    recipients
        .iter()
        .filter(|r| {
            !matches!(text(&r["action"]), "delivered" | "relayed" | "expanded" | "deliverable")
        })
        .filter(|r| !text(&r["address"]).is_empty())
        .filter(|r| r.get("alt").is_some() || seen.insert(text(&r["address"]).to_lowercase()))
        .collect()
}

/// Which wanted recipient is which named one; every form of an address counts.
fn matches<'a>(wanted: &[&'a Value], named: &[&'a Value]) -> Vec<(&'a Value, &'a Value)> {
    let mut used = HashSet::new();
    let mut pairs = Vec::new();
    for &want in wanted {
        let same = |got: &Value| {
            let got = text(&got["address"]).to_lowercase();
            let got = got.trim_matches(['<', '>']);
            got == text(&want["address"]).to_lowercase().trim_matches(['<', '>'])
                || list(&want["alt"]).iter().any(|form| text(form) == got)
        };
        let mut free = named.iter().enumerate().filter(|(at, _)| !used.contains(at));
        if let Some((at, got)) = free.find(|(_, got)| same(got)) {
            used.insert(at);
            pairs.push((want, *got));
        }
    }
    pairs
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn id(value: &Value) -> String {
    let text = text(value);
    let inner = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(id, _)| id);
    inner.unwrap_or(text).trim().trim_matches(['<', '>']).to_lowercase()
}

/// What a label of ours or of the corpus means, in words that all of them share; more than one
/// where the corpus says that its label is ambiguous.
fn neutral(label: &str) -> Option<&'static [&'static str]> {
    static MEANINGS: std::sync::LazyLock<HashMap<&str, &[&str]>> =
        std::sync::LazyLock::new(|| NEUTRAL.iter().copied().collect());
    MEANINGS.get(label).copied()
}

const REPLIES: &str = include_str!("corpus/replies.txt");
const NEUTRAL: &[(&str, &[&str])] = &[
    ("userunknown", &["recipient_unknown"]),
    ("hasmoved", &["recipient_unknown", "recipient_disabled"]),
    ("suspend", &["recipient_disabled"]),
    ("suppressed", &["recipient_disabled"]),
    ("hostunknown", &["domain_unknown", "infra"]),
    ("notaccept", &["domain_unknown", "infra", "policy"]),
    ("mailboxfull", &["mailbox_full"]),
    ("mesgtoobig", &["too_large"]),
    ("exceedlimit", &["too_large", "mailbox_full"]),
    ("spamdetected", &["content"]),
    ("virusdetected", &["content"]),
    ("contenterror", &["content", "policy"]),
    ("blocked", &["reputation", "policy"]),
    ("badreputation", &["reputation", "policy", "content"]),
    ("requireptr", &["reputation"]),
    ("authfailure", &["auth"]),
    ("policyviolation", &["policy", "content", "reputation"]),
    ("rejected", &["policy", "reputation", "auth"]),
    ("filtered", &["policy", "recipient_unknown"]),
    ("norelaying", &["policy", "auth"]),
    ("notcompliantrfc", &["policy", "content", "auth"]),
    ("securityerror", &["policy", "auth", "content"]),
    ("syntaxerror", &["infra"]),
    ("speeding", &["rate_limit"]),
    ("toomanyconn", &["rate_limit", "reputation"]),
    ("systemerror", &["infra"]),
    ("systemfull", &["infra", "mailbox_full"]),
    ("mailererror", &["infra"]),
    ("networkerror", &["infra"]),
    ("expired", &["infra"]),
    ("failedstarttls", &["infra"]),
    ("user_disabled", &["recipient_disabled"]),
    ("over_quota", &["mailbox_full"]),
    ("domain_error", &["domain_unknown", "policy", "infra"]),
    ("spam", &["content"]),
    ("denied", &["policy"]),
    ("syntax_error", &["infra"]),
    ("failed", &["unknown"]),
    ("transient", &["infra"]),
    ("user_unknown", &["recipient_unknown"]),
    ("invalid_address", &["recipient_unknown"]),
    ("mailbox_disabled", &["recipient_disabled"]),
    ("mailbox_full", &["mailbox_full"]),
    ("spam_blocked", &["content"]),
    ("virus_detected", &["content"]),
    ("ip_blacklisted", &["reputation"]),
    ("domain_blacklisted", &["reputation"]),
    ("geo_blocked", &["reputation"]),
    ("auth_failure", &["auth"]),
    ("policy_blocked", &["policy"]),
    ("relay_denied", &["policy"]),
    ("rate_limited", &["rate_limit"]),
    ("greylisting", &["rate_limit"]),
    ("server_error", &["infra"]),
    ("unknown", &["unknown"]),
    ("domain_not_found", &["domain_unknown"]),
    ("delivery_expired", &["infra"]),
    ("message_too_large", &["too_large"]),
    ("protocol_error", &["infra"]),
    ("loop_detected", &["infra"]),
];
