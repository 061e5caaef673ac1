//! What the fakes do, as the observer of a stage receives it.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::caller::Caller;

/// Receives an [`Observation`] of each thing that the fakes do, while they do it.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Called by a fake right after `observation` took place, on the task that caused it.
    fn observe(&self, observation: Observation);
}

/// One thing that a fake did.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A call of DynamoDB has had its effect, if it has one.
    Called {
        /// The environment that called; `None` for the stage and its tests.
        caller: Option<Caller>,
        /// DynamoDB's name of the operation, such as `UpdateItem`.
        operation: String,
        /// The tables that it names, in order, with a comma between them.
        tables: String,
        /// The index that it queries.
        index: Option<String>,
        /// How the call ended for its caller.
        answer: Answer,
    },
    /// An item of a table that has a stream has changed.
    Wrote {
        /// The environment that wrote; `None` for the stage, its tests and TTL.
        caller: Option<Caller>,
        /// The table's name.
        table: String,
        /// The item's keys, as DynamoDB JSON.
        keys: Value,
        /// The whole item as it is now, as DynamoDB JSON; `None` if it was deleted.
        image: Option<Value>,
    },
    /// A frame was posted to a connection.
    Posted {
        /// The environment that posted; `None` for the stage and its tests.
        caller: Option<Caller>,
        /// The connection's id.
        connection: String,
        /// The frame's text.
        frame: String,
        /// How the call ended for its caller.
        answer: Answer,
    },
    /// A WebSocket was opened, and its `$connect` accepted.
    Opened {
        /// The connection's id.
        connection: String,
    },
    /// A WebSocket was closed.
    Ended {
        /// The connection's id.
        connection: String,
        /// The close code that `$disconnect` reports.
        code: u16,
    },
    /// An environment has begun its init phase.
    Started {
        /// The environment.
        environment: Caller,
    },
    /// An environment has received an event.
    Invoked {
        /// The environment.
        environment: Caller,
        /// The event, as JSON.
        payload: Bytes,
    },
    /// An invocation has ended.
    Returned {
        /// The environment.
        environment: Caller,
        /// The reply, as JSON, or the error as text.
        outcome: Result<Bytes, String>,
    },
    /// A queue has accepted a message.
    Queued {
        /// The queue's name.
        queue: String,
        /// The message's body.
        body: String,
    },
    /// A fault was injected.
    Injected {
        /// The fault's name.
        fault: &'static str,
        /// The operation that it was injected into.
        operation: String,
        /// The table, connection, function or queue that the operation names.
        resource: String,
    },
}

/// How a call ended for its caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It succeeded.
    Done,
    /// The name of the error, or the HTTP status where it has no name.
    Refused(String),
    /// The caller receives no answer, whether or not the call had an effect.
    Never,
}
