//! Reports of the fakes' actions, which the observer of a stage receives.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::caller::Caller;

/// Receives an [`Observation`] for each action of the fakes, while the stage runs.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Handles one observation. A fake calls this method when the action takes place, on the task that performs the
    /// action.
    fn observe(&self, observation: Observation);
}

/// One action of a fake, such as an answered call or an injected fault.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The DynamoDB fake processed a call.
    Called {
        /// Execution environment that made the call; `None` if the stage or a test made the call.
        caller: Option<Caller>,
        /// DynamoDB's name of the operation, such as `UpdateItem`.
        operation: String,
        /// Comma-separated, sorted names of the tables in the call; empty if the call names no table.
        tables: String,
        /// Name of the index that the call queries or scans; `None` if the call names no index.
        index: Option<String>,
        /// Result of the call, as the caller sees the result.
        answer: Answer,
    },
    /// An item changed in a table that has a stream.
    Wrote {
        /// Execution environment that made the change; `None` if the stage, a test, or time to live (TTL) made the
        /// change.
        caller: Option<Caller>,
        /// Name of the table that contains the item.
        table: String,
        /// Key attributes of the item, in DynamoDB JSON.
        keys: Value,
        /// The whole item after the change, in DynamoDB JSON; `None` if the item was deleted.
        image: Option<Value>,
    },
    /// A call of `PostToConnection`, which sends a frame to a WebSocket client, was answered.
    Posted {
        /// Execution environment that posted the frame; `None` if the stage or a test posted the frame.
        caller: Option<Caller>,
        /// Id of the connection that the frame was posted to.
        connection: String,
        /// Text of the posted frame.
        frame: String,
        /// Result of the post, as the caller sees the result.
        answer: Answer,
    },
    /// A WebSocket connection was opened, after `$connect` had accepted the client.
    Opened {
        /// Id of the opened connection.
        connection: String,
    },
    /// A WebSocket connection was closed.
    Ended {
        /// Id of the closed connection.
        connection: String,
        /// Close code that the `$disconnect` event reports, such as 1001.
        code: u16,
    },
    /// An execution environment of a function began its init phase.
    Started {
        /// Execution environment that began its init phase.
        environment: Caller,
    },
    /// An execution environment of a function received an event.
    Invoked {
        /// Execution environment that received the event.
        environment: Caller,
        /// Event that the function received, as JSON.
        payload: Bytes,
    },
    /// An invocation of a function ended.
    Returned {
        /// Execution environment that ran the invocation.
        environment: Caller,
        /// Reply of the function as JSON, or the text of the error that ended the invocation.
        outcome: Result<Bytes, String>,
    },
    /// A queue accepted a message.
    Queued {
        /// Name of the queue that accepted the message.
        queue: String,
        /// Body of the accepted message.
        body: String,
    },
    /// A fault was injected into a call or an invocation.
    Injected {
        /// Name of the injected fault, such as `throttle`.
        fault: &'static str,
        /// Operation that the fault was injected into, such as `UpdateItem`.
        operation: String,
        /// Name of the connection, function or queue, or comma-separated names of the tables, that the operation
        /// addresses.
        resource: String,
    },
}

/// Result of a call, as its caller sees the result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The call succeeded.
    Done,
    /// The call failed, with this error name; the HTTP status if the error has no name.
    Refused(String),
    /// The caller receives no answer. The call may have taken effect.
    Never,
}
