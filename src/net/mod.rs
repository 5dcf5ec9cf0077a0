//! Connections: listeners with limits, TLS, and how everything is told to stop.

pub mod listener;
pub mod shutdown;
pub mod tls;
