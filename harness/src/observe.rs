//! What the fakes do, as they tell an observer.
//!
//! [`Faults::set_observer`](crate::faults::Faults::set_observer) registers the observer of all fakes that share these faults.
//! The simulator is such an observer: it checks its rules against what it observes.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::caller::Caller;

/// Observes what the fakes do.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Called by a fake at the moment at which it does what `observation` says, on the fake's own task: it must not block, and must
    /// not call the fake.
    fn observe(&self, observation: Observation);
}

/// One thing that a fake did.
#[derive(Clone, Debug)]
pub enum Observation {
    /// DynamoDB answered a call, after the call took effect.
    Called {
        /// The environment that made the call, if a function in process made it.
        caller: Option<Caller>,
        /// As DynamoDB names it, such as `PutItem`.
        operation: String,
        /// The tables that the call names, in order, with a comma between them.
        tables: String,
        /// The index that the call reads.
        index: Option<String>,
        /// What the caller learns.
        answer: Answer,
    },
    /// An item of a table that has a stream changed.
    Wrote {
        /// The environment that made the change, if a function in process made it.
        caller: Option<Caller>,
        /// The table's name.
        table: String,
        /// The item's key, as DynamoDB JSON.
        keys: Value,
        /// The item after the change, as DynamoDB JSON; `None` if it was deleted.
        image: Option<Value>,
    },
    /// A frame was posted to a connection.
    Posted {
        /// The environment that posted it, if a function in process did.
        caller: Option<Caller>,
        /// The connection's id.
        connection: String,
        /// The frame's text.
        frame: String,
        /// What the caller learns.
        answer: Answer,
    },
    /// A WebSocket opened: its `$connect` was accepted.
    Opened {
        /// The connection's id.
        connection: String,
    },
    /// A WebSocket ended.
    Ended {
        /// The connection's id.
        connection: String,
        /// The status code of its `$disconnect`.
        code: u16,
    },
    /// An execution environment began its init phase.
    Started {
        /// The environment.
        environment: Caller,
    },
    /// An execution environment received an event.
    Invoked {
        /// The environment.
        environment: Caller,
        /// The event as JSON.
        payload: Bytes,
    },
    /// An invocation ended.
    Returned {
        /// The environment.
        environment: Caller,
        /// The function's reply, or the error's text.
        outcome: Result<Bytes, String>,
    },
    /// A queue took a message.
    Queued {
        /// The queue's name.
        queue: String,
        /// The message's body.
        body: String,
    },
    /// A fault was injected into a call.
    Injected {
        /// The fault's name, such as `throttle`.
        fault: &'static str,
        /// The operation that it was injected into.
        operation: String,
        /// The tables, connection, function or queue of the call, with a comma between them.
        resource: String,
    },
}

/// What the caller learns of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The call succeeded.
    Done,
    /// The call failed, with the error's name, or with the status where the error has no name.
    Refused(String),
    /// Nothing: the answer is lost, whether or not the call took effect.
    Never,
}
