//! The wire protocol of Streamer: JSON text frames over a WebSocket, compatible with clients of the published Go
//! implementation.
//!
//! A client sends a [`Message`], and the server sends [`Frame`]s. A message names an action: an action of the app, or
//! one of these four built-in actions:
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
//! A snapshot describes a queued request. It has the keys `status`, `percentage`, `message` and `metadata` (of the
//! progress), `seq`, `attempt`, `max_attempts`, `continuations`, `created_at`, `started_at`, `finished_at`,
//! `cancel_requested`, `redrive_of`, `redriven_as`, and `result` or `error`. Keys without a value are omitted. If the
//! result does not fit into the snapshot's frame, the snapshot says `"result_omitted": true`. The client then
//! subscribes to the request, and receives the result in a `complete` frame.
//!
//! Every connection of the user who owns a request may use `status`, `subscribe` and `cancel`. Other users receive
//! `NOT_FOUND`, as for a request that does not exist.
//!
//! # Reconnecting
//!
//! A client that reconnects sends `subscribe`, with the highest `seq` that it has seen of the request (default 0). It
//! receives a snapshot, and then each frame whose `seq` is higher than both this value and the snapshot's `seq`. If
//! the request is already terminal, the client receives the terminal frame immediately, whatever `seq` it sent.
//! Sending the request again, with the same id, over another connection subscribes that connection in the same way. A
//! request has at most 16 subscribed connections. A further connection receives `RATE_LIMITED`.
//!
//! # Cancelling
//!
//! If a request is running when it is cancelled, its status does not change until its handler has stopped. Until then,
//! the request's snapshot contains `"cancel_requested": true`.

mod error;
mod frame;
mod message;
mod outline;
mod request_id;

pub use error::{ErrorBody, ErrorCode, FieldError};
pub use frame::{Frame, Seq};
pub use message::{Message, RejectedMessage};
pub use request_id::RequestId;

/// Largest WebSocket message that API Gateway accepts or sends, in bytes: 128 KiB.
pub const MAX_FRAME_BYTES: usize = 128 * 1024;
