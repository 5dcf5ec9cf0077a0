//! Stage 1: takes mail over from apps.

pub mod door;
pub mod policy;
mod server;
mod session;
pub mod stamp;
mod verify;

pub use door::{Accepted, Door, Intake, Offer, Refusal};
pub use server::{Context, Listeners, run};
pub use session::{DEFAULT_ACCOUNT, Session};
pub use verify::Verifier;
