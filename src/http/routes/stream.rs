//! Answers that are sent piece by piece, as fast as the client takes them.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::time::timeout;

/// The sending end of an answer.
pub(super) struct Pieces {
    sender: Sender<Bytes, io::Error>,
}

/// The client has hung up, or does not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl Pieces {
    /// An answer of this media type, and where its pieces go in.
    pub(super) fn of(kind: &'static str) -> (Self, Response) {
        let (sender, body) = Channel::<Bytes, io::Error>::new(1);
        (Self { sender }, ([(header::CONTENT_TYPE, kind)], Body::new(body)).into_response())
    }

    /// Sends a piece once there is room for it.
    pub(super) async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        match timeout(SEND_TIMEOUT, self.sender.send_data(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Breaks the answer off, so that nobody takes it for whole.
    pub(super) fn abort(self, error: &dyn std::fmt::Debug) {
        tracing::error!(?error, "an answer is broken off");
        self.sender.abort(io::Error::other("the rest cannot be read"));
    }
}

/// How long a client may take to read what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
