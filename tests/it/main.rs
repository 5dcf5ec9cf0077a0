//! The real daemon with real peers: one file per story.
//!
//! What each story needs is listed in `tests/README.md`; a missing peer is a failed test.

#[cfg(test)]
mod aliases;
#[cfg(test)]
mod article;
#[cfg(test)]
mod bad_config;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod dsn;
#[cfg(test)]
mod events;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http_limits;
#[cfg(test)]
mod imap;
#[cfg(test)]
mod imap_faults;
#[cfg(test)]
mod imap_hostile;
#[cfg(test)]
mod imap_oauth2;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod net;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod page;
#[cfg(test)]
mod postfix;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod scanners;
#[cfg(test)]
mod submit;
#[cfg(test)]
mod suppressions;
#[cfg(test)]
mod webhooks;
