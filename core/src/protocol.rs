//! The wire protocol: JSON text frames, as clients of the published Go system speak them.

mod error;
mod frame;
mod message;
mod outline;

pub use error::{ErrorBody, ErrorCode, FieldError};
pub use frame::{Frame, Seq};
pub use message::{Message, RejectedMessage};

/// The largest message or frame body that the gateway carries, in bytes: 128 KiB.
pub const MAX_FRAME_BYTES: usize = 128 * 1024;
