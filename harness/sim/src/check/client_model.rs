//! What is known of one client.

use std::collections::{BTreeMap, BTreeSet};

use streamer::ports::Timestamp;

use super::owner::Owner;

/// A client, as it sees the world.
#[derive(Debug)]
pub(super) struct ClientModel {
    pub(super) owner: Owner,
    /// What it asked about a request, by the id of the question.
    pub(super) questions: BTreeMap<String, Question>,
    /// How many messages it has sent of which nobody can make out an id.
    pub(super) nameless: u32,
    /// The requests of whose end it has heard, over whichever connection.
    pub(super) ended: BTreeSet<String>,
    pub(super) session: Session,
    pub(super) is_connected: bool,
}

/// One connection, from its client's side.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The last number heard of each request.
    pub(super) seqs: BTreeMap<String, u64>,
    /// The requests that it is known to listen to, and since when.
    pub(super) subscribed: BTreeMap<String, Timestamp>,
    /// The requests of whose end it has heard.
    pub(super) ended: BTreeSet<String>,
}

/// A question about a request.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) action: String,
    pub(super) about: String,
    /// Whether the request was stored when it was asked.
    pub(super) was_there: bool,
}

/// What was sent under an id.
#[derive(Debug, Default)]
pub(super) struct SentRequest {
    /// The actions and payloads: more than one is a conflict.
    pub(super) as_what: BTreeSet<(String, String)>,
    /// Whether one of them may be answered without being queued.
    pub(super) may_be_quick: bool,
    /// Whether its end was asked for.
    pub(super) is_cancelled: bool,
}

impl ClientModel {
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            questions: BTreeMap::new(),
            nameless: 0,
            ended: BTreeSet::new(),
            session: Session::default(),
            is_connected: false,
        }
    }
}
