//! Answers of machines: out of office, vacation, "we have got your mail".

use super::mime::Mail;
use super::text::{contains_ignore_case, starts_with_ignore_case};

/// Which rule says that a mail without any delivery news is an automatic answer.
///
/// `Auto-Submitted` tells nothing by itself about bounces, which carry it too: this is asked
/// only once a mail is known not to be a report.
pub(super) fn rule(mail: &Mail<'_>) -> Option<&'static str> {
    let headers = &mail.headers;
    let field = |name: &str| headers.plain(name).unwrap_or_default();
    if starts_with_ignore_case(field("auto-submitted").as_bytes(), b"auto-replied") {
        return Some("autoreply.auto-submitted");
    }
    if ["x-autoreply", "x-autorespond", "x-autoresponder", "x-autoreply-from", "x-auto-reply-from"]
        .iter()
        .any(|name| headers.has(name))
    {
        return Some("autoreply.x-autoreply");
    }
    if field("precedence").trim().eq_ignore_ascii_case("auto_reply")
        || starts_with_ignore_case(field("delivered-to").as_bytes(), b"autoresponder")
    {
        return Some("autoreply.precedence");
    }
    let subject = headers.text("subject").unwrap_or_default().to_lowercase();
    is_subject(&subject).then_some("autoreply.subject").or_else(|| {
        let is_vacation = contains_ignore_case(&field("x-mailer"), "vacation");
        is_vacation.then_some("autoreply.x-mailer")
    })
}

/// Whether a subject (in lower case) is that of an automatic answer.
pub(super) fn is_subject(subject: &str) -> bool {
    let subject = subject.trim_start();
    SUBJECTS.iter().any(|start| subject.starts_with(start))
}

/// How the subjects of automatic answers begin.
const SUBJECTS: &[&str] = &[
    "out of office",
    "out of the office",
    "automatic reply",
    "auto reply",
    "auto-reply",
    "autoreply",
    "auto response",
    "auto-response",
    "autoresponse",
    "vacation reply",
    "away from",
    "i am away",
    "i'm away",
    "abwesenheit",
    "automatische antwort",
    "absence du bureau",
    "réponse automatique",
    "reponse automatique",
    "respuesta automática",
    "risposta automatica",
    "resposta automática",
    "automatisch antwoord",
    "autosvar",
    "fuera de la oficina",
    "fora do escritório",
    "fuori sede",
    "afwezig",
    "автоответ",
    "自动回复",
    "自動返信",
    "不在",
];
