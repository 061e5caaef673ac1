//! The wire protocol of Streamer: JSON text frames over a WebSocket, compatible with clients of the published Go
//! implementation.
//!
//! A client sends [`Message`]s, and the server sends [`Frame`]s. Each message names an action, which is either one of
//! the app's own actions or one of these four built-in actions:
//!
//! | action | payload | `data` of the `response` frame |
//! |---|---|---|
//! | `ping` | none | `{"pong":true,"timestamp":…}` |
//! | `status` | `{"request_id":"r1"}` | a snapshot of the queued request `r1` |
//! | `subscribe` | `{"request_id":"r1","seq":7}` | a snapshot; the connection then receives the request's later frames |
//! | `cancel` | `{"request_id":"r1"}` | a snapshot; the cancelled request's last frame is an `error` frame with code `CANCELLED` |
//!
//! # Snapshots
//!
//! A snapshot is a JSON object that describes the state of a queued request. Its keys are `status`, `seq`, `attempt`,
//! `max_attempts`, `continuations`, `created_at`, `started_at`, `finished_at`, `cancel_requested`, `redrive_of`,
//! `redriven_as`, the request's progress (`percentage`, `message` and `metadata`), and `result` or `error`. Keys
//! without a value are omitted. If the result does not fit into one frame, the snapshot contains `"result_omitted":
//! true` instead. A client that subscribes to the request then receives the result in a `complete` frame.
//!
//! The user who owns a request may use `status`, `subscribe` and `cancel` over any connection. All other users
//! receive the error `NOT_FOUND`, as if the request did not exist.
//!
//! # Reconnecting
//!
//! A client that reconnects sends `subscribe`, with the highest `seq` that it has received for the request (default
//! 0). It receives a snapshot, and then each frame whose `seq` is higher than both this value and the snapshot's
//! `seq`. If the request is already terminal, the client receives the terminal frame immediately, even if its `seq`
//! is not higher.
//!
//! A client can also send the request again with the same id over its new connection. This subscribes the new
//! connection, like `subscribe`. At most 16 connections can subscribe to a request; the next one receives the error
//! `RATE_LIMITED`.
//!
//! # Cancelling
//!
//! If a request is running when it is cancelled, its status does not change until its handler has stopped. Until
//! then, the request's snapshot contains `"cancel_requested": true`.

mod error;
mod frame;
mod message;
mod outline;
mod request_id;

pub use error::{ErrorBody, ErrorCode, FieldError};
pub use frame::{Frame, Seq};
pub use message::{Message, RejectedMessage};
pub use request_id::RequestId;

/// Maximum size of a WebSocket message that API Gateway accepts or sends, in bytes: 128 KiB.
pub const MAX_FRAME_BYTES: usize = 128 * 1024;
