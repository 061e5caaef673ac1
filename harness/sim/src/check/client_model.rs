//! The checker's model of one client.

use std::collections::{BTreeMap, BTreeSet};

use streamer::ports::Timestamp;

use super::owner::Owner;

/// The checker's model of one client: what the client has sent and received.
#[derive(Debug)]
pub(super) struct ClientModel {
    /// User and tenant of the client.
    pub(super) owner: Owner,
    /// Queries that the client has sent (status, subscribe and cancel), by the id of the query's message.
    pub(super) queries: BTreeMap<String, Query>,
    /// Number of messages without a readable id that the client has sent, minus the errors without an id that
    /// it has received.
    pub(super) nameless: u32,
    /// Ids of the requests whose terminal frame the client has received, over any connection.
    pub(super) ended: BTreeSet<String>,
    /// State of the client's current connection.
    pub(super) session: Session,
    pub(super) is_connected: bool,
}

/// State of one connection, computed from the frames that its client has received.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Highest sequence number received about each request, by request id.
    pub(super) seqs: BTreeMap<String, u64>,
    /// Requests to which the connection is subscribed, by request id, with the time of the server's
    /// confirmation.
    pub(super) subscribed: BTreeMap<String, Timestamp>,
    /// Ids of the requests whose terminal frame the connection has received.
    pub(super) ended: BTreeSet<String>,
}

/// A query about a request: status, subscribe or cancel.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// Action of the query: `status`, `subscribe` or `cancel`.
    pub(super) action: String,
    /// Id of the request that the query concerns.
    pub(super) about: String,
    /// Whether the request was stored when the query was sent.
    pub(super) was_there: bool,
}

/// Summary of all messages that a user has sent under one request id.
#[derive(Debug, Default)]
pub(super) struct SentRequest {
    /// Each action and payload that the user has sent under the request id. More than one pair is a conflict.
    pub(super) contents: BTreeSet<(String, String)>,
    /// True if at least one message with the id may be answered as a quick request, which is not queued.
    pub(super) may_be_quick: bool,
    /// True if the user has sent a cancel of the request.
    pub(super) is_cancelled: bool,
}

impl ClientModel {
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            queries: BTreeMap::new(),
            nameless: 0,
            ended: BTreeSet::new(),
            session: Session::default(),
            is_connected: false,
        }
    }
}
