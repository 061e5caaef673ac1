//! What every image of a request's item must be, whatever came before it.

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
const UNCLAIMED: Duration = Duration::from_secs(150);
/// The longest that something that is due waits for the sweeper.
const HANDLED_WITHIN: Duration = Duration::from_mins(4);

/// A due item is handled within some minutes, once nothing goes wrong any more: the sweeper comes each minute, and may
/// have to wait for the one before it to be done.
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
            format!("its timer fired at {timer_at}, {late:?} ago, and it stands as {:?}", request.state);
        found.broken(rules::DUE_ITEM_IS_HANDLED, at, Some(key), message);
    }
}

/// What every image of a request must be, whatever came before it.
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
        found.broken(rule, at, Some(key), format!("{message}, and it stands as {state:?}"));
    };
    let has_timer = has("timer_shard") && state.timer_at.is_some();
    if !has_timer && (is_open || has("dead_letter") || subscribers(image).next().is_some()) {
        wrong(rules::HAS_A_TIMER, "it has no timer");
    }
    let latest = match status {
        Status::Pending => Some(at + UNCLAIMED),
        Status::Processing => state.lease_end.map(|end| end.max(at) + LEASE_GRACE + limits.lease),
        Status::Retrying | Status::Completed | Status::Failed | Status::Cancelled => None,
    };
    if let (Some(timer), Some(latest)) = (state.timer_at, latest)
        && timer > latest + limits.skew + Duration::from_secs(1)
    {
        wrong(rules::HAS_A_TIMER, "its timer is too late");
    }
    if is_open == has("ttl") || is_open == has("finished_at") {
        wrong(rules::EXPIRES_ONLY_ENDED, "it has a time to live and an end, or not");
    }
    if let (Some(ttl), Some(end)) = (number(image, "ttl"), time(image, "finished_at"))
        && ttl != (end + limits.ttl).as_secs()
    {
        wrong(rules::EXPIRES_ONLY_ENDED, "it expires at another time than it should");
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
        wrong(rules::ITEM_IS_SOUND, "it has attributes that its status does not have, or lacks some");
    }
    if status.is_terminal() && request.ended_at == Some(at) {
        let read = item_of_image(image).map_err(|error| error.to_string());
        let read =
            read.and_then(|item| request_item::decode_summary(&item).map_err(|error| error.to_string()));
        if let Err(error) = read {
            wrong(rules::ITEM_IS_SOUND, &error);
        }
    }
}
