//! Draws the settings of the stage.

use fastrand::Rng;

use super::super::job::Job;
use super::super::plan::{Act, ClientPlan, StagePlan};
use super::random::{happens, one_of};
use super::span::Span;

/// Environment variables, with the values that a plan may set. Each value is within the bounds of the
/// configuration.
const VARIABLES: [(&str, &[&str]); 6] = [
    ("LEASE_MS", &["30000", "45000", "90000"]),
    ("INLINE_LIMIT_MS", &["0", "5000", "15000", "120000"]),
    ("ASYNC_THRESHOLD_MS", &["0", "1000", "20000"]),
    ("CONCURRENCY", &["1", "2", "3", "100"]),
    ("MAX_CONTINUATIONS", &["0", "1", "3"]),
    ("SWEEPER_PACE_MS", &["1000", "15000", "30000", "60000"]),
];

pub(super) fn draw(rng: &mut Rng, span: Span, clients: &[ClientPlan]) -> StagePlan {
    let mut stage = StagePlan::default();
    // In the remaining worlds, each variable keeps its default value.
    if happens(rng, 0.6) {
        for (name, values) in VARIABLES {
            if happens(rng, 0.3) {
                stage.variables.insert(name.to_owned(), one_of(rng, values).to_owned());
            }
        }
    }
    if span == Span::Connections {
        // A sweep every few seconds, for two hours, would cost more to simulate than everything else in the
        // world.
        stage.variables.insert("SWEEPER_PACE_MS".to_owned(), "60000".to_owned());
    }
    if happens(rng, 0.3) {
        let needed = needed_concurrency(clients);
        for (function, least) in [("router", 2), ("processor", 1), ("worker", 1)] {
            if happens(rng, 0.4) {
                stage.concurrency.insert(function.to_owned(), (least + needed).max(rng.u32(least..6)));
            }
        }
    }
    stage.shards = if happens(rng, 0.5) { rng.u16(1..=6) } else { 0 };
    if happens(rng, 0.15) {
        stage.shard_lifetime_ms = rng.u64(20_000..300_000);
    }
    stage.cancel_on_disconnect = happens(rng, 0.15);
    stage
}

/// Returns the number of concurrent invocations that finish all jobs within ten minutes, even if each job
/// needs all of its attempts.
fn needed_concurrency(clients: &[ClientPlan]) -> u32 {
    const ATTEMPTS: u64 = 4;
    const TIME_MS: u64 = 10 * 60_000;
    let steps = clients.iter().flat_map(|client| &client.steps);
    let times = steps.map(|step| match &step.act {
        Act::Request { payload, .. } => {
            serde_json::from_value::<Job>(payload.clone()).map_or(1_000, |job| job.takes_ms())
        }
        Act::Connect
        | Act::Close
        | Act::Vanish
        | Act::CutOff
        | Act::Cancel { .. }
        | Act::Subscribe { .. }
        | Act::Status { .. }
        | Act::SendText { .. } => 0,
    });
    u32::try_from(times.sum::<u64>() * ATTEMPTS / TIME_MS).unwrap_or(u32::MAX / 2)
}
