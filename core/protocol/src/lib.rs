//! The wire protocol: JSON text frames, as clients of the published Go system speak them.
//!
//! A [`Message`] asks for an action of the app's, or for one of those that are built in:
//!
//! | action | payload | `data` of its `response` |
//! |---|---|---|
//! | `ping` | none | `{"pong":true,"timestamp":…}` |
//! | `status` | `{"request_id":"r1"}` | how the queued request `r1` stands |
//! | `subscribe` | `{"request_id":"r1","seq":7}` | the same; the connection is sent the request's frames from then on |
//! | `cancel` | `{"request_id":"r1"}` | the same; the request ends with an `error` frame of code `CANCELLED` |
//!
//! How a request stands is told in `status`, `percentage`, `message`, `metadata` of its progress, `seq`, `attempt` of
//! `max_attempts`, `continuations`, `created_at`, `started_at`, `finished_at`, `cancel_requested`, `redrive_of` and
//! `redriven_as`, and `result` or `error`: those that there are. Where the result does not fit beside the rest, it says
//! `"result_omitted": true`: `subscribe` has it sent in a frame of its own.
//!
//! Any connection of the user that a request belongs to may ask; to everybody else it is `NOT_FOUND`, as one that does not
//! exist. A client that comes back says in `seq` the last number that it has seen of the request (default 0): it is told how
//! the request stands, and then what has a higher number than that and than the snapshot's own. Of what has ended it is
//! sent the last frame at once, whatever it has seen. The same happens where the request itself is sent again, with the
//! same id, over another connection. At most 16 connections listen to one request; one more is `RATE_LIMITED`.
//!
//! A request that is being run when it is cancelled stands as before, with `"cancel_requested": true`, until its handler has
//! stopped.

mod error;
mod frame;
mod message;
mod outline;
mod request_id;

pub use error::{ErrorBody, ErrorCode, FieldError};
pub use frame::{Frame, Seq};
pub use message::{Message, RejectedMessage};
pub use request_id::RequestId;

/// The largest message or frame body that the gateway carries, in bytes: 128 KiB.
pub const MAX_FRAME_BYTES: usize = 128 * 1024;
