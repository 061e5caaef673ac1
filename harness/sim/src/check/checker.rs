//! Passes each event of a world to the checker's model of the world.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::function::{CONNECT, is_billed};
use super::owner::Owner;
use super::violation::Violation;
use super::world_model::{FinalState, WorldModel};
use crate::event::{Event, EventKind, WorldEvent};
use crate::plan::{FaultKind, Plan};
use streamer_fakes::observe::Observation;

/// Suffix of the requests table's name.
const REQUESTS: &str = "RequestsTable";

/// Checks the events of a world against the rules, and keeps the violations.
#[derive(Debug)]
pub(crate) struct Checker(WorldModel);

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut model = WorldModel::new(plan);
        for client in &plan.clients {
            let owner = Owner::of(client);
            client.steps.iter().for_each(|step| model.may_send(&owner, &step.act));
        }
        Self(model)
    }

    /// Checks one event.
    pub(crate) fn check_event(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::Fake(Observation::Wrote { caller, table, keys, image }) => {
                if table.ends_with(REQUESTS) {
                    self.0.ledger.writes += u64::from(caller.as_ref().is_some_and(is_billed));
                    self.0.wrote(at, caller.as_ref(), keys, image.as_ref());
                }
            }
            EventKind::Fake(Observation::Posted { caller, connection, frame, answer }) => {
                self.0.posted(at, caller.as_ref(), connection, frame, answer);
            }
            EventKind::Fake(Observation::Invoked { environment, payload, .. }) => {
                if environment.function().ends_with(CONNECT) {
                    self.connecting(payload);
                }
            }
            EventKind::Fake(Observation::Opened { connection }) => {
                self.0.open.insert(connection.clone());
            }
            EventKind::Fake(Observation::Ended { connection, .. }) => {
                self.0.open.remove(connection);
            }
            EventKind::Fake(Observation::Queued { queue, body }) => {
                if queue.ends_with("DeadLetterQueue") {
                    self.0.letter_sent(at, body);
                }
            }
            EventKind::Fake(Observation::Called { caller, tables, .. }) => {
                let is_paid = tables.ends_with(REQUESTS) && caller.as_ref().is_some_and(is_billed);
                self.0.ledger.calls += u64::from(is_paid);
            }
            EventKind::Fake(Observation::Injected { fault, resource, .. }) => {
                if *fault == FaultKind::PostGone.name() {
                    self.0.seemed_gone.insert(resource.clone());
                }
            }
            EventKind::Fake(Observation::Started { .. } | Observation::Returned { .. }) => {}
            EventKind::Client(number, event) => self.0.client_event(at, *number, event),
            EventKind::Handler(event) => self.0.handler_event(at, event),
            EventKind::World(WorldEvent::FaultsEnded) => self.0.faults_ended_at = Some(at),
            EventKind::World(
                WorldEvent::Begin | WorldEvent::Fault { .. } | WorldEvent::Settled | WorldEvent::End,
            ) => {}
        }
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.0.found.violations
    }

    /// Checks the final state of the world.
    pub(crate) fn finish(&mut self, last: &FinalState) {
        self.0.finish(last);
    }

    /// Records the owner of a connection from the token in its `$connect` event. The token is not verified,
    /// because the simulator's clients sign their own tokens.
    fn connecting(&mut self, event: &[u8]) {
        let event: Value = serde_json::from_slice(event).unwrap_or_default();
        let connection = event["requestContext"]["connectionId"].as_str();
        let token = event["queryStringParameters"]["token"].as_str();
        let claims = token.and_then(|token| token.split('.').nth(1));
        let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims: Value =
            claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
        if let (Some(connection), Some(user), Some(tenant)) =
            (connection, claims["sub"].as_str(), claims["tenant_id"].as_str())
        {
            let owner = Owner { user: user.into(), tenant: tenant.into() };
            self.0.owners.insert(connection.to_owned(), owner);
        }
    }
}
