#![doc = include_str!("README.md")]

// In the order in which a mail meets them, then what all of them share.
pub mod bounce;
pub mod capture;
pub mod http;
pub mod imap;
pub mod inbound;
pub mod queue;
pub mod relay;
pub mod smtp;
pub mod store;
pub mod submission;
pub mod view;
pub mod webhook;

pub mod clock;
pub mod config;
pub mod mail;
pub mod maillog;
pub mod metrics;
pub mod net;
pub mod secret;

pub mod cli;
pub mod daemon;
pub mod dev;
