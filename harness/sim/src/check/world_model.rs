//! All that the checks know of a world.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use streamer::ports::Timestamp;

use super::client_model::{ClientModel, SentRequest};
use super::limits::Limits;
use super::owner::Owner;
use super::request_model::RequestModel;
use super::violation::Found;
use crate::plan::Plan;

/// All that the checks know of a world, and what was wrong with it.
#[derive(Debug)]
pub(super) struct WorldModel {
    pub(super) limits: Limits,
    pub(super) found: Found,
    /// By owner and client id: see [`request_of`](super::owner::request_of).
    pub(super) requests: BTreeMap<String, RequestModel>,
    /// Which request was queued last under a key of the table.
    pub(super) stored: HashMap<String, String>,
    /// Whose each connection is, as its token says.
    pub(super) owners: HashMap<String, Owner>,
    /// The connections that are open.
    pub(super) open: BTreeSet<String>,
    /// Connections that a fault had somebody find gone.
    pub(super) seemed_gone: BTreeSet<String>,
    pub(super) ledger: Ledger,
    pub(super) clients: Vec<ClientModel>,
    /// What was sent under a key.
    pub(super) sent: BTreeMap<String, SentRequest>,
    /// Who has sent messages without an id, which is given one then.
    pub(super) senders_without_id: BTreeSet<Owner>,
    /// The ids of the dead letters that were taken.
    pub(super) letters: BTreeSet<String>,
    pub(super) faults_ended_at: Option<Timestamp>,
}

/// What all requests together have cost, as far as those pay who run them and answer about them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) calls: u64,
    pub(super) writes: u64,
    pub(super) messages: u64,
}

/// How a world stands when all is over.
#[derive(Debug, Default)]
pub(crate) struct FinalState {
    pub(crate) at: Timestamp,
    /// Every item of the requests table.
    pub(crate) requests: Vec<Value>,
    /// Every item of the connections table.
    pub(crate) connections: Vec<Value>,
    /// The bodies of what lies in the dead-letter queue.
    pub(crate) dead_letters: Vec<String>,
    /// The bodies of what lies in the queue for records that cannot be processed.
    pub(crate) stream_failures: Vec<String>,
    /// Tasks that are there though the stage has ended.
    pub(crate) tasks_left: usize,
}

impl WorldModel {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            limits: Limits::of(plan),
            found: Found::default(),
            requests: BTreeMap::new(),
            stored: HashMap::new(),
            owners: HashMap::new(),
            open: BTreeSet::new(),
            seemed_gone: BTreeSet::new(),
            ledger: Ledger::default(),
            clients: plan.clients.iter().map(|client| ClientModel::new(Owner::of(client))).collect(),
            sent: BTreeMap::new(),
            senders_without_id: BTreeSet::new(),
            letters: BTreeSet::new(),
            faults_ended_at: None,
        }
    }
}
