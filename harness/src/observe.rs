//! What the fakes do, as whoever watches a stage sees it.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::caller::Caller;

/// Who is told what the fakes do, at the moment at which they do it.
pub(crate) trait Observer: fmt::Debug + Send + Sync {
    fn observe(&self, observation: Observation);
}

/// One thing that a fake did.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// A call of DynamoDB has had its effect, if it has one.
    Called {
        caller: Option<Caller>,
        operation: String,
        /// The tables that it names, in order, with a comma between them.
        tables: String,
        index: Option<String>,
        answer: Answer,
    },
    /// An item of a table that has a stream has changed; without an image it is gone.
    Wrote { caller: Option<Caller>, table: String, keys: Value, image: Option<Value> },
    /// A frame was posted to a connection.
    Posted { caller: Option<Caller>, connection: String, frame: String, answer: Answer },
    /// A WebSocket was opened, and its `$connect` accepted.
    Opened { connection: String },
    /// A WebSocket has ended, with the code of `$disconnect`.
    Ended { connection: String, code: u16 },
    /// An environment has begun its init phase.
    Started { environment: Caller },
    /// An environment has an event.
    Invoked { environment: Caller, payload: Bytes },
    /// An invocation is over: with its reply, or with what went wrong.
    Returned { environment: Caller, outcome: Result<Bytes, String> },
    /// A message was sent to a queue, and taken.
    Queued { queue: String, body: String },
    /// A fault was injected.
    Injected { fault: &'static str, operation: String, resource: String },
}

/// What became of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Done,
    /// The name of the error, or the status where it has none.
    Refused(String),
    /// Whatever came of it, its caller does not learn.
    Never,
}
