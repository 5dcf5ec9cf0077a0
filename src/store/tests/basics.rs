//! What callers see of a store that runs, and of one that was opened again.

use super::*;
use crate::store::Missing;
use crate::store::record::NoticeSent;
use crate::store::state::State;

/// How a store is left before it is opened again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaving {
    Running,
    Indexed,
    Crashed,
    Closed,
}

pub(super) const LEAVINGS: [Leaving; 4] =
    [Leaving::Running, Leaving::Indexed, Leaving::Crashed, Leaving::Closed];

/// The store after it was left this way.
pub(super) async fn left(dir: &TempDir, store: Store, how: Leaving) -> Store {
    match how {
        Leaving::Running => store,
        Leaving::Indexed => {
            until("indexed", || store.stats().backlog_bytes == 0).await;
            store
        }
        Leaving::Crashed => {
            drop(store);
            open(dir)
        }
        Leaving::Closed => {
            store.close().await;
            drop(store);
            open(dir)
        }
    }
}

#[tokio::test]
async fn none_but_the_owner_may_look_into_the_directories() {
    use std::os::unix::fs::PermissionsExt;
    let outer = TempDir::new();
    let dir = outer.path().join("data");
    let options = Options { dir: dir.clone(), ..outer.options() };
    let store = Store::open(&options, clock()).unwrap();
    for name in ["", "spool", "spool/big", "log", "index"] {
        let mode = std::fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_due_and_known_until_it_ends_and_known_afterwards() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let id = accepted(&store, &["a@b.test", "c@d.test"], b"Subject: a\r\n\r\nhello\r\n").await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.due(START, 10, &|_id| false), [id], "{how:?}");
        assert_eq!(store.next_due(&|_id| false), Some(START), "{how:?}");
        assert_eq!(read_body(&store, id).await.unwrap(), b"Subject: a\r\n\r\nhello\r\n", "{how:?}");
        let record = store.message(id).unwrap().unwrap();
        assert_eq!(record.submission, submission(id, &["a@b.test", "c@d.test"]), "{how:?}");
        let message_id = record.submission.message_id;
        assert_eq!(store.by_message_id(&message_id).unwrap(), [id], "{how:?}");

        let later = START.plus(DAY);
        let first =
            vec![attempt(id, 0, 1, Decision::Relayed), attempt(id, 1, 1, Decision::RetryAt(later))];
        committed(&store, attempts(first.clone())).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.due(START, 10, &|_id| false), [], "{how:?}");
        assert_eq!(store.next_due(&|_id| false), Some(later), "{how:?}");
        let live = store.live(id).unwrap();
        let states: Vec<_> = live.recipients.iter().map(|to| (to.state, to.attempts)).collect();
        assert_eq!(states, [(State::Relayed, 1), (State::Deferred, 1)], "{how:?}");
        assert_eq!(store.message(id).unwrap().unwrap().attempts, first, "{how:?}");
        let account = record.submission.account;
        for account in [Some(account.as_str()), None] {
            assert_eq!(store.sent_count(account).unwrap(), 1, "{how:?} {account:?}");
        }

        let mut last = attempt(id, 1, 2, Decision::Failed);
        last.notice_owed = true;
        committed(&store, attempts(vec![last.clone()])).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.due(START, 10, &|_id| false), [id], "{how:?}: a notice is owed");

        let notice = store.new_queue_id();
        let mut sent = submission(notice, &["app@app.test"]);
        sent.origin = Origin::Notice;
        let settled = NoticeSent::Failure { queue_id: id, recipients: vec![1] };
        let batch = Batch {
            notices: vec![settled],
            submissions: vec![(sent, b"Subject: failed\r\n\r\n".to_vec())],
            ..Batch::default()
        };
        committed(&store, batch).await;
        let store = left(&dir, store, how).await;
        assert!(store.live(id).is_none(), "{how:?}");
        assert!(read_body(&store, id).await.is_err(), "{how:?}");
        assert_eq!(store.due(START.plus(DAY), 10, &|_id| false), [notice], "{how:?}");
        assert_eq!(read_body(&store, notice).await.unwrap(), b"Subject: failed\r\n\r\n");
        let record = store.message(id).unwrap().unwrap();
        assert_eq!(record.attempts.last(), Some(&last), "{how:?}");
        assert_eq!(record.attempts.len(), 3, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_is_kept_once_and_found_by_message_recipient_and_time() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let id = accepted(&store, &["to@example.test"], b"x").await;
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
        let first = bounce(Some(id), 1, START);
        let second = bounce(Some(id), 2, START.plus(DAY));
        for bounces in [vec![first.clone(), first.clone()], vec![first.clone(), second.clone()]] {
            committed(&store, Batch { bounces, ..Batch::default() }).await;
        }
        let store = left(&dir, store, how).await;
        committed(&store, Batch { bounces: vec![first.clone()], ..Batch::default() }).await;
        let both = [second.clone(), first.clone()];
        assert_eq!(store.message(id).unwrap().unwrap().bounces, [first.clone(), second.clone()]);
        assert_eq!(store.by_recipient("to@EXAMPLE.test", None, 10).unwrap(), both, "{how:?}");
        assert_eq!(store.by_recipient("to@example.test", None, 1).unwrap(), both[..1], "{how:?}");
        let older = store.by_recipient("to@example.test", Some(&second.id), 10).unwrap();
        assert_eq!(older, both[1..], "{how:?}");
        assert_eq!(store.by_recipient("other@example.test", None, 10).unwrap(), [], "{how:?}");
        assert_eq!(store.recent_bounces(None, 10).unwrap(), both, "{how:?}");
        assert_eq!(store.recent_bounces(Some(&second.id), 10).unwrap(), both[1..], "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_found_by_what_next_hops_call_it_and_by_whom_it_was_for() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let (one, two) = (accepted(&store, &["To@B.test"], b"x").await, store.new_queue_id());
        let body = body(&store, two, b"y").await;
        let mut other = submission(two, &["to@b.test", "c@d.test"]);
        other.account = "other".to_owned();
        store.accept(other, body).unwrap().synced().await.unwrap();
        let mut notice = submission(store.new_queue_id(), &["to@b.test"]);
        notice.origin = Origin::Notice;
        let batch = Batch { submissions: vec![(notice, b"n".to_vec())], ..Batch::default() };
        committed(&store, batch).await;
        let alias = |text| MessageId::parse(text).unwrap();
        let named = |queue_id, recipient, decision| Attempt {
            alias: Some(alias("0102@eu-west-1.amazonses.com")),
            remote_queue_id: Some("4AB".to_owned()),
            ..attempt(queue_id, recipient, 1, decision)
        };
        let refused = Attempt {
            alias: Some(alias("refused@x")),
            remote_queue_id: Some("4AC".to_owned()),
            ..named(two, 1, Decision::RetryAt(START))
        };
        let took = [named(one, 0, Decision::Relayed), named(two, 0, Decision::Relayed)];
        committed(&store, attempts(vec![took[0].clone(), took[1].clone(), refused])).await;
        let store = left(&dir, store, how).await;

        let alias_of = |text| store.by_alias(&alias(text)).unwrap();
        assert_eq!(alias_of("0102@eu-west-1.amazonses.com"), [two, one], "{how:?}");
        assert_eq!(alias_of("0102@EU-west-1.amazonses.com"), [], "{how:?}");
        assert_eq!(alias_of("refused@x"), [], "{how:?}");
        assert_eq!(store.by_message_id(&alias("0102@eu-west-1.amazonses.com")).unwrap(), []);
        let remote = |id, since| store.by_remote_queue_id(id, since).unwrap();
        assert_eq!(remote("4AB", START), [took[1].clone(), took[0].clone()], "{how:?}");
        assert_eq!(remote("4AB", START.plus(DAY)), [], "{how:?}");
        assert_eq!(remote("4AC", START), [], "{how:?}");
        assert_eq!(remote("4ab", START), [], "{how:?}");
        let sent = |address, since, max| {
            let records = store.sent_to(address, since, max).unwrap();
            records.iter().map(|record| record.submission.queue_id).collect::<Vec<_>>()
        };
        assert_eq!(sent("to@b.test", START, 9), [two, one], "{how:?}: no notice");
        assert_eq!(sent("to@b.test", START, 1), [two], "{how:?}");
        assert_eq!(sent("c@d.test", START, 9), [two], "{how:?}");
        assert_eq!(sent("to@b.test", START.plus(DAY), 9), [], "{how:?}");
        assert_eq!(sent("x@d.test", START, 9), [], "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_report_ends_a_waiting_recipient() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = accepted(&store, &["to@example.test"], b"x").await;
    let mut low = bounce(Some(id), 1, START);
    low.report_id = Some(ReportId(store.new_queue_id()));
    low.matched = Some(Match::new(MatchMethod::MessageId, Confidence::Low));
    committed(&store, Batch { bounces: vec![low.clone()], ..Batch::default() }).await;
    assert!(store.live(id).is_some(), "a match of low confidence changes nothing");
    let other = accepted(&store, &["to@example.test"], b"x").await;
    let mut wanted = bounce(Some(other), 3, START);
    wanted.report_id = low.report_id;
    wanted.matched = low.matched.map(|found| Match { changes_state: true, ..found });
    committed(&store, Batch { bounces: vec![wanted], ..Batch::default() }).await;
    assert!(store.live(other).is_none(), "unless the operator wants it");
    let mut sure = bounce(Some(id), 2, START);
    sure.report_id = low.report_id;
    committed(&store, Batch { bounces: vec![sure], ..Batch::default() }).await;
    assert!(store.live(id).is_none());
    drop(store);
    assert_eq!(open(&dir).queue_len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_waits_until_captured_and_is_found_by_digest() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let (a, b) = (store.new_queue_id(), store.new_queue_id());
        for (id, digest) in [(a, 1), (b, 2)] {
            store.accept_report(report(id, digest)).unwrap().synced().await.unwrap();
        }
        let (a, b) = (ReportId(a), ReportId(b));
        let store = left(&dir, store, how).await;
        assert_eq!(store.uncaptured_reports(10), [a, b], "{how:?}");
        assert_eq!(store.uncaptured_reports(1), [a], "{how:?}");
        assert_eq!(store.report_by_digest(&[1; 16]).unwrap(), None, "{how:?}: not captured yet");
        assert_eq!(store.report(a).unwrap().unwrap().captured, None, "{how:?}");

        let mut of_report = bounce(None, 3, START);
        of_report.report_id = Some(a);
        let mut captured = mark(a, Some("app@app.test"));
        captured.bounced_accounts = ["shop".to_owned(), "blog".to_owned()].into();
        let batch = Batch {
            bounces: vec![of_report.clone()],
            report: Some(captured.clone()),
            ..Batch::default()
        };
        committed(&store, batch).await;
        committed(&store, Batch { report: Some(mark(b, None)), ..Batch::default() }).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.uncaptured_reports(10), [], "{how:?}");
        assert_eq!(store.report_by_digest(&[1; 16]).unwrap(), Some(a), "{how:?}");
        assert_eq!(store.report_by_digest(&[9; 16]).unwrap(), None, "{how:?}");
        let record = store.report(a).unwrap().unwrap();
        assert_eq!(record.received, report(a.0, 1), "{how:?}");
        assert_eq!(record.captured, Some(captured.clone()), "{how:?}");
        assert_eq!(store.bounces_of_report(a).unwrap(), [of_report], "{how:?}");
        assert_eq!(store.bounces_of_report(b).unwrap(), [], "{how:?}");
        assert_eq!(store.unmatched_reports(None, 10).unwrap(), [b, a], "{how:?}");
        assert_eq!(store.unmatched_reports(Some(b), 10).unwrap(), [a], "{how:?}");
        for (account, before, want) in [
            ("shop", None, &[a][..]),
            ("blog", None, &[a]),
            ("no", None, &[]),
            ("shop", Some(a), &[]),
        ] {
            assert_eq!(store.bounced(account, before, 10).unwrap(), want, "{how:?} {account}");
        }
        assert_eq!(store.bounced_count("shop").unwrap(), 1, "{how:?}");
        assert_eq!(store.bounced_count("no").unwrap(), 0, "{how:?}");
        for (before, max, want) in
            [(None, 10, &[b, a][..]), (None, 1, &[b]), (Some(b), 10, &[a]), (Some(a), 10, &[])]
        {
            assert_eq!(store.reports(before, max).unwrap(), want, "{how:?} {before:?} {max}");
        }
        assert_eq!(store.owed_forwards(10), [captured], "{how:?}");
        let notices = vec![NoticeSent::Forward { report_id: a }];
        committed(&store, Batch { notices, ..Batch::default() }).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.owed_forwards(10), [], "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_has_a_file_of_its_own_until_the_mail_ends() {
    let dir = TempDir::new();
    let store = open(&dir);
    let octets: Vec<u8> = (0..300 * 1024_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let id = accepted(&store, &["a@b.test"], &octets).await;
    let file = dir.path().join("spool/big").join(id.to_string());
    assert!(file.exists());
    let store = left(&dir, store, Leaving::Crashed).await;
    assert_eq!(read_body(&store, id).await.unwrap(), octets);
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
    until("the body's file is removed", || !file.exists()).await;

    let abandoned = store.new_queue_id();
    let unused = body(&store, abandoned, &octets).await;
    assert_eq!(unused.len(), 300 * 1024);
    let file = dir.path().join("spool/big").join(abandoned.to_string());
    assert!(file.exists());
    drop(unused);
    assert!(!file.exists(), "a body that nobody took over is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_stored_is_told_from_what_was_purged() {
    let dir = TempDir::new();
    let store = open(&dir);
    let old = QueueId::new(START.minus(100 * DAY), 1);
    let recent = QueueId::new(START.minus(DAY), 1);
    assert_eq!(store.message(old).unwrap().unwrap_err(), Missing::Purged);
    assert_eq!(store.message(recent).unwrap().unwrap_err(), Missing::NeverSeen);
    assert_eq!(store.report(ReportId(old)).unwrap().unwrap_err(), Missing::Purged);
    for (text, want) in [
        (format!("{old}.00@relay.test"), Missing::Purged),
        (format!("{recent}.00@relay.test"), Missing::NeverSeen),
        ("foreign@app.test".to_owned(), Missing::NeverSeen),
    ] {
        let message_id = MessageId::parse(&text).unwrap();
        assert_eq!(store.by_message_id(&message_id).unwrap(), []);
        assert_eq!(store.missing_message_id(&message_id), want, "{text}");
    }
}
