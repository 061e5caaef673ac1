//! Who uses a stage, and what they do.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::json;

use super::super::job::{Job, PERMISSION};
use super::super::plan::{Act, ClientPlan, Step};
use super::jobs::{DrawnRequest, Jobs};
use super::random::{happens, ms_of_any_order, of_any_order, one_of};
use super::span::Span;

/// Users and tenants, some of whose names run into each other unless the delimiter between them is escaped.
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

/// What the clients of one world are like: how likely each habit is.
#[derive(Clone, Copy, Debug)]
struct Habits {
    repeats: f64,
    contradicts: f64,
    cancels: f64,
    follows: f64,
    queries_status: f64,
    is_hostile: f64,
    names_oddly: f64,
    /// How often a client goes, in all.
    departures: f64,
    /// Whether they ask for all they want at once.
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

/// Draws the clients of a world.
pub(super) fn draw(rng: &mut Rng, span: Span, faults_until_ms: u64, jobs: &Jobs) -> Vec<ClientPlan> {
    let habits = Habits::draw(rng);
    let identities = identities(rng);
    // From a few to many; many at once cost most.
    let requests = if happens(rng, 0.3) { rng.usize(20..=60) } else { rng.usize(5..=20) };
    let mut clients: Vec<DrawnClient> = identities
        .into_iter()
        .enumerate()
        .map(|(device, (user, tenant))| DrawnClient::new(rng, device, user, tenant, faults_until_ms))
        .collect();
    let mut named = BTreeSet::new();
    for number in 0..requests {
        let who = rng.usize(..clients.len());
        let drawn = jobs.request(rng);
        let at_ms = if habits.is_a_rush { rng.u64(0..5_000) } else { rng.u64(0..faults_until_ms * 4 / 5) };
        let mut id = id(rng, habits, number);
        let ClientPlan { user, tenant, .. } = &clients[who].plan;
        // Who names two things alike does so by mistake, which is a habit of its own.
        if !named.insert((user.clone(), tenant.clone(), id.clone())) {
            id = format!("r{number}");
        }
        request(rng, habits, &mut clients, who, at_ms, &id, drawn);
    }
    for client in &mut clients {
        client.come_and_go(rng, habits, span);
        client.be_hostile(rng, habits);
    }
    clients.into_iter().map(DrawnClient::done).collect()
}

/// Who the clients are: each its own, or some a second device of the same user.
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

/// Different users may name their requests alike, and so may one user at two devices, who then means the same one.
fn id(rng: &mut Rng, habits: Habits, number: usize) -> String {
    if !happens(rng, habits.names_oddly) {
        // Numbers come again, for other users most of the time.
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

/// A request, and all that is done about it.
fn request(
    rng: &mut Rng,
    habits: Habits,
    clients: &mut [DrawnClient],
    who: usize,
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
    // What meets the moment at which it is taken or ends finds most.
    let takes = serde_json::from_value::<Job>(drawn.payload.clone()).map_or(0, |job| job.takes_ms());
    let moment = |rng: &mut Rng| match rng.u32(0..3) {
        0 => at_ms + rng.u64(0..100),
        1 => at_ms + takes.saturating_sub(300) + rng.u64(0..1_500),
        _ => at_ms + ms_of_any_order(rng, 1, 120_000),
    };
    // What another device of the same user does, and what a stranger does with what is not theirs.
    let (user, tenant) = (clients[who].plan.user.clone(), clients[who].plan.tenant.clone());
    let is_same = |client: &DrawnClient| client.plan.user == user && client.plan.tenant == tenant;
    let others: Vec<usize> = (0..clients.len()).filter(|other| *other != who).collect();
    let anybody =
        |rng: &mut Rng| if happens(rng, 0.7) || others.is_empty() { who } else { one_of(rng, &others) };

    clients[who].does(at_ms, sends(drawn.clone()));
    while happens(rng, habits.repeats) {
        let device = anybody(rng);
        // A stranger who repeats an id has a request of their own: that is what ids are scoped for.
        let at_ms = moment(rng);
        clients[device].does(at_ms, sends(drawn.clone()));
    }
    if happens(rng, habits.contradicts) {
        let at_ms = moment(rng);
        let payload = json!({"estimate_ms": 6_000, "steps": [{"wait": rng.u64(0..3_000)}]});
        clients[who].does(at_ms, sends(DrawnRequest { payload, ..drawn }));
    }
    while happens(rng, habits.follows) {
        let (device, at_ms) = (anybody(rng), moment(rng));
        // Not knowing of it is no reason not to ask.
        let id = if happens(rng, 0.05) { "never-asked-for".to_owned() } else { id_alone() };
        clients[device].does(at_ms, Act::Subscribe { id });
    }
    if happens(rng, habits.queries_status) {
        let (device, at_ms) = (anybody(rng), moment(rng));
        clients[device].does(at_ms, Act::Status { id: id_alone() });
    }
    if happens(rng, habits.cancels) {
        let device = anybody(rng);
        let at_ms = moment(rng);
        clients[device].does(at_ms, Act::Cancel { id: id_alone() });
        // And again, to be sure.
        if happens(rng, 0.2) && is_same(&clients[device]) {
            clients[device].does(at_ms + rng.u64(0..2_000), Act::Cancel { id: id_alone() });
        }
    }
}

/// A client, whose steps are not in order yet.
struct DrawnClient {
    plan: ClientPlan,
    faults_until_ms: u64,
}

impl DrawnClient {
    fn new(rng: &mut Rng, device: usize, user: &str, tenant: &str, faults_until_ms: u64) -> Self {
        // Some work with permission, some with tokens that hardly live, and some do not mind whether they are heard.
        let plan = ClientPlan {
            user: user.to_owned(),
            tenant: tenant.to_owned(),
            permissions: if happens(rng, 0.6) { vec![PERMISSION.to_owned()] } else { Vec::new() },
            token_ttl_ms: if happens(rng, 0.1) { rng.u64(30_000..=300_000) } else { 0 },
            gives_up: happens(rng, 0.2),
            steps: Vec::new(),
        };
        let mut client = Self { plan, faults_until_ms };
        // The first is there from the start; the others come as they come.
        let at_ms = if device == 0 || happens(rng, 0.7) { 0 } else { rng.u64(0..10_000) };
        client.does(at_ms, Act::Connect);
        client
    }

    /// What would come after the end of the trouble comes at its end.
    fn does(&mut self, at_ms: u64, act: Act) {
        self.plan.steps.push(Step { at_ms: at_ms.min(self.faults_until_ms), act });
    }

    fn come_and_go(&mut self, rng: &mut Rng, habits: Habits, span: Span) {
        // So often on the average.
        let mut departures = 0;
        while happens(rng, habits.departures / (1.0 + habits.departures)) && departures < 20 {
            departures += 1;
            // Most go when they have just said something.
            let said = one_of(rng, &self.plan.steps).at_ms + ms_of_any_order(rng, 1, 10_000);
            let at_ms = if rng.bool() { said } else { rng.u64(0..self.faults_until_ms) };
            self.does(at_ms, one_of(rng, &[Act::Close, Act::Vanish, Act::CutOff]));
            // Some do not come back before it is all over.
            if happens(rng, 0.9) {
                self.does(at_ms + ms_of_any_order(rng, 1, 90_000), Act::Connect);
            }
        }
        // Who says something every few minutes is not idle, and stays for as long as a connection may live.
        if span == Span::Connections && happens(rng, 0.6) {
            let mut at_ms = 0;
            while at_ms < self.faults_until_ms {
                at_ms += rng.u64(200_000..590_000);
                self.does(at_ms, Act::SendText { text: json!({"action": "ping"}).to_string() });
            }
        }
    }

    fn be_hostile(&mut self, rng: &mut Rng, habits: Habits) {
        while happens(rng, habits.is_hostile) {
            let text = hostile(rng);
            self.does(rng.u64(0..self.faults_until_ms), Act::SendText { text });
        }
    }

    fn done(mut self) -> ClientPlan {
        self.plan.steps.sort_by_key(|step| step.at_ms);
        self.plan
    }
}

/// What a client of ours does not send.
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
        // More than a frame may have: the gateway closes.
        0 => format!(r#"{{"action":"ping","id":"h20","payload":"{}"}}"#, "x".repeat(33_000)),
        1 => format!(r#"{{"action":"ping","id":"h21","payload":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
        2 => format!(r#"{{"action":"{}","id":"h22"}}"#, "x".repeat(200)),
        _ => one_of(rng, &texts).to_owned(),
    }
}
