//! How all must stand in the end.

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

/// How long an invocation lasts at the most.
const INVOCATION: Duration = Duration::from_mins(15);
/// How long a request may lie about between two attempts: its lease's grace, the longest wait, the time until nobody has
/// claimed it, and the sweeper's pace.
const BETWEEN_ATTEMPTS: Duration = Duration::from_mins(5);

/// How long an end may wait to be told: its client may be cut off until the gateway finds it idle, and the sweeper looks again
/// ever less often.
const LONGEST_DELIVERY: Duration = Duration::from_mins(40);

impl WorldModel {
    /// Looks at how all stands in the end.
    pub(super) fn finish(&mut self, last: &FinalState) {
        if last.tasks_left > 0 {
            let message = format!("{} tasks are left though the stage has ended", last.tasks_left);
            self.found.broken(rules::NO_TASK_IS_LEFT, last.at, None, message);
        }
        let requests = std::mem::take(&mut self.requests);
        let longest = self.longest(requests.values());
        for (key, request) in &requests {
            check_due_item(&mut self.found, self.faults_ended_at, last.at, key, request);
            self.has_settled(last.at, key, request, longest);
            self.cost_what_it_should(last.at, key, request);
            self.ended_as_its_job(last.at, key, request);
        }
        self.all_cost_what_they_should(last.at, &requests);
        self.requests = requests;
        self.tables_are_as_seen(last);
        self.letters_are_failures(last);
        self.terminal_frames_are_delivered(last.at);
        self.connections_are_true(last);
        if self.limits.is_faultless && !last.stream_failures.is_empty() {
            let message = format!("the stream has given up {:?}", last.stream_failures);
            self.found.broken(rules::STREAM_GIVES_UP_NOTHING, last.at, None, message);
        }
    }

    /// How long the last request may take to end once nothing goes wrong any more. Any of them may have to wait for all
    /// others, since batches, shards and reserved concurrency are shared.
    fn longest<'a>(&self, requests: impl Iterator<Item = &'a RequestModel>) -> Duration {
        let mut all = INVOCATION;
        for request in requests {
            let at_work = job_of(request).map_or(INVOCATION, |job| Duration::from_millis(job.takes_ms()));
            let attempts = request.state.max_attempts.max(1);
            let ends_open =
                request.ended_at.zip(self.faults_ended_at).is_none_or(|(ended, calm)| ended > calm);
            if ends_open {
                let between = self.limits.lease + BETWEEN_ATTEMPTS;
                all = all.saturating_add((at_work.min(INVOCATION) + between).saturating_mul(attempts));
                all = all.saturating_add(at_work);
            }
        }
        all
    }

    /// What is open has had the time to end; what has ended is told.
    fn has_settled(&mut self, at: Timestamp, key: &str, request: &RequestModel, longest: Duration) {
        let Some(faults_ended_at) = self.faults_ended_at else { return };
        let ended_at = request.ended_at.unwrap_or(at);
        let took = ended_at.since(faults_ended_at);
        if took > longest {
            let message = format!("it stands as {:?}, {took:?} after all was well again", request.state);
            self.found.broken(rules::ENDS_IN_TIME, at, Some(key), message);
        }
        if request.ended_at.is_none() || at.since(faults_ended_at.max(ended_at)) < LONGEST_DELIVERY {
            return;
        }
        let subscribers_left: Vec<&str> = subscribers(&request.image).collect();
        let is_owed = has(&request.image, "dead_letter");
        let timer = request.state.timer_at.filter(|_| has(&request.image, "timer_shard"));
        if is_owed || !subscribers_left.is_empty() || timer.is_some() {
            let message = format!(
                "it ended at {ended_at}, and is left with timer {timer:?}, listeners {subscribers_left:?}, letter owed {is_owed}"
            );
            self.found.broken(rules::NOTHING_IS_LEFT, at, Some(key), message);
        }
    }

    /// Without a fault, a request costs what section 7 of the design says: one write each to queue it, to claim it and to part
    /// with it, one to note its delivery, and one frame to each listener.
    fn cost_what_it_should(&mut self, at: Timestamp, key: &str, request: &RequestModel) {
        if !self.limits.is_faultless || request.ended_at.is_none() {
            return;
        }
        let cost = &request.cost;
        let most = cost.subscriptions.max(1);
        if cost.notes > most || cost.deliveries > cost.subscriptions {
            let message =
                format!("it cost {cost:?}: no more than {most} notes and one frame for each who subscribed");
            self.found.broken(rules::WITHIN_BUDGET, at, Some(key), message);
        }
    }

    /// Without a fault, few calls are in vain: a claim reads what lies beside the request, a message may find it changed, and an
    /// end may be noted together with another's.
    fn all_cost_what_they_should(&mut self, at: Timestamp, requests: &BTreeMap<String, RequestModel>) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let claims: usize = requests.values().map(|request| request.claims.len()).sum();
        let Ledger { calls, writes, messages } = self.ledger;
        let most = writes + 3 * count(claims) + 8 * messages + 4 * count(requests.len());
        if self.limits.is_faultless && calls > most {
            let message = format!(
                "{calls} calls for {writes} writes, {claims} claims and {messages} messages: at most {most} are due"
            );
            self.found.broken(rules::WITHIN_BUDGET, at, None, message);
        }
    }

    /// A job that ends well does not fail for good by itself, and one that fails does not succeed.
    fn ended_as_its_job(&mut self, at: Timestamp, key: &str, request: &RequestModel) {
        let Some(job) = job_of(request) else { return };
        let (status, attempts) = (request.state.status, request.state.attempt);
        // The attempt with which it succeeds at the earliest.
        let first = match job.end {
            JobEnd::Succeed | JobEnd::SucceedWith(_) | JobEnd::GoOnUntil(_) => 1,
            JobEnd::FailUntil(attempt)
            | JobEnd::BreakUntil(attempt)
            | JobEnd::PanicUntil(attempt)
            | JobEnd::RetryAfter { until: attempt, .. } => attempt,
            JobEnd::Fail | JobEnd::FailWith(_) => u32::MAX,
        };
        if status == Status::Completed && attempts < first {
            let message = format!("it has completed with attempt {attempts}, and its job is {job:?}");
            self.found.broken(rules::ENDS_AS_ITS_JOB, at, Some(key), message);
        }
        let is_tried_again = text(&request.image, "action") == Some(WORK);
        let is_plain = is_tried_again
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
            let message = format!("it has failed with {:?}, and its job is {job:?}", request.error_code());
            self.found.broken(rules::ENDS_AS_ITS_JOB, at, Some(key), message);
        }
    }

    /// The table holds what was seen to be written, and no value that belongs to nobody.
    fn tables_are_as_seen(&mut self, last: &FinalState) {
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
                let message = format!("its part {part:?} never expires");
                self.found.broken(rules::EXPIRES_ONLY_ENDED, last.at, Some(name), message);
            }
        }
        let missing = self.requests.iter().find(|(_, request)| !keys.contains(&request.stored));
        if let Some((key, _)) = missing {
            let message = "it was stored, and is not there".to_owned();
            self.found.broken(rules::ENDS_IN_TIME, last.at, Some(key), message);
        }
    }

    /// Whoever is connected and listens has heard of each end.
    fn terminal_frames_are_delivered(&mut self, at: Timestamp) {
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
                // As long as its timer stands, it is still to be told.
                let waited = at.since(ended_at.max(*since));
                let is_due = waited > LONGEST_DELIVERY || request.state.timer_at.is_none();
                if is_due && !seemed_gone && !client.ended.contains(id) {
                    let message = format!(
                        "client {number} subscribed since {since}, and has not pushed that it ended at {ended_at}"
                    );
                    self.found.broken(rules::END_IS_DELIVERED, at, Some(&key), message);
                }
            }
        }
    }

    /// Each open connection has its record. Without a fault no other has one; else the others expire.
    fn connections_are_true(&mut self, last: &FinalState) {
        let known: BTreeSet<&str> =
            last.connections.iter().filter_map(|item| item["connection_id"].as_str()).collect();
        // Whoever seemed gone may have been forgotten.
        let unknown = self.open.iter().find(|open| !known.contains(open.as_str()));
        let unknown = unknown.filter(|_| !self.limits.may_seem_gone);
        let left = last.connections.iter().find(|item| {
            let id = item["connection_id"].as_str().unwrap_or_default();
            !self.open.contains(id) && (self.limits.is_faultless || item.get("ttl").is_none())
        });
        let wrong = unknown
            .map(|open| format!("{open} is open, and has no record"))
            .or_else(|| left.map(|item| format!("{item} is left of a connection that has ended")));
        if let Some(wrong) = wrong {
            self.found.broken(rules::CONNECTIONS_ARE_TRUE, last.at, None, wrong);
        }
    }
}

/// What a request is to do, where it is of the simulator's own handlers.
fn job_of(request: &RequestModel) -> Option<Job> {
    let is_ours =
        text(&request.image, "action").is_some_and(|action| [WORK, ONCE, BRITTLE, GUARDED].contains(&action));
    let payload: Value = serde_json::from_str(text(&request.image, "payload")?).ok()?;
    is_ours.then(|| serde_json::from_value(payload).ok())?
}
