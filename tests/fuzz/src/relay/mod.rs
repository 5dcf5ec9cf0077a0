//! A mail on its way out.

#[path = "../../../../src/relay/body.rs"]
mod body;

use body::{Framing, Outgoing};

/// What is sent after DATA for a mail that comes in these pieces.
pub fn stuffed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    sent(Framing::Dot, pieces)
}

/// What is sent by BDAT for a mail that comes in these pieces.
pub fn counted<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    sent(Framing::Count, pieces)
}

fn sent<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut outgoing = Outgoing::new(framing);
    let mut out = Vec::new();
    for piece in pieces {
        outgoing.push(piece, &mut out);
    }
    outgoing.finish(&mut out);
    out
}
