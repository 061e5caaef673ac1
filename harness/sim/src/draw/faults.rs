//! Draws the faults of a world.

use fastrand::Rng;

use super::super::plan::{FaultKind, FaultPlan};
use super::random::{happens, of_any_order, one_of};

/// Draws some kinds of faults, each with a rate and a time span.
pub(super) fn draw(rng: &mut Rng, faults_until_ms: u64) -> Vec<FaultPlan> {
    let (kinds, divisor): (Vec<FaultKind>, f64) = match rng.u32(0..100) {
        // Some worlds have no faults, because the checker compares costs with the budget only in such worlds.
        0..5 => (Vec::new(), 1.0),
        5..15 => (vec![one_of(rng, FaultKind::ALL)], 1.0),
        15..25 => (FaultKind::ALL.to_vec(), 10.0),
        _ => {
            let probability = one_of(rng, &[0.06, 0.12, 0.25, 0.5]);
            let kinds = FaultKind::ALL.iter().copied().filter(|_| happens(rng, probability)).collect();
            (kinds, 1.0 + probability * 4.0)
        }
    };
    kinds.into_iter().map(|kind| fault(rng, kind, divisor, faults_until_ms)).collect()
}

fn fault(rng: &mut Rng, kind: FaultKind, divisor: f64, faults_until_ms: u64) -> FaultPlan {
    let (least, most) = rates(kind);
    let rate = of_any_order(rng, least, most / divisor);
    // Four decimals keep plan files readable.
    let rate = ((rate * 10_000.0).round() / 10_000.0).max(0.0001);
    let (from_ms, until_ms) = if happens(rng, 0.6) {
        (0, u64::MAX)
    } else {
        let from_ms = rng.u64(0..faults_until_ms * 3 / 4);
        (from_ms, from_ms + rng.u64(faults_until_ms / 10..=faults_until_ms))
    };
    FaultPlan { kind, rate, from_ms, until_ms }
}

/// Returns the lowest and the highest rate of a kind of fault. A kind that has few occasions to strike in a
/// world gets higher rates.
const fn rates(kind: FaultKind) -> (f64, f64) {
    match kind {
        // These faults can strike at every call.
        FaultKind::Throttle
        | FaultKind::FailBefore
        | FaultKind::FailAfter
        | FaultKind::LoseAnswer
        | FaultKind::SlowCall
        | FaultKind::Conflict
        | FaultKind::KillAtCall => (0.002, 0.25),
        // These faults can strike at every query of an index, or every read of a stream.
        FaultKind::StaleIndex
        | FaultKind::DuplicateRecords
        | FaultKind::LateRecords
        | FaultKind::FailedReads => (0.01, 0.5),
        // These faults can strike at every invocation.
        FaultKind::Kill
        | FaultKind::Freeze
        | FaultKind::Hang
        | FaultKind::InvokeThrottled
        | FaultKind::InvokeFailed
        | FaultKind::InvokeTwice => (0.005, 0.3),
        // These faults can strike at every pushed frame.
        FaultKind::PostGone
        | FaultKind::PostThrottled
        | FaultKind::PostFailed
        | FaultKind::PostUnanswered
        | FaultKind::SlowPost => (0.005, 0.4),
        // These faults have few occasions to strike in a world.
        FaultKind::SlowStart
        | FaultKind::FailedStart
        | FaultKind::DispatchFailed
        | FaultKind::EventLost
        | FaultKind::DisconnectLost
        | FaultKind::QueueFailed
        | FaultKind::QueueUnanswered
        | FaultKind::SplitShard
        | FaultKind::Deploy => (0.02, 0.6),
        FaultKind::ClockSkew => (0.2, 1.0),
    }
}
