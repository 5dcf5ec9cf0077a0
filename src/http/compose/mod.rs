//! A mail out of JSON, as EmailEngine's submit takes it.
//!
//! `json` reads values within limits, `reader` takes objects apart and keeps a list of everything
//! that is wrong, `letter` knows the keys, `parts` those of the content, `mime` writes the mail.
//! Pure: no clock, no socket, no store.
//! **Invariant:** nothing that was asked for gets into a header before it has been read as a type
//! that holds no line break, or checked for controls.

mod json;
mod letter;
mod mime;
mod parts;
mod reader;

pub(super) use json::parse;
pub(super) use letter::{Letter, Terms, letter};

#[cfg(test)]
mod tests;
