//! What must hold: each invariant, as soon as it can be told, and at the end.
//!
//! The checks see what the fakes saw (every write, every frame, who made it), what clients sent and heard, and what handlers did. Of
//! the code that they check they use the state machine, which says what is legal, and what reads messages, items and letters.

mod clients;
mod image;
mod posts;
mod request;
mod rules;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use streamer::dead_letters::DeadLetter;
use streamer::ids::{TenantId, UserId};
use streamer::lifecycle::Rules;
use streamer::ports::Timestamp;

use super::plan::{FaultKind, Plan};
use super::record::{Event, What, WorldEvent};
use clients::{Asked, ClientView};
use request::Life;
use streamer_fakes::faults::Caller;
use streamer_fakes::observe::Observation;

/// Something that must not be, and was.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Violation {
    /// Which rule was broken, such as `2: a terminal state never changes`.
    pub rule: String,
    /// When it showed, on the world's clock.
    pub at: Timestamp,
    /// The request that it is about, if it is about one, as `tenant/user/id`.
    pub request: Option<String>,
    /// What was seen.
    pub message: String,
}

/// How a world stands when all is over.
#[derive(Debug, Default)]
pub(super) struct Final {
    pub(super) at: Timestamp,
    /// Every item of the requests table.
    pub(super) requests: Vec<Value>,
    /// Every item of the connections table.
    pub(super) connections: Vec<Value>,
    /// The bodies of what lies in the dead-letter queue.
    pub(super) dead_letters: Vec<String>,
    /// The bodies of what lies in the queue for records that cannot be processed.
    pub(super) stream_failures: Vec<String>,
    /// Tasks that are there though the stage has ended.
    pub(super) tasks_left: usize,
}

/// Watches a world, and knows what was wrong with it.
#[derive(Debug)]
pub(super) struct Checker {
    setting: Setting,
    found: Found,
    /// By whose they are and how their clients call them: see [`request_of`].
    requests: BTreeMap<String, Life>,
    /// Which request was queued last under a key of the table.
    stored: HashMap<String, String>,
    /// Whose each connection is, as its token says.
    owners: HashMap<String, Owner>,
    open: BTreeSet<String>,
    /// Connections that a fault had somebody find gone.
    seemed_gone: BTreeSet<String>,
    ledger: Ledger,
    clients: Vec<ClientView>,
    /// What was sent under a key.
    asked: BTreeMap<String, Asked>,
    /// Who has sent messages without an id, which is given one then.
    asks_without_id: BTreeSet<Owner>,
    /// The ids of the dead letters that were taken.
    letters: BTreeSet<String>,
    calm_at: Option<Timestamp>,
}

/// A user of a tenant.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Owner {
    user: UserId,
    tenant: TenantId,
}

impl Owner {
    fn key(&self, id: &str) -> String {
        request_of(self.tenant.as_str(), self.user.as_str(), id)
    }
}

/// Which request a user of a tenant means by an id, in one text.
///
/// It reads like the table's keys, and is not asked of the code that makes them: that two users' requests are two is what
/// is to be checked.
fn request_of(tenant: &str, user: &str, id: &str) -> String {
    [tenant, user, id].map(|part| part.replace('%', "%25").replace('/', "%2F")).join("/")
}

/// What all requests together have cost, as far as those pay who run them and answer about them.
#[derive(Debug, Default)]
struct Ledger {
    calls: u64,
    writes: u64,
    messages: u64,
}

/// What of a plan decides on what is allowed.
#[derive(Debug)]
struct Setting {
    /// Whether nothing goes wrong on purpose.
    is_faultless: bool,
    /// Whether a frame can arrive long after it was sent.
    may_be_late: bool,
    /// Whether somebody who is there can be found gone.
    may_seem_gone: bool,
    /// By how much a function's time may differ from the world's.
    skew: Duration,
    rules: Rules,
    lease: Duration,
    ttl: Duration,
    async_threshold_ms: u64,
    cancel_on_disconnect: bool,
    is_concurrency_limited: bool,
}

impl Setting {
    fn of(plan: &Plan) -> Self {
        let kinds: BTreeSet<FaultKind> =
            plan.faults.iter().filter(|fault| fault.rate > 0.0).map(|fault| fault.kind).collect();
        let number = |name: &str, default: u64| {
            plan.stage.variables.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let rules = Rules::default();
        let max_continuations = number("MAX_CONTINUATIONS", rules.max_continuations.into());
        let variable = plan.stage.variables.get("CANCEL_ON_DISCONNECT");
        Self {
            is_faultless: kinds.is_empty(),
            may_be_late: [FaultKind::SlowPost, FaultKind::Freeze, FaultKind::Hang]
                .iter()
                .any(|kind| kinds.contains(kind)),
            may_seem_gone: kinds.contains(&FaultKind::PostGone),
            skew: if kinds.contains(&FaultKind::ClockSkew) { Duration::from_secs(5) } else { Duration::ZERO },
            rules: Rules { max_continuations: u32::try_from(max_continuations).unwrap_or(u32::MAX) },
            lease: Duration::from_millis(number("LEASE_MS", 60_000)),
            ttl: Duration::from_secs(number("REQUEST_TTL_S", 604_800)),
            async_threshold_ms: number("ASYNC_THRESHOLD_MS", 5_000),
            cancel_on_disconnect: plan.stage.cancel_on_disconnect
                || variable.is_some_and(|value| value == "true"),
            is_concurrency_limited: !plan.stage.concurrency.is_empty(),
        }
    }
}

/// What was found wrong: of one request the first break of each rule, which is what the others follow from.
#[derive(Debug, Default)]
struct Found {
    violations: Vec<Violation>,
    known: BTreeSet<(&'static str, Option<String>)>,
}

impl Found {
    fn broken(&mut self, rule: &'static str, at: Timestamp, request: Option<&str>, message: String) {
        let request = request.map(str::to_owned);
        if self.known.insert((rule, request.clone())) {
            self.violations.push(Violation { rule: rule.to_owned(), at, request, message });
        }
    }
}

/// How the stage's functions are told apart, by their template's names.
const SWEEPER: &str = "SweeperFunction";
const ROUTER: &str = "RouterFunction";
const CONNECT: &str = "ConnectFunction";
const DISCONNECT: &str = "DisconnectFunction";
const PROCESSOR: &str = "ProcessorFunction";
const WORKER: &str = "WorkerFunction";
/// The table that requests lie in.
const REQUESTS: &str = "RequestsTable";

/// Whether what a function calls is in the budget of requests: the sweeper looks around whether there are any or not.
fn pays(caller: &Caller) -> bool {
    [ROUTER, PROCESSOR, WORKER].iter().any(|function| caller.function().ends_with(function))
}

impl Checker {
    pub(super) fn new(plan: &Plan) -> Self {
        let clients = plan.clients.iter().map(|client| {
            ClientView::new(Owner { user: UserId::new(&client.user), tenant: TenantId::new(&client.tenant) })
        });
        let mut checker = Self {
            setting: Setting::of(plan),
            found: Found::default(),
            requests: BTreeMap::new(),
            stored: HashMap::new(),
            owners: HashMap::new(),
            open: BTreeSet::new(),
            seemed_gone: BTreeSet::new(),
            ledger: Ledger::default(),
            clients: clients.collect(),
            asked: BTreeMap::new(),
            asks_without_id: BTreeSet::new(),
            letters: BTreeSet::new(),
            calm_at: None,
        };
        for client in &plan.clients {
            let owner = Owner { user: UserId::new(&client.user), tenant: TenantId::new(&client.tenant) };
            client.steps.iter().for_each(|step| checker.may_ask(&owner, &step.act));
        }
        checker
    }

    /// Takes note of what has happened.
    pub(super) fn saw(&mut self, event: &Event) {
        let at = event.at;
        match &event.what {
            What::Fake(Observation::Wrote { caller, table, keys, image }) => {
                if table.ends_with(REQUESTS) {
                    self.ledger.writes += u64::from(caller.as_ref().is_some_and(pays));
                    self.wrote(at, caller.as_ref(), keys, image.as_ref());
                }
            }
            What::Fake(Observation::Posted { caller, connection, frame, answer }) => {
                self.posted(at, caller.as_ref(), connection, frame, answer);
            }
            What::Fake(Observation::Invoked { environment, payload, .. }) => {
                if environment.function().ends_with(CONNECT) {
                    self.connecting(payload);
                }
            }
            What::Fake(Observation::Opened { connection }) => {
                self.open.insert(connection.clone());
            }
            What::Fake(Observation::Ended { connection, .. }) => {
                self.open.remove(connection);
            }
            What::Fake(Observation::Queued { queue, body }) => {
                if queue.ends_with("DeadLetterQueue") {
                    self.lettered(at, body);
                }
            }
            What::Fake(Observation::Called { caller, tables, .. }) => {
                let is_paid = tables.ends_with(REQUESTS) && caller.as_ref().is_some_and(pays);
                self.ledger.calls += u64::from(is_paid);
            }
            What::Fake(Observation::Injected { fault, resource, .. }) => {
                if *fault == FaultKind::PostGone.name() {
                    self.seemed_gone.insert(resource.clone());
                }
            }
            What::Fake(Observation::Started { .. } | Observation::Returned { .. }) => {}
            What::Client(number, event) => self.client(at, *number, event),
            What::Handler(event) => self.ran(at, event),
            What::World(WorldEvent::Calm) => self.calm_at = Some(at),
            What::World(
                WorldEvent::Begin | WorldEvent::Fault { .. } | WorldEvent::Settled | WorldEvent::End,
            ) => {}
        }
    }

    pub(super) fn violations(&self) -> &[Violation] {
        &self.found.violations
    }

    /// Notes whose a connection is that asks to be let in. What its token says is believed: whether it is right to is no
    /// question of the simulator's, whose clients sign their own.
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
            self.owners.insert(connection.to_owned(), owner);
        }
    }

    fn lettered(&mut self, at: Timestamp, body: &str) {
        let Ok(letter) = serde_json::from_str::<DeadLetter>(body) else {
            self.found.broken(rules::LETTERS_ARE_FAILURES, at, None, format!("no letter is: {body}"));
            return;
        };
        let key = request_of(letter.tenant.as_str(), letter.user.as_str(), letter.request_id.as_str());
        let wrong = match self.requests.get(&key) {
            None => Some("there is no such request".to_owned()),
            Some(life) => life.mismatch_of(&letter),
        };
        if let Some(wrong) = wrong {
            let message = format!("the letter {} is sent, and {wrong}", letter.id);
            self.found.broken(rules::LETTER_AFTER_END, at, Some(&key), message);
        }
        self.letters.insert(letter.id);
    }
}
