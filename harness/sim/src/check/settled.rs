//! Checks of the final state of a world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::image::{has, subscribers, text};
use super::item::check_due_item;
use super::request_model::RequestModel;
use super::rules;
use super::world_model::{FinalState, Ledger, WorldModel};
use crate::job::{BRITTLE, GUARDED, Job, JobEnd, JobStep, ONCE, WORK};

/// Longest duration of a function's invocation.
const INVOCATION: Duration = Duration::from_mins(15);
/// Longest time between two attempts of a request. The time includes the grace period after the lease, the
/// longest backoff, the maximum age of an unclaimed request, and the sweeper's interval.
const BETWEEN_ATTEMPTS: Duration = Duration::from_mins(5);

/// Longest time from the terminal write to the delivery of the terminal frame. A cut-off client receives no
/// frame until the gateway closes its idle connection, and the sweeper's retries become less frequent.
const LONGEST_DELIVERY: Duration = Duration::from_mins(40);

impl WorldModel {
    /// Checks the final state of the world.
    pub(super) fn finish(&mut self, last: &FinalState) {
        if last.tasks_left > 0 {
            let message = format!("{} tasks still run after the stage was shut down", last.tasks_left);
            self.found.broken(rules::NO_TASK_OUTLIVES_THE_STAGE, last.at, None, message);
        }
        let requests = std::mem::take(&mut self.requests);
        let longest = self.longest(requests.values());
        for (key, request) in &requests {
            check_due_item(&mut self.found, self.faults_ended_at, last.at, key, request);
            self.check_settled(last.at, key, request, longest);
            self.check_cost(last.at, key, request);
            self.check_outcome(last.at, key, request);
        }
        self.check_total_cost(last.at, &requests);
        self.requests = requests;
        self.check_requests_table(last);
        self.check_letters(last);
        self.check_deliveries(last.at);
        self.check_connections(last);
        if self.limits.is_faultless && !last.stream_failures.is_empty() {
            let message = format!("the event source mapping has discarded {:?}", last.stream_failures);
            self.found.broken(rules::NO_RECORD_IS_DISCARDED, last.at, None, message);
        }
    }

    /// Returns the longest time that the last request may take to become terminal after the faults have
    /// ended. One request may have to wait for all others, because batches, shards and reserved concurrency
    /// are shared.
    fn longest<'a>(&self, requests: impl Iterator<Item = &'a RequestModel>) -> Duration {
        let mut all = INVOCATION;
        for request in requests {
            let at_work = job_of(request).map_or(INVOCATION, |job| Duration::from_millis(job.takes_ms()));
            let attempts = request.state.max_attempts.max(1);
            let ends_open = request
                .ended_at
                .zip(self.faults_ended_at)
                .is_none_or(|(ended, faults_ended)| ended > faults_ended);
            if ends_open {
                let between = self.limits.lease + BETWEEN_ATTEMPTS;
                all = all.saturating_add((at_work.min(INVOCATION) + between).saturating_mul(attempts));
                all = all.saturating_add(at_work);
            }
        }
        all
    }

    /// Checks that the request became terminal in time, and that its terminal frame and dead letter were
    /// delivered.
    fn check_settled(&mut self, at: Timestamp, key: &str, request: &RequestModel, longest: Duration) {
        let Some(faults_ended_at) = self.faults_ended_at else { return };
        let ended_at = request.ended_at.unwrap_or(at);
        let took = ended_at.since(faults_ended_at);
        if took > longest {
            let message = format!("request is in state {:?}, {took:?} after the faults ended", request.state);
            self.found.broken(rules::BECOMES_TERMINAL_IN_TIME, at, Some(key), message);
        }
        if request.ended_at.is_none() || at.since(faults_ended_at.max(ended_at)) < LONGEST_DELIVERY {
            return;
        }
        let subscribers_left: Vec<&str> = subscribers(&request.image).collect();
        let letter_is_pending = has(&request.image, "dead_letter");
        let timer = request.state.timer_at.filter(|_| has(&request.image, "timer_shard"));
        if letter_is_pending || !subscribers_left.is_empty() || timer.is_some() {
            let message = format!(
                "request is terminal since {ended_at}, but has timer {timer:?}, subscribers {subscribers_left:?}, \
                 dead letter pending: {letter_is_pending}"
            );
            self.found.broken(rules::NO_WORK_IS_LEFT, at, Some(key), message);
        }
    }

    /// Checks the cost of a request in a world without faults. The budget is one write each to queue, claim
    /// and end the request, one write to record its delivery, and one terminal frame for each subscriber.
    fn check_cost(&mut self, at: Timestamp, key: &str, request: &RequestModel) {
        if !self.limits.is_faultless || request.ended_at.is_none() {
            return;
        }
        let cost = &request.cost;
        let most = cost.subscriptions.max(1);
        if cost.notes > most || cost.deliveries > cost.subscriptions {
            let message = format!(
                "cost is {cost:?}; expected at most {most} writes that record a delivery, \
                 and one terminal frame for each subscription"
            );
            self.found.broken(rules::WITHIN_BUDGET, at, Some(key), message);
        }
    }

    /// Checks the calls of all requests together, in a world without faults. Only a few calls may lead to no
    /// write: a claim reads the request's part items, a message may find its request changed, and one write
    /// may record several deliveries.
    fn check_total_cost(&mut self, at: Timestamp, requests: &BTreeMap<String, RequestModel>) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let claims: usize = requests.values().map(|request| request.claims.len()).sum();
        let Ledger { calls, writes, messages } = self.ledger;
        let most = writes + 3 * count(claims) + 8 * messages + 4 * count(requests.len());
        if self.limits.is_faultless && calls > most {
            let message = format!(
                "{calls} calls for {writes} writes, {claims} claims and {messages} messages; \
                 expected at most {most} calls"
            );
            self.found.broken(rules::WITHIN_BUDGET, at, None, message);
        }
    }

    /// Checks that a request has the final status that its job leads to: a job that succeeds does not fail
    /// for good, and a job that fails does not complete.
    fn check_outcome(&mut self, at: Timestamp, key: &str, request: &RequestModel) {
        let Some(job) = job_of(request) else { return };
        let (status, attempts) = (request.state.status, request.state.attempt);
        // Number of the first attempt that can succeed.
        let first = match job.end {
            JobEnd::Succeed | JobEnd::SucceedWith(_) | JobEnd::GoOnUntil(_) => 1,
            JobEnd::FailUntil(attempt)
            | JobEnd::BreakUntil(attempt)
            | JobEnd::PanicUntil(attempt)
            | JobEnd::RetryAfter { until: attempt, .. } => attempt,
            JobEnd::Fail | JobEnd::FailWith(_) => u32::MAX,
        };
        if status == Status::Completed && attempts < first {
            let message =
                format!("request completed on attempt {attempts}, which does not fit its job {job:?}");
            self.found.broken(rules::OUTCOME_FITS_THE_JOB, at, Some(key), message);
        }
        let is_retried = text(&request.image, "action") == Some(WORK);
        let is_plain = is_retried
            && !self.limits.is_concurrency_limited
            && job.timeout_ms == 0
            && Duration::from_millis(job.takes_ms()) < INVOCATION / 2
            && job.steps.iter().all(|step| match step {
                JobStep::Report(percentage) => (0.0..=100.0).contains(percentage),
                JobStep::Wait(_) | JobStep::Flood(_) | JobStep::Note | JobStep::Checkpoint => true,
                JobStep::BigCheckpoint(_) | JobStep::Wild(_) => false,
            })
            && match job.end {
                JobEnd::Succeed | JobEnd::FailUntil(_) | JobEnd::PanicUntil(_) => true,
                JobEnd::SucceedWith(_)
                | JobEnd::BreakUntil(_)
                | JobEnd::RetryAfter { .. }
                | JobEnd::Fail
                | JobEnd::FailWith(_)
                | JobEnd::GoOnUntil(_) => false,
            };
        let may_fail = !self.limits.is_faultless || first > request.state.max_attempts;
        if status == Status::Failed && is_plain && !may_fail {
            let message =
                format!("request failed with {:?}, which does not fit its job {job:?}", request.error_code());
            self.found.broken(rules::OUTCOME_FITS_THE_JOB, at, Some(key), message);
        }
    }

    /// Checks that the table holds every request that was written, and that each part item without an open
    /// request expires.
    fn check_requests_table(&mut self, last: &FinalState) {
        let mut keys = BTreeSet::new();
        for item in &last.requests {
            let (key, part) = (item["request_id"].as_str().unwrap_or_default(), item["part"].as_str());
            let name = self.stored.get(key).map_or(key, String::as_str);
            let request = self.requests.get(name);
            if part == Some("request") {
                keys.insert(key.to_owned());
                continue;
            }
            let is_left = request
                .is_none_or(|request| request.ended_at.is_some() && !has(&request.image, "timer_shard"));
            if is_left && item.get("ttl").is_none() {
                let message = format!("part item {part:?} never expires");
                self.found.broken(rules::ONLY_TERMINAL_EXPIRES, last.at, Some(name), message);
            }
        }
        let missing = self.requests.iter().find(|(_, request)| !keys.contains(&request.stored));
        if let Some((key, _)) = missing {
            let message = "request was stored, but is missing from the table".to_owned();
            self.found.broken(rules::BECOMES_TERMINAL_IN_TIME, last.at, Some(key), message);
        }
    }

    /// Checks that each connected subscriber has received the terminal frame of each terminal request.
    fn check_deliveries(&mut self, at: Timestamp) {
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_connected {
                continue;
            }
            for (id, since) in &client.session.subscribed {
                let key = client.owner.key(id);
                let Some(request) = self.requests.get(&key) else { continue };
                let Some(ended_at) = request.ended_at else { continue };
                let seemed_gone = self.limits.may_seem_gone
                    && self.faults_ended_at.is_none_or(|faults_ended_at| *since < faults_ended_at);
                // While the request has a timer, the sweeper will try the delivery again.
                let waited = at.since(ended_at.max(*since));
                let is_due = waited > LONGEST_DELIVERY || request.state.timer_at.is_none();
                if is_due && !seemed_gone && !client.ended.contains(id) {
                    let message = format!(
                        "client {number}, subscribed since {since}, has not received the terminal frame of a request that ended at {ended_at}"
                    );
                    self.found.broken(rules::TERMINAL_FRAME_IS_DELIVERED, at, Some(&key), message);
                }
            }
        }
    }

    /// Checks that each open connection has an item. Without faults, a closed connection has no item. With
    /// faults, the item of a closed connection must expire.
    fn check_connections(&mut self, last: &FinalState) {
        let known: BTreeSet<&str> =
            last.connections.iter().filter_map(|item| item["connection_id"].as_str()).collect();
        // The item of a connection that appeared gone may have been deleted.
        let unknown = self.open.iter().find(|open| !known.contains(open.as_str()));
        let unknown = unknown.filter(|_| !self.limits.may_seem_gone);
        let left = last.connections.iter().find(|item| {
            let id = item["connection_id"].as_str().unwrap_or_default();
            !self.open.contains(id) && (self.limits.is_faultless || item.get("ttl").is_none())
        });
        let wrong = unknown
            .map(|open| format!("connection {open} is open, but has no item"))
            .or_else(|| left.map(|item| format!("item {item} belongs to a closed connection")));
        if let Some(wrong) = wrong {
            self.found.broken(rules::CONNECTIONS_MATCH, last.at, None, wrong);
        }
    }
}

/// Returns the job of a request to the simulator's own handlers; `None` for any other request.
fn job_of(request: &RequestModel) -> Option<Job> {
    let is_ours =
        text(&request.image, "action").is_some_and(|action| [WORK, ONCE, BRITTLE, GUARDED].contains(&action));
    let payload: Value = serde_json::from_str(text(&request.image, "payload")?).ok()?;
    is_ours.then(|| serde_json::from_value(payload).ok())?
}
