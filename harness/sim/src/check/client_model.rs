//! The checker's model of one client.

use std::collections::{BTreeMap, BTreeSet};

use streamer::ports::Timestamp;

use super::owner::Owner;

/// The checker's model of one client: what the client has sent and received.
#[derive(Debug)]
pub(super) struct ClientModel {
    /// User and tenant of the client.
    pub(super) owner: Owner,
    /// Queries about requests (status, subscribe and cancel), by the id of the query's message.
    pub(super) queries: BTreeMap<String, Query>,
    /// Number of messages that were sent without a readable id, and not yet answered by an error without an
    /// id.
    pub(super) nameless: u32,
    /// Ids of the requests whose terminal frame the client has received, over any connection.
    pub(super) ended: BTreeSet<String>,
    /// State of the client's current connection.
    pub(super) session: Session,
    pub(super) is_connected: bool,
}

/// State of one connection, as its client knows it.
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

/// Everything that a user has sent under one request id.
#[derive(Debug, Default)]
pub(super) struct SentRequest {
    /// Actions and payloads that were sent under the id. More than one pair is a conflict.
    pub(super) contents: BTreeSet<(String, String)>,
    /// Whether one of the messages may be answered as a quick request, without being queued.
    pub(super) may_be_quick: bool,
    /// Whether a cancel of the request was sent.
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
