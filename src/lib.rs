//! Rebound
pub mod bounce;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod mail;
pub mod maillog;
pub mod metrics;
pub mod net;
pub mod relay;
pub mod secret;
pub mod smtp;
pub mod store;
pub mod view;
