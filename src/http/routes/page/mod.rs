//! The web page: what the look-ups say, for people.
//!
//! Every page is made here, whole, and can be read without a script; `live.js` only has it made
//! again when something has happened. Who may see it is decided where it is for the API: a
//! session stands for a token.
//! **Invariant:** what came by mail is shown through `text` alone; nothing of it is markup, and
//! the content security policy lets no other script run if it were.

mod bounces;
mod chart;
mod frame;
mod mailboxes;
mod message;
mod messages;
mod queue;
mod report;
mod session;
mod sign_in;
mod text;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::{HttpState, admit, asked, events};
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::tokens::Scope;
use crate::mail::Timestamp;
use crate::view;
use frame::Failed;
use session::Sessions;

/// What the pages know.
#[derive(Clone)]
struct Page {
    http: HttpState,
    sessions: Arc<Sessions>,
}

/// Who looks at a page.
#[derive(Clone, Debug, Default)]
struct Viewer {
    /// What is his to see.
    caller: Caller,
    /// Whether he has signed in, and so can sign out.
    has_session: bool,
    /// Whether he may change what is there.
    is_admin: bool,
    /// The cursor of what had happened before the page was made.
    seen: String,
}

/// The pages at `/`.
pub(super) fn router(http: HttpState) -> Router<HttpState> {
    let page = Page { http, sessions: Arc::default() };
    let reading = Router::new()
        .route("/", get(messages::list))
        .route("/bounces", get(bounces::list))
        .route("/message/{id}", get(message::timeline))
        .route("/report/{id}", get(report::one))
        .route("/queue", get(queue::list))
        .route("/live", get(events::list_or_follow).with_state(page.http.clone()))
        .route_layer(middleware::from_fn_with_state((page.clone(), Scope::Read), let_in));
    let overseeing = Router::new()
        .route("/mailboxes", get(mailboxes::list))
        .route("/webhooks", get(webhooks::list))
        .route_layer(middleware::from_fn(unbound))
        .route_layer(middleware::from_fn_with_state((page.clone(), Scope::Read), let_in));
    let ordering = Router::new()
        .route("/queue/{id}/{action}", post(queue::order))
        .route_layer(middleware::from_fn_with_state((page.clone(), Scope::Admin), let_in));
    let changing = Router::new()
        .route("/mailboxes/{name}/poll", post(mailboxes::poll))
        .route("/webhooks/{name}/enable", post(webhooks::enable))
        .route_layer(middleware::from_fn(unbound))
        .route_layer(middleware::from_fn_with_state((page.clone(), Scope::Admin), let_in));
    let open = Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/page/style.css", get(async || asset("text/css", STYLE)))
        .route("/page/live.js", get(async || asset("text/javascript", SCRIPT)))
        .route("/page/icon.svg", get(async || asset("image/svg+xml", ICON)));
    reading
        .merge(overseeing)
        .merge(ordering)
        .merge(changing)
        .merge(open)
        .route_layer(middleware::from_fn(from_here))
        .layer(middleware::map_response(guarded))
        .with_state(page)
}

impl Page {
    fn now(&self) -> Timestamp {
        self.http.inner.clock.now()
    }

    /// Whether the session of a request, or nobody in particular, may do what needs `scope`.
    fn admit(&self, request: &Request, scope: Scope) -> Result<Viewer, ApiError> {
        let token = self.sessions.token(request.headers(), self.now());
        let caller = admit(&self.http, request, token.as_deref(), scope)?;
        let asked = asked(request, token.as_deref());
        let is_admin = self.http.inner.auth.allow(asked, Scope::Admin, self.now()).is_ok();
        // Before anything is looked up: what happens while the page is made is told once more.
        let seen = view::cursor(self.http.inner.store.events_end());
        Ok(Viewer { caller, has_session: token.is_some(), is_admin, seen })
    }
}

/// Lets those through who may, and sends others to sign in.
async fn let_in(
    State((page, scope)): State<(Page, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    match page.admit(&request, scope) {
        Ok(viewer) => {
            request.extensions_mut().insert(viewer.caller.clone());
            request.extensions_mut().insert(viewer);
            next.run(request).await
        }
        Err(ApiError::Unauthorized(_)) if request.method() == Method::GET => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            Redirect::to(&sign_in::address(path)).into_response()
        }
        Err(error) => Failed::from(error).into_response(),
    }
}

/// Lets those through whose token is not bound to one account.
async fn unbound(caller: Caller, request: Request, next: Next) -> Response {
    match caller.account() {
        None => next.run(request).await,
        Some(account) => {
            let why = format!("The token is for the account `{account}`, and this is for all");
            Failed::from(ApiError::Forbidden(why)).into_response()
        }
    }
}

/// Lets no form through that another site has sent.
async fn from_here(request: Request, next: Next) -> Response {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_safe || sign_in::is_from_here(request.headers()) {
        return next.run(request).await;
    }
    let why = "The form was not sent from a page of this server".to_owned();
    Failed::from(ApiError::Forbidden(why)).into_response()
}

/// Says what a browser may do with a page of ours.
async fn guarded(mut response: Response) -> Response {
    let is_asset = response.headers().contains_key(header::CACHE_CONTROL);
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with that a browser would not say from where a form is sent.
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if !is_asset {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")];
    (StatusCode::OK, headers, content).into_response()
}

/// Nothing from elsewhere, and nothing that stands in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const ICON: &str = include_str!("icon.svg");
