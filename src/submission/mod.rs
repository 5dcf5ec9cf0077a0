//! Stage 1: takes mail over from apps.

mod bans;
pub mod checks;
pub mod control;
pub mod door;
mod guards;
mod once;
pub mod policy;
mod rates;
mod server;
mod session;
pub mod stamp;
mod suppression;
mod verify;

pub use checks::Checks;
pub use door::{Accepted, Door, Intake, Offer, Refusal};
pub use guards::Guards;
pub use server::{Context, Listeners, run};
pub use session::{DEFAULT_ACCOUNT, Session};
pub use suppression::suppression_policy;
