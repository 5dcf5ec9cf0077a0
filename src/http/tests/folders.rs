//! Folders of sent mails and reports, and what is counted of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    LIMITS, NOW, Server, attempt, bounce, id, many_bounces, odd_report, taken_for_a_bounce,
};
use crate::http::auth::Policy;
use crate::mail::QueueId;
use crate::store::record::{Batch, Bounce, ReportId};

/// The ids of a folder that holds so many mails, two on a page.
async fn paged(server: &Server, path: &str, total: usize, with_cursor: bool) -> Vec<Value> {
    let pages = total.div_ceil(2);
    let (mut found, mut next) = (Vec::new(), String::new());
    for number in 0..pages {
        let start = format!("/v1/account/default/messages?pageSize=2&{path}");
        let (status, page) = server.get(&format!("{start}{next}")).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!((&page["total"], &page["pages"]), (&json!(total), &json!(pages)));
        assert_eq!(page["page"], number);
        found.extend(page["messages"].as_array().unwrap().iter().map(|m| m["id"].clone()));
        next = match page["cursor"].as_str() {
            Some(cursor) if with_cursor => format!("&cursor={cursor}"),
            _ => format!("&page={}", number + 1),
        };
    }
    found
}

#[tokio::test]
async fn mails_and_reports_of_an_account_are_listed_and_read_as_emailengine_has_them() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    many_bounces(&server).await;
    for unique in 3..=5 {
        server.accept(id(unique)).await;
    }
    let report_id = ReportId(id(7));
    server.store.accept_report(odd_report(report_id)).unwrap().synced().await.unwrap();
    let mut batch = taken_for_a_bounce(report_id);
    // Two recipients of one report: it is listed once.
    batch.bounces = vec![
        bounce(Some(id(3)), Some(report_id), 6),
        Bounce {
            recipient: "two@example.com".to_owned(),
            ..bounce(Some(id(3)), Some(report_id), 7)
        },
    ];
    let mark = batch.report.as_mut().unwrap();
    (mark.matched, mark.bounced_accounts) = (vec![id(3)], ["default".to_owned()].into());
    server.store.commit(batch).unwrap().synced().await.unwrap();
    for (path, want) in [
        ("path=INBOX.Sent", vec![5, 4, 3, 1]),
        ("path=%5CSent", vec![5, 4, 3, 1]),
        ("", vec![5, 4, 3, 1]),
        ("path=Bounces", vec![7]),
    ] {
        let want: Vec<Value> = want.into_iter().map(|n| json!(id(n).to_string())).collect();
        for with_cursor in [false, true] {
            assert_eq!(paged(&server, path, want.len(), with_cursor).await, want, "{path}");
        }
    }
    let (_, page) = server.get("/v1/account/default/messages?pageSize=1&page=2").await;
    assert_eq!(page["messages"][0]["bounces"][0]["message"], report_id.0.to_string());
    let of = |account: &str, rest: &str| format!("/v1/account/{account}/{rest}");
    let (_, shown) = server.get(&of("default", &format!("message/{}", id(4)))).await;
    assert_eq!((&shown["subject"], &shown["headers"]["subject"]), (&json!("one"), &json!(["one"])));
    assert!(shown.get("bounces").is_none(), "{shown}");
    let (_, text) = server.get(&of("default", &format!("text/{}", id(4)))).await;
    assert_eq!(text["plain"].as_str().unwrap().trim_end(), "hello");
    for (path, status, code) in [
        (of("other", &format!("message/{}", id(4))), 404, "MessageNotFound"),
        (of("other", &format!("message/{}", report_id.0)), 404, "MessageNotFound"),
        (of("default", "message/x"), 400, "InputValidationError"),
        (of("default", "messages?path=Trash"), 400, "InputValidationError"),
        (of("default", "messages?cursor=x"), 400, "InputValidationError"),
        (of("default", "messages?cursor=1.x"), 400, "InputValidationError"),
    ] {
        let (got, body) = server.get(&path).await;
        assert_eq!((got, &body["code"]), (status, &json!(code)), "{path}: {body}");
    }
    let source = |name: QueueId| {
        let path = of("default", &format!("message/{name}/source"));
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    let answer = server.raw(&source(id(4))).await;
    assert!(answer.contains("content-type: message/rfc822\r\n"), "{answer}");
    assert!(answer.contains("Subject: one\r\n\r\nhello\r\n"), "{answer}");
    assert!(server.raw(&source(report_id.0)).await.contains("Subject: odd\r\n"));
    // Its only recipient has been refused, so that the mail has ended.
    server.refuse(id(5), 9).await;
    let answer = server.raw(&source(id(5))).await;
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("MessageBodyPurged"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn what_became_of_mails_is_counted_by_state_category_domain_and_day() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    many_bounces(&server).await;
    server.accept(id(3)).await;
    let refused = Batch { attempts: vec![attempt(id(3))], ..Batch::default() };
    server.store.commit(refused).unwrap().synced().await.unwrap();
    let until = NOW.plus(Duration::from_secs(60)).rfc3339();
    let (status, stats) = server.get(&format!("/v1/stats?until={until}")).await;
    assert_eq!(status, 200, "{stats}");
    assert_eq!(stats["recipients"]["total"], 3);
    assert_eq!(stats["recipients"]["states"], json!({ "failed": 1, "queued": 2 }));
    assert_eq!(stats["recipients"]["days"][0]["states"]["failed"], 1);
    assert_eq!(stats["bounces"]["categories"], json!({ "auth_failure": 1, "user_unknown": 4 }));
    assert_eq!(stats["bounces"]["days"][0]["date"], "2022-10-12");
    let domain = |domain: &str, count: u64| json!({ "domain": domain, "count": count });
    let want = [
        domain("example.com", 2),
        domain("xn--mller-kva.example", 2),
        domain("sub.example.com", 1),
    ];
    assert_eq!(stats["domains"], json!(want));
    let (_, stats) = server.get(&format!("/v1/stats?account=other&until={until}")).await;
    assert_eq!((&stats["recipients"]["total"], &stats["bounces"]["total"]), (&json!(1), &json!(1)));
    let (_, stats) = server.get("/v1/stats?since=2022-10-13").await;
    assert_eq!((&stats["recipients"]["total"], &stats["bounces"]["total"]), (&json!(0), &json!(0)));
    server.stop().await;
}
