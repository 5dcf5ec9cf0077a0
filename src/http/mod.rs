//! Stage 6: look-ups over HTTP.

pub mod client;
