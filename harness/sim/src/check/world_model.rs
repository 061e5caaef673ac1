//! The checker's model of a world: its requests, connections and clients.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use streamer::ports::Timestamp;

use super::client_model::{ClientModel, SentRequest};
use super::limits::Limits;
use super::owner::Owner;
use super::request_model::RequestModel;
use super::violation::Found;
use crate::plan::Plan;

/// Models of a world's requests, connections and clients, and the violations found so far.
#[derive(Debug)]
pub(super) struct WorldModel {
    pub(super) limits: Limits,
    pub(super) found: Found,
    /// Requests that were queued, by owner and client id: see [`request_of`](super::owner::request_of).
    pub(super) requests: BTreeMap<String, RequestModel>,
    /// Key in `requests` of the request that was queued last under each key of the requests table.
    pub(super) stored: HashMap<String, String>,
    /// Owner of each connection, from the connection's token, by connection id.
    pub(super) owners: HashMap<String, Owner>,
    /// Ids of the open connections.
    pub(super) open: BTreeSet<String>,
    /// Ids of the connections for which a fault injected 410 Gone.
    pub(super) seemed_gone: BTreeSet<String>,
    /// Counts over all requests, which are compared with the cost budget.
    pub(super) ledger: Ledger,
    pub(super) clients: Vec<ClientModel>,
    /// Messages that clients have sent about each request, by the key in `requests`.
    pub(super) sent: BTreeMap<String, SentRequest>,
    /// Users who have sent a message without an id; Streamer generates an id for such a message.
    pub(super) senders_without_id: BTreeSet<Owner>,
    /// Ids of the dead letters that were sent.
    pub(super) letters: BTreeSet<String>,
    /// Time at which the injection of faults ended; `None` while faults may be injected.
    pub(super) faults_ended_at: Option<Timestamp>,
}

/// Counts over all requests of a world: DynamoDB calls and writes by the router, the processor and the
/// worker, and messages from clients.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) calls: u64,
    pub(super) writes: u64,
    pub(super) messages: u64,
}

/// Tables and queues at the end of a world.
#[derive(Debug, Default)]
pub(crate) struct FinalState {
    pub(crate) at: Timestamp,
    /// Items of the requests table, each as plain JSON.
    pub(crate) requests: Vec<Value>,
    /// Items of the connections table, each as plain JSON.
    pub(crate) connections: Vec<Value>,
    /// Bodies of the messages in the dead-letter queue.
    pub(crate) dead_letters: Vec<String>,
    /// Bodies of the messages in the queue for stream records that could not be processed.
    pub(crate) stream_failures: Vec<String>,
    /// Number of tasks that still run after the stage was shut down.
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
