//! Checks of one write to a request: which attributes may change, and which function may change them.

use std::time::Duration;

use serde_json::Value;
use streamer::lifecycle::{Event as Happened, step};
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::function::{CONNECT, DISCONNECT, ROUTER, SWEEPER, is_of, runs_requests};
use super::image::{ItemState, epoch_of, subscribers, text};
use super::limits::Limits;
use super::request_model::{Claim, RequestModel};
use super::rules;
use super::violation::Found;
use streamer_fakes::faults::Caller;

/// Attributes that only the holder of the lease may change, except together with a legal change of status.
const ATTEMPT_ATTRIBUTES: [&str; 18] = [
    "status",
    "attempt",
    "continuations",
    "epoch",
    "owner",
    "lease_expires_at",
    "seq",
    "percentage",
    "progress_message",
    "progress_metadata",
    "checkpoint",
    "checkpoint_part",
    "history",
    "runner",
    "result",
    "result_part",
    "error",
    "finished_at",
];

/// Minimum time between two writes of progress reports.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// One write to a request's item.
pub(super) struct Write<'a> {
    pub(super) at: Timestamp,
    pub(super) key: &'a str,
    pub(super) caller: Option<&'a Caller>,
    pub(super) old: ItemState,
    pub(super) new: ItemState,
    pub(super) changed: Vec<&'a str>,
    pub(super) before: &'a Value,
    pub(super) image: &'a Value,
}

impl Write<'_> {
    pub(super) fn has_changed(&self, attribute: &str) -> bool {
        self.changed.contains(&attribute)
    }

    fn is_claim(&self) -> bool {
        self.new.epoch != self.old.epoch
    }

    fn is_step(&self) -> bool {
        let Self { old, new, .. } = self;
        (old.status, old.attempt, old.continuations, old.epoch)
            != (new.status, new.attempt, new.continuations, new.epoch)
    }

    pub(super) fn breaks(&self, found: &mut Found, rule: &'static str, message: String) {
        let by = self.caller.map_or_else(|| "an unknown caller".to_owned(), |caller| format!("{caller:?}"));
        found.broken(rule, self.at, Some(self.key), format!("{by} {message}"));
    }
}

/// Checks that a change of status is a legal step of the state machine, for an event that the calling
/// function may cause.
pub(super) fn check_step(limits: &Limits, found: &mut Found, write: &Write<'_>, request: &RequestModel) {
    let Write { at, caller, old, new, .. } = write;
    if new.attempt > new.max_attempts {
        let message = format!("begins attempt {}, but at most {} are allowed", new.attempt, new.max_attempts);
        write.breaks(found, rules::ATTEMPTS_BOUNDED, message);
    }
    if !write.is_step() {
        return;
    }
    let next = Happened::Failed { next: Some(new.timer_at.unwrap_or_default()) };
    let claimed = Happened::Claimed { until: new.lease_end.unwrap_or_default() };
    let run =
        [Happened::Succeeded, next, Happened::Failed { next: None }, Happened::Yielded, Happened::Stopped];
    let events: &[Happened] = match caller {
        Some(caller) if is_of(caller, SWEEPER) => &[Happened::TimerFired],
        Some(caller) if is_of(caller, ROUTER) || is_of(caller, DISCONNECT) => &[Happened::CancelRequested],
        Some(caller) if is_of(caller, CONNECT) => &[],
        _ if write.is_claim() => &[claimed],
        _ => &run,
    };
    // The function's clock may be ahead of the world's clock.
    let now = *at + limits.skew;
    let is_legal = events
        .iter()
        .any(|event| new.matches(&step(old.lifecycle_state(), *event, now, &limits.rules).state));
    let rises = new.epoch == old.epoch + u64::from(new.status == Status::Processing);
    if !is_legal
        || !rises
        || (new.status.is_terminal() && (new.attempt, new.continuations) != (old.attempt, old.continuations))
    {
        write.breaks(found, rules::LEGAL_STEP, format!("changes {old:?} to {new:?}"));
    }
    let is_taken = old.status == Status::Processing
        && caller.is_some_and(|caller| is_of(caller, SWEEPER))
        && limits.is_faultless;
    if is_taken {
        let since = request.claims.get(&old.epoch).map(|claim| at.since(claim.at));
        let message = format!(
            "reclaims the request {since:?} after its claim, in a world without faults; its lease ends at {:?}",
            old.lease_end
        );
        write.breaks(found, rules::LEASE_IS_KEPT, message);
    }
}

/// Checks that an attempt's attributes are changed only by the holder of the lease, or by another function
/// together with a legal change of status.
pub(super) fn check_fence(found: &mut Found, write: &Write<'_>, request: &mut RequestModel) {
    let Write { at, caller, old, new, .. } = write;
    let number = caller.map(Caller::number);
    if write.is_claim() {
        let claim = Claim {
            by: number,
            at: *at,
            attempt: new.attempt,
            continuations: new.continuations,
            stored: 0,
            checkpoints: 0,
        };
        request.claims.insert(new.epoch, claim);
        return;
    }
    let Some(caller) = caller else { return };
    let Some(own) = write.changed.iter().find(|attribute| ATTEMPT_ATTRIBUTES.contains(attribute)) else {
        return;
    };
    let holder = request.claims.get(&old.epoch);
    let is_holders = old.status == Status::Processing && holder.is_some_and(|claim| claim.by == number);
    let may = if runs_requests(caller) { is_holders } else { write.is_step() };
    if !may {
        let message = format!(
            "changes `{own}` of epoch {}, which environment {:?} has claimed, in status {:?}",
            old.epoch,
            holder.and_then(|claim| claim.by),
            old.status
        );
        write.breaks(found, rules::FENCED, message);
    }
    let is_left = text(write.image, "owner").is_some();
    if !runs_requests(caller) && write.is_step() && new.status.is_terminal() && is_left {
        write.breaks(
            found,
            rules::FENCED,
            "makes the terminal write but keeps the owner, who may treat the write as its own".to_owned(),
        );
    }
}

/// Checks that the stored sequence number never falls, and that its epoch is that of the attempt that writes
/// it.
pub(super) fn check_seq(found: &mut Found, write: &Write<'_>) {
    let Write { old, new, caller, .. } = write;
    let is_holders = caller.is_some_and(runs_requests) && !write.is_claim();
    let is_own = epoch_of(new.seq) == new.epoch || new.seq == (new.epoch + 1) << 20;
    if new.seq < old.seq || (is_holders && new.seq != old.seq && !is_own) {
        let message =
            format!("changes the sequence number from {} to {} in epoch {}", old.seq, new.seq, new.epoch);
        write.breaks(found, rules::STORED_SEQ_RISES, message);
    }
    if !old.status.is_terminal() && new.status.is_terminal() && new.seq <= old.seq {
        let message = format!(
            "makes the terminal write with sequence number {}, which is not above {}",
            new.seq, old.seq
        );
        write.breaks(found, rules::STORED_SEQ_RISES, message);
    }
}

/// Counts the write for the cost budget, and checks the rate at which progress reports and lease renewals are
/// stored.
pub(super) fn check_costs(limits: &Limits, found: &mut Found, write: &Write<'_>, request: &mut RequestModel) {
    let Write { at, old, new, caller, .. } = write;
    let is_runners = caller.is_some_and(runs_requests);
    let (before, now) = (subscribers(write.before).count(), subscribers(write.image).count());
    if write.has_changed("subscribers") {
        // A connection that is subscribed already may subscribe again, from a later sequence number.
        request.cost.subscriptions += u32::from(now >= before);
    }
    let by_router = caller.is_some_and(|caller| is_of(caller, ROUTER));
    let is_note = old.status.is_terminal() && (now < before || !write.has_changed("subscribers"));
    request.cost.notes += u32::from(is_note && (is_runners || by_router));
    let Some(claim) = request.claims.get_mut(&old.epoch) else { return };
    if old.status != Status::Processing || write.is_step() || !is_runners {
        return;
    }
    if write.has_changed("checkpoint") || write.has_changed("checkpoint_part") {
        claim.checkpoints += 1;
    } else if write.has_changed("lease_expires_at") {
        claim.stored += 1;
    }
    // A big checkpoint is followed by a renewal, so checkpoints allow more writes. The constant 3 allows for
    // slow writes.
    let seconds = at.since(claim.at).as_millis() / STORE_INTERVAL.as_millis();
    let most = seconds + 3 + 2 * u128::from(claim.checkpoints);
    if u128::from(claim.stored) > most && new.status == Status::Processing && limits.is_faultless {
        let message = format!("stores {} progress reports within {seconds} s", claim.stored);
        write.breaks(found, rules::PACED, message);
    }
}
