//! The words of mail: addresses, envelopes, headers, ids, replies, times.
//!
//! Everything here is pure: no clock, no socket, no disk.
//! Bad input is data: parsers return an error value and never panic.

pub mod address;
pub mod base64;
pub mod dsn;
pub mod envelope;
pub mod event;
pub mod header;
pub mod lines;
pub mod message_id;
pub mod name_addr;
pub mod queue_id;
pub mod reply;
pub mod return_path;
pub mod return_token;
pub mod stage;
pub mod status;
pub mod timestamp;
pub mod wrapped_address;
pub mod xtext;

pub use address::{Address, ReversePath};
pub use dsn::{MailDsn, RecipientDsn};
pub use envelope::{Envelope, Recipient};
pub use event::EVENT_NAMES;
pub use message_id::MessageId;
pub use name_addr::NameAddr;
pub use queue_id::QueueId;
pub use reply::Reply;
pub use return_path::{FoundToken, ReturnPathFormat, TokenForm};
pub use return_token::ReturnToken;
pub use stage::Stage;
pub use status::EnhancedStatus;
pub use timestamp::Timestamp;
