//! Checks of a single image of a request's item, without regard to earlier images.

use std::time::Duration;

use streamer::lifecycle::LEASE_GRACE;
use streamer::ports::Timestamp;
use streamer::store::Status;
use streamer::store::dynamodb::{item_of_image, request_item};

use super::image::{has, number, subscribers, text, time};
use super::limits::Limits;
use super::request_model::RequestModel;
use super::rules;
use super::violation::Found;

/// Maximum age of an unclaimed request before the sweeper acts.
const MAX_UNCLAIMED_AGE: Duration = Duration::from_secs(150);
/// Longest time for which a due item may wait for the sweeper.
const HANDLED_WITHIN: Duration = Duration::from_mins(4);

/// Checks that the sweeper handles each due item within `HANDLED_WITHIN`, once the faults have ended. The
/// limit is several minutes, because the sweeper is invoked every minute, and may have to wait until its
/// previous invocation ends.
pub(super) fn check_due_item(
    found: &mut Found,
    faults_ended_at: Option<Timestamp>,
    at: Timestamp,
    key: &str,
    request: &RequestModel,
) {
    let (Some(faults_ended_at), Some(timer_at)) = (faults_ended_at, request.state.timer_at) else { return };
    let late = at.since(timer_at.max(faults_ended_at));
    if late > HANDLED_WITHIN {
        let message =
            format!("item due at {timer_at} was not handled within {late:?}; state: {:?}", request.state);
        found.broken(rules::DUE_ITEM_IS_HANDLED, at, Some(key), message);
    }
}

/// Checks one image of a request's item.
pub(super) fn check_item(
    limits: &Limits,
    found: &mut Found,
    at: Timestamp,
    key: &str,
    request: &RequestModel,
) {
    let RequestModel { image, state, .. } = request;
    let has = |attribute| has(image, attribute);
    let status = state.status;
    let is_open = !status.is_terminal();
    let mut wrong = |rule, message: &str| {
        found.broken(rule, at, Some(key), format!("{message}, in state {state:?}"));
    };
    let has_timer = has("timer_shard") && state.timer_at.is_some();
    if !has_timer && (is_open || has("dead_letter") || subscribers(image).next().is_some()) {
        wrong(rules::PENDING_WORK_HAS_A_TIMER, "request with pending work has no timer");
    }
    let latest = match status {
        Status::Pending => Some(at + MAX_UNCLAIMED_AGE),
        Status::Processing => state.lease_end.map(|end| end.max(at) + LEASE_GRACE + limits.lease),
        Status::Retrying | Status::Completed | Status::Failed | Status::Cancelled => None,
    };
    if let (Some(timer), Some(latest)) = (state.timer_at, latest)
        && timer > latest + limits.skew + Duration::from_secs(1)
    {
        wrong(rules::PENDING_WORK_HAS_A_TIMER, "timer is later than the latest allowed time");
    }
    if is_open == has("ttl") || is_open == has("finished_at") {
        wrong(rules::ONLY_TERMINAL_EXPIRES, "`ttl` and `finished_at` do not fit the status");
    }
    if let (Some(ttl), Some(end)) = (number(image, "ttl"), time(image, "finished_at"))
        && ttl != (end + limits.ttl).as_secs()
    {
        wrong(rules::ONLY_TERMINAL_EXPIRES, "`ttl` is not `finished_at` plus the time to live");
    }
    let is_held = status == Status::Processing;
    let in_shard = text(image, "status_shard").and_then(|shard| shard.split('#').next());
    let has_result = has("result") || has("result_part");
    let is_sound = is_held == has("lease_expires_at")
        && (!is_held || has("owner"))
        && (is_held || !has("cancel_requested"))
        && in_shard == Some(status.as_str())
        && has_result == (status == Status::Completed)
        && has("error") == (status == Status::Failed)
        && (!has("dead_letter") || status == Status::Failed);
    if !is_sound {
        wrong(
            rules::ITEM_FITS_ITS_STATUS,
            "item has a forbidden attribute, or lacks a required one, for its status",
        );
    }
    if status.is_terminal() && request.ended_at == Some(at) {
        let read = item_of_image(image).map_err(|error| error.to_string());
        let read =
            read.and_then(|item| request_item::decode_summary(&item).map_err(|error| error.to_string()));
        if let Err(error) = read {
            wrong(rules::ITEM_FITS_ITS_STATUS, &error);
        }
    }
}
