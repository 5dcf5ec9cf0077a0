//! The funnel: every bounce, wherever it was caught, goes through here.
//!
//! Evidence is classified, tied to its submission and written in one atomic batch.
