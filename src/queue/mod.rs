//! Stage 2.

pub mod notice;
