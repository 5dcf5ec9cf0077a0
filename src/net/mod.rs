//! Connections: listeners with limits, proxies in front of them, TLS, the client's side of HTTP, and
//! how everything is told to stop.

pub mod listener;
pub mod proxy;
pub mod seldom;
pub mod shutdown;
pub mod tls;
pub mod web;
