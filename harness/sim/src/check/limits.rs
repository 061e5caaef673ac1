//! Limits that a plan sets on its world.

use std::collections::BTreeSet;
use std::time::Duration;

use streamer::lifecycle::Rules;

use crate::plan::{FaultKind, Plan};

/// Limits that a plan sets on its world and that the checks use.
#[derive(Debug)]
pub(super) struct Limits {
    /// Whether the plan injects no faults.
    pub(super) is_faultless: bool,
    /// Whether a fault of the plan can delay a frame long after the frame was sent.
    pub(super) may_be_late: bool,
    /// Whether a fault of the plan can answer a post to an open connection with 410 Gone.
    pub(super) may_seem_gone: bool,
    /// Tolerated difference between a function's clock and the world's clock.
    pub(super) skew: Duration,
    pub(super) rules: Rules,
    pub(super) lease: Duration,
    pub(super) ttl: Duration,
    pub(super) async_threshold_ms: u64,
    pub(super) cancel_on_disconnect: bool,
    pub(super) is_concurrency_limited: bool,
}

impl Limits {
    pub(super) fn of(plan: &Plan) -> Self {
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
