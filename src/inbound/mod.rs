//! Stage 4a: takes reports that come back to our return paths, and nothing else.

pub mod admit;
pub mod caps;
mod server;
mod session;
mod work;

pub use server::{Context, Listeners, run};
pub use session::{Session, Shared};
pub use work::capture_loop;
