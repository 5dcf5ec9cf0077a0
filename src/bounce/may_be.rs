//! Whether a mail may be a report, told from its header and the types of its parts alone.

use super::arf;
use super::evidence::Evidence;
use super::mime;

/// Whether it is worth fetching the rest of a mail: everything that `read` finds to be news of a
/// delivery or a complaint passes, and much that is not.
///
/// `header` is the header block, or its start; `kinds` are the types of the parts as
/// `type/subtype`, in whatever case, and may be left empty where nobody knows them.
pub(super) fn may_be_report(header: &[u8], kinds: &[String]) -> bool {
    let mail = mime::parse(header);
    let is_known =
        |kind: &String| REPORT_KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known));
    let is_unknown = kinds.is_empty() && mail.kind.starts_with("multipart/");
    is_unknown
        || mail.kind == "multipart/report"
        || mail.report_type == "feedback-report"
        || is_known(&mail.kind)
        || kinds.iter().any(is_known)
        || arf::is_complaint_by_subject(&mail)
        || Evidence::of(&mail).may_be_report()
}

/// Types of parts that stand in reports and hardly anywhere else.
const REPORT_KINDS: &[&str] = &[
    "message/delivery-status",
    "message/global-delivery-status",
    "message/xdelivery-status",
    "text/delivery-status",
    "message/feedback-report",
];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::bounce::{Verdict, read};

    /// The mails of `tests/corpus/`, and of the external set where there is one.
    fn mails() -> Vec<PathBuf> {
        let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")];
        dirs.extend(std::env::var_os("REBOUND_CORPUS").map(PathBuf::from));
        let mut found = Vec::new();
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let is_mail = path.extension().is_none_or(|it| it != "json" && it != "jsonl");
                if path.is_dir() {
                    dirs.push(path)
                } else if is_mail {
                    found.push(path)
                }
            }
        }
        assert!(found.len() > 150, "{} mails", found.len());
        found
    }

    #[test]
    fn everything_that_is_read_as_a_report_is_fetched_and_not_every_mail_is() {
        let (mut fetched, mut others) = (0, 0);
        for path in mails() {
            let raw = std::fs::read(&path).unwrap();
            if !raw.contains(&b'\n') {
                continue;
            }
            let mail = mime::parse(&raw);
            let kinds: Vec<String> = mail.parts.iter().map(|part| part.kind.clone()).collect();
            let (header, _) = super::super::headers::split(&raw);
            let passes = may_be_report(header, &kinds);
            let verdict = read(&raw).verdict;
            if matches!(verdict, Verdict::Other | Verdict::Autoreply | Verdict::Mdn) {
                others += 1;
                fetched += usize::from(passes);
            } else {
                assert!(passes, "{} is {verdict:?} and would not be fetched", path.display());
                assert!(may_be_report(header, &[]) || !kinds.is_empty(), "{}", path.display());
            }
        }
        assert!(fetched < others, "{fetched} of {others} mails that are no reports are fetched");
    }

    #[test]
    fn ordinary_mail_is_left_where_it_is() {
        let plain = ["text/plain".to_owned(), "text/html".to_owned()];
        for (header, kinds, want) in [
            ("From: a@b\r\nSubject: Lunch\r\n", &plain[..], false),
            ("From: news@b\r\nSubject: Our offers\r\nList-Id: <x>\r\n", &plain, false),
            ("From: a@b\r\nSubject: Undelivered Mail Returned to Sender\r\n", &plain, true),
            ("From: MAILER-DAEMON@b\r\nSubject: x\r\n", &plain, true),
            ("From: a@b\r\nSubject: x\r\n", &["MESSAGE/Delivery-Status".to_owned()], true),
            ("Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n", &[], true),
            ("Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n", &plain, false),
            ("", &[], false),
        ] {
            assert_eq!(may_be_report(header.as_bytes(), kinds), want, "{header} {kinds:?}");
        }
    }
}
