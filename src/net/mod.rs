//! Connections: listeners with limits, proxies in front of them, TLS, the client's side of HTTP,
//! what is counted of those who connect, and how everything is told to stop.

pub mod listener;
pub mod memory;
pub mod outgoing;
pub mod proxy;
pub mod seldom;
pub mod shutdown;
pub mod tls;
pub mod web;
pub mod window;
