//! Draws the clients of a world, and their steps.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::json;

use super::super::job::{Job, PERMISSION};
use super::super::plan::{Act, ClientPlan, Step};
use super::jobs::{DrawnRequest, Jobs};
use super::random::{happens, ms_of_any_order, of_any_order, one_of};
use super::span::Span;

/// Pairs of user and tenant. Some pairs would produce the same key if the delimiter between tenant and user
/// were not escaped.
const IDENTITIES: [(&str, &str); 12] = [
    ("ann", "acme"),
    ("bob", "acme"),
    ("ann", "globex"),
    ("zoë", "acme"),
    ("b/c", "a"),
    ("c", "a/b"),
    ("b%2Fc", "a"),
    ("acme/ann", "acme"),
    ("ann ", "acme"),
    ("Ann", "acme"),
    ("😀", "日本"),
    ("auth0|5f7c8ec7c33c6c004bbafe82", "org_7f2a"),
];

/// Habits of the clients of one world; the value of a habit is its probability.
#[derive(Clone, Copy, Debug)]
struct Habits {
    repeats: f64,
    contradicts: f64,
    cancels: f64,
    follows: f64,
    queries_status: f64,
    is_hostile: f64,
    names_oddly: f64,
    /// Mean number of times that a client disconnects during the world.
    departures: f64,
    /// True if the clients send all their requests within the first five seconds.
    is_a_rush: bool,
}

impl Habits {
    fn draw(rng: &mut Rng) -> Self {
        let mut some = |most: f64| if happens(rng, 0.5) { of_any_order(rng, most / 10.0, most) } else { 0.0 };
        Self {
            repeats: some(0.5),
            contradicts: some(0.2),
            cancels: some(0.6),
            follows: some(0.5),
            queries_status: some(0.4),
            is_hostile: some(0.4),
            names_oddly: some(0.2),
            departures: some(6.0),
            is_a_rush: happens(rng, 0.25),
        }
    }
}

/// Draws the clients of a world and their steps.
pub(super) fn draw(rng: &mut Rng, span: Span, faults_until_ms: u64, jobs: &Jobs) -> Vec<ClientPlan> {
    let habits = Habits::draw(rng);
    let identities = identities(rng);
    // Most worlds have few requests, because many make a world slow to simulate.
    let requests = if happens(rng, 0.3) { rng.usize(20..=60) } else { rng.usize(5..=20) };
    let mut clients: Vec<DrawnClient> = identities
        .into_iter()
        .enumerate()
        .map(|(device, (user, tenant))| DrawnClient::new(rng, device, user, tenant, faults_until_ms))
        .collect();
    let mut named = BTreeSet::new();
    for number in 0..requests {
        let sender = rng.usize(..clients.len());
        let drawn = jobs.request(rng);
        let at_ms = if habits.is_a_rush { rng.u64(0..5_000) } else { rng.u64(0..faults_until_ms * 4 / 5) };
        let mut id = id(rng, habits, number);
        let ClientPlan { user, tenant, .. } = &clients[sender].plan;
        // Replace an id that the user has already used: repeating an id is a separate habit.
        if !named.insert((user.clone(), tenant.clone(), id.clone())) {
            id = format!("r{number}");
        }
        request(rng, habits, &mut clients, sender, at_ms, &id, drawn);
    }
    for client in &mut clients {
        client.come_and_go(rng, habits, span);
        client.be_hostile(rng, habits);
    }
    clients.into_iter().map(DrawnClient::done).collect()
}

/// Draws the user and tenant of each client. Some clients are a second device of the same user.
fn identities(rng: &mut Rng) -> Vec<(&'static str, &'static str)> {
    let most = one_of(rng, &[1, 2, 3, 3, 4, 6]);
    let first = rng.usize(..IDENTITIES.len());
    let mut chosen = vec![IDENTITIES[first]];
    while chosen.len() < most {
        let next = if happens(rng, 0.35) { one_of(rng, &chosen) } else { one_of(rng, &IDENTITIES) };
        chosen.push(next);
    }
    chosen
}

/// Draws a request id. Different users may get the same id.
fn id(rng: &mut Rng, habits: Habits, number: usize) -> String {
    if !happens(rng, habits.names_oddly) {
        // Some ids repeat an earlier number, so that different users send the same id.
        return if happens(rng, 0.2) { format!("r{}", rng.usize(..=number)) } else { format!("r{number}") };
    }
    match rng.u32(0..6) {
        0 => format!("a/b{number}"),
        1 => format!("a%2Fb{number}"),
        2 => format!("{number}#é😀"),
        3 => format!("{number}{}", "x".repeat(120)),
        4 => format!(" {number} "),
        _ => format!("\"{number}\\"),
    }
}

/// Adds a request to its client's steps, and adds all further steps about the request: repeats,
/// subscriptions, status queries and cancels.
fn request(
    rng: &mut Rng,
    habits: Habits,
    clients: &mut [DrawnClient],
    sender: usize,
    at_ms: u64,
    id: &str,
    drawn: DrawnRequest,
) {
    let sends = |drawn: DrawnRequest| Act::Request {
        id: id.to_owned(),
        action: drawn.action,
        payload: drawn.payload,
    };
    let id_alone = || id.to_owned();
    // A message reveals most bugs if it arrives at about the time when the request is queued, or when the job
    // ends.
    let takes = serde_json::from_value::<Job>(drawn.payload.clone()).map_or(0, |job| job.takes_ms());
    let moment = |rng: &mut Rng| match rng.u32(0..3) {
        0 => at_ms + rng.u64(0..100),
        1 => at_ms + takes.saturating_sub(300) + rng.u64(0..1_500),
        _ => at_ms + ms_of_any_order(rng, 1, 120_000),
    };
    // Further steps about a request come from its client, another device of its user, or a stranger.
    let (user, tenant) = (clients[sender].plan.user.clone(), clients[sender].plan.tenant.clone());
    let is_same = |client: &DrawnClient| client.plan.user == user && client.plan.tenant == tenant;
    let others: Vec<usize> = (0..clients.len()).filter(|other| *other != sender).collect();
    let any_client =
        |rng: &mut Rng| if happens(rng, 0.7) || others.is_empty() { sender } else { one_of(rng, &others) };

    clients[sender].add_step(at_ms, sends(drawn.clone()));
    while happens(rng, habits.repeats) {
        let device = any_client(rng);
        // A request that a stranger sends with the same id is a separate request, because ids are scoped by
        // user.
        let at_ms = moment(rng);
        clients[device].add_step(at_ms, sends(drawn.clone()));
    }
    if happens(rng, habits.contradicts) {
        let at_ms = moment(rng);
        let payload = json!({"estimate_ms": 6_000, "steps": [{"wait": rng.u64(0..3_000)}]});
        clients[sender].add_step(at_ms, sends(DrawnRequest { payload, ..drawn }));
    }
    while happens(rng, habits.follows) {
        let (device, at_ms) = (any_client(rng), moment(rng));
        // Some clients subscribe to a request that nobody has sent.
        let id = if happens(rng, 0.05) { "never-asked-for".to_owned() } else { id_alone() };
        clients[device].add_step(at_ms, Act::Subscribe { id });
    }
    if happens(rng, habits.queries_status) {
        let (device, at_ms) = (any_client(rng), moment(rng));
        clients[device].add_step(at_ms, Act::Status { id: id_alone() });
    }
    if happens(rng, habits.cancels) {
        let device = any_client(rng);
        let at_ms = moment(rng);
        clients[device].add_step(at_ms, Act::Cancel { id: id_alone() });
        // Some clients send the cancel twice.
        if happens(rng, 0.2) && is_same(&clients[device]) {
            clients[device].add_step(at_ms + rng.u64(0..2_000), Act::Cancel { id: id_alone() });
        }
    }
}

/// A client whose steps are not sorted by time yet.
struct DrawnClient {
    plan: ClientPlan,
    faults_until_ms: u64,
}

impl DrawnClient {
    fn new(rng: &mut Rng, device: usize, user: &str, tenant: &str, faults_until_ms: u64) -> Self {
        // Some clients have the permission, some have short-lived tokens, and some do not resend messages.
        let plan = ClientPlan {
            user: user.to_owned(),
            tenant: tenant.to_owned(),
            permissions: if happens(rng, 0.6) { vec![PERMISSION.to_owned()] } else { Vec::new() },
            token_ttl_ms: if happens(rng, 0.1) { rng.u64(30_000..=300_000) } else { 0 },
            gives_up: happens(rng, 0.2),
            steps: Vec::new(),
        };
        let mut client = Self { plan, faults_until_ms };
        // The first client connects at the start; some of the others connect later.
        let at_ms = if device == 0 || happens(rng, 0.7) { 0 } else { rng.u64(0..10_000) };
        client.add_step(at_ms, Act::Connect);
        client
    }

    /// Adds a step. A step after the end of the faults is moved to that end.
    fn add_step(&mut self, at_ms: u64, act: Act) {
        self.plan.steps.push(Step { at_ms: at_ms.min(self.faults_until_ms), act });
    }

    fn come_and_go(&mut self, rng: &mut Rng, habits: Habits, span: Span) {
        // On average, the loop runs `departures` times.
        let mut departures = 0;
        while happens(rng, habits.departures / (1.0 + habits.departures)) && departures < 20 {
            departures += 1;
            // Half of the departures happen within ten seconds after another step of the client.
            let said = one_of(rng, &self.plan.steps).at_ms + ms_of_any_order(rng, 1, 10_000);
            let at_ms = if rng.bool() { said } else { rng.u64(0..self.faults_until_ms) };
            self.add_step(at_ms, one_of(rng, &[Act::Close, Act::Vanish, Act::CutOff]));
            // Some clients stay away until the faults have ended.
            if happens(rng, 0.9) {
                self.add_step(at_ms + ms_of_any_order(rng, 1, 90_000), Act::Connect);
            }
        }
        // In the longest worlds some clients ping every few minutes, so that their connections are never idle
        // and reach the gateway's 2-hour limit.
        if span == Span::Connections && happens(rng, 0.6) {
            let mut at_ms = 0;
            while at_ms < self.faults_until_ms {
                at_ms += rng.u64(200_000..590_000);
                self.add_step(at_ms, Act::SendText { text: json!({"action": "ping"}).to_string() });
            }
        }
    }

    fn be_hostile(&mut self, rng: &mut Rng, habits: Habits) {
        while happens(rng, habits.is_hostile) {
            let text = hostile(rng);
            self.add_step(rng.u64(0..self.faults_until_ms), Act::SendText { text });
        }
    }

    fn done(mut self) -> ClientPlan {
        self.plan.steps.sort_by_key(|step| step.at_ms);
        self.plan
    }
}

/// Draws a malformed or hostile message.
fn hostile(rng: &mut Rng) -> String {
    let texts: [&str; 21] = [
        "",
        "{",
        "null",
        "[]",
        "\u{feff}{\"action\":\"ping\"}",
        r#"{"action":"work"}"#,
        r#"{"action":"ping","id":7}"#,
        r#"{"action":"ping","id":"a\u0000b"}"#,
        r#"{"action":"ping","id":"h1","id":"h2"}"#,
        r#"{"id":"h3","payload":{"action":"ping"}}"#,
        r#"{"action":"","id":"h4"}"#,
        r#"{"action":"subscribe","id":"h5","payload":{"request_id":"r0","seq":-1}}"#,
        r#"{"action":"subscribe","id":"h6","payload":{"request_id":"r0","seq":18446744073709551615}}"#,
        r#"{"action":"cancel","id":"h7","payload":{"request_id":["r0"]}}"#,
        r#"{"action":"cancel","id":"h8","payload":{"request_id":"r0","user_id":"ann","tenant_id":"acme"}}"#,
        r#"{"action":"status","id":"h9","payload":{"request_id":"../r0"}}"#,
        r#"{"action":"$disconnect","id":"h10"}"#,
        r#"{"action":"work","id":"h11","metadata":{"a":{"b":1}},"payload":{"estimate_ms":1e400}}"#,
        r#"{"action":"status","id":"h12","payload":null,"type":"complete","request_id":"r0","seq":1}"#,
        "{\"action\":\"ping\",\"id\":\"\u{202e}\u{1f600}\"}",
        r#"{"message":"Internal server error","connectionId":"x","requestId":"y"}"#,
    ];
    match rng.u32(0..12) {
        // This message is larger than the gateway accepts in one frame, so the gateway closes the connection.
        0 => format!(r#"{{"action":"ping","id":"h20","payload":"{}"}}"#, "x".repeat(33_000)),
        1 => format!(r#"{{"action":"ping","id":"h21","payload":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
        2 => format!(r#"{{"action":"{}","id":"h22"}}"#, "x".repeat(200)),
        _ => one_of(rng, &texts).to_owned(),
    }
}
