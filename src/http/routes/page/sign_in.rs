//! Signing in with a token and out again, and whether a form was sent from a page of ours.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use tokio::time::timeout;

use super::frame::{Failed, Frame, Place};
use super::session::set_cookie;
use super::{Page, Viewer};
use crate::http::client::encode;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::routes::admit;
use crate::http::tokens::Scope;

/// `GET /sign-in`: the form.
pub(super) async fn form(State(page): State<Page>, request: Request) -> Result<Response, Failed> {
    let query = Query::parse(request.uri().query(), &["then"])?;
    let then = local_path(query.value("then").unwrap_or_default());
    if page.admit(&request, Scope::Read).is_ok() {
        return Ok(Redirect::to(then).into_response());
    }
    Ok(shown(StatusCode::OK, then, None))
}

/// `POST /sign-in`: a session for a token that may read.
pub(super) async fn sign_in(
    State(page): State<Page>,
    request: Request,
) -> Result<Response, Failed> {
    let (parts, body) = request.into_parts();
    let body = timeout(FORM_TIMEOUT, to_bytes(body, FORM_BYTES_MAX)).await;
    let unreadable = || ApiError::field("token", "the form could not be read");
    let body = body.ok().and_then(Result::ok).ok_or_else(unreadable)?;
    let form = std::str::from_utf8(&body).map_err(|_not_utf8| unreadable())?;
    let form = Query::parse(Some(form), &["token", "then"])?;
    let then = local_path(form.value("then").unwrap_or_default());
    let token = form.value("token").unwrap_or_default().trim();
    let request = Request::from_parts(parts, axum::body::Body::empty());
    if let Err(error) = admit(&page.http, &request, Some(token), Scope::Read) {
        return match error {
            ApiError::Unauthorized(_) | ApiError::Forbidden(_) => {
                Ok(shown(StatusCode::UNAUTHORIZED, then, Some(error.message())))
            }
            error => Err(error.into()),
        };
    }
    let name = page.sessions.begin(token, page.now());
    let name = name.ok_or(ApiError::Internal("the system gave no random octets for a session"))?;
    let cookie = set_cookie(Some(&name), is_over_tls(request.headers()));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(then)).into_response())
}

/// `POST /sign-out`: ends the session.
pub(super) async fn sign_out(State(page): State<Page>, request: Request) -> Response {
    page.sessions.end(request.headers());
    let cookie = set_cookie(None, is_over_tls(request.headers()));
    ([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response()
}

/// Whether a form comes from a page of ours. The browser says so itself, and no page can make it
/// say otherwise; what sends neither field is no browser, and has the API.
pub(super) fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = text("origin").and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, host)| text("host") == Some(host))
}

/// The address to sign in at, from where it goes on to `path`.
pub(super) fn address(path: &str) -> String {
    if path == "/" {
        return "/sign-in".to_owned();
    }
    format!("/sign-in?then={}", encode(path))
}

fn is_over_tls(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// The path if it can only lead to a page of ours, else `/`.
fn local_path(path: &str) -> &str {
    let leads_here = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= PATH_BYTES_MAX
        && path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\');
    if leads_here { path } else { "/" }
}

fn shown(status: StatusCode, then: &str, wrong: Option<&str>) -> Response {
    let frame = Frame { title: "Sign in", place: Place::SignIn, viewer: &Viewer::default() };
    let content = html! {
        form.panel.sign-in method="post" action="/sign-in" {
            h1 { "Sign in" }
            @if let Some(wrong) = wrong {
                p.wrong role="alert" { (wrong) "." }
            }
            input type="hidden" name="then" value=(then);
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password"
                required aria-describedby="token-help";
            p #token-help.faint {
                "Make one with " code { "rebound token add NAME --scope read" }
                "; with the scope " code { "admin" } " it can change the queue, too."
            }
            button.primary { "Sign in" }
        }
    };
    (status, frame.around(&content)).into_response()
}

/// How long a form may take to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of a form.
const FORM_BYTES_MAX: usize = 8192;

/// Octets of the path to which signing in leads.
const PATH_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_ours_may_send_a_form() {
        for (fields, want) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://h:1"), ("host", "h:1")], false),
            (&[("origin", "http://h:8025"), ("host", "h:8025")], true),
            (&[("origin", "https://h"), ("host", "h")], true),
            (&[("origin", "http://evil.example"), ("host", "h:8025")], false),
            (&[("origin", "http://h:8025.evil.example"), ("host", "h:8025")], false),
            (&[("origin", "http://h:3000"), ("host", "h:8025")], false),
            (&[("origin", "null"), ("host", "h:8025")], false),
            (&[("origin", "null"), ("host", "null")], false),
            (&[("host", "h:8025")], false),
            (&[], false),
        ] {
            let headers = fields.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            });
            assert_eq!(is_from_here(&HeaderMap::from_iter(headers)), want, "{fields:?}");
        }
    }

    #[test]
    fn signing_in_leads_nowhere_else() {
        for (path, want) in [
            ("/queue?cursor=a", "/queue?cursor=a"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("https://evil.example", "/"),
            ("javascript:alert(1)", "/"),
        ] {
            assert_eq!(local_path(path), want, "{path}");
        }
        assert_eq!(address("/message/x?y=1"), "/sign-in?then=%2Fmessage%2Fx%3Fy%3D1");
        assert_eq!(address("/"), "/sign-in");
    }
}
