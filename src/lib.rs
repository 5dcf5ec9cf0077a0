//! Rebound
pub mod bounce;
pub mod clock;
pub mod config;
pub mod mail;
pub mod relay;
pub mod store;
