//! A lane of a shard, which gathers records into batches and processes the batches one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout_at};

use super::batch::{Item, fit, payload};
use super::checkpoint::Checkpoint;
use super::on_failure::{BatchInfo, Condition, FailureRecord, RequestContext, ResponseContext};
use super::ports::Ports;
use super::reply::{Verdict, verdict};
use super::settings::Settings;
use super::source::table_of;
use crate::aws_format::{iso_8601, uuid};
use crate::faults::{CallContext, Effect, Effects, Service};
use crate::lambda::InvokeError;

/// Time for which a stream retains a record. A mapping cannot retry a record for longer.
const STREAM_RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// Processes batches of one shard one after the other. The mapping's `ParallelizationFactor` is the number of
/// concurrent lanes of each shard.
#[derive(Debug)]
pub(super) struct Lane {
    shard: String,
    settings: Arc<Settings>,
    ports: Ports,
    checkpoint: Arc<Checkpoint>,
    inbox: UnboundedReceiver<Vec<Item>>,
    waiting: VecDeque<Item>,
}

/// Records that are delivered in one invocation, and the counts of earlier invocations with these records.
#[derive(Clone, Debug)]
struct Batch {
    items: Vec<Item>,
    /// Number of failed invocations that count as retry attempts.
    failures: u32,
    /// Number of invocations that ran, including failed invocations.
    invocations: u32,
    /// Number of refused invocations since the last invocation that ran. Refused invocations do not count as retry
    /// attempts.
    refusals: u32,
    /// Request id of the last invocation with this batch; empty before the first invocation.
    request_id: String,
}

/// Result of one invocation with a batch.
enum Outcome {
    Done,
    /// The record at index `from`, and all later records, failed. `function_error` is the function error that
    /// Lambda reports.
    Failed {
        from: usize,
        function_error: Option<&'static str>,
    },
    /// The function did not run, or it is unknown whether the function ran.
    Refused,
}

impl Lane {
    pub(super) const fn new(
        shard: String,
        settings: Arc<Settings>,
        ports: Ports,
        checkpoint: Arc<Checkpoint>,
        inbox: UnboundedReceiver<Vec<Item>>,
    ) -> Self {
        Self { shard, settings, ports, checkpoint, inbox, waiting: VecDeque::new() }
    }

    pub(super) async fn run(mut self) {
        while let Some(items) = self.next_batch().await {
            let Effects { delay, effect, .. } = self.delivery_effects(&items);
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if effect == Some(Effect::Duplicate) {
                // The two copies run concurrently, as AWS may run duplicate deliveries of one event.
                self.checkpoint.add_delivery(items.iter().map(|item| item.position));
                tokio::join!(self.process(items.clone()), self.process(items));
            } else {
                self.process(items).await;
            }
        }
    }

    /// Returns the effects of faults on the delivery of a batch.
    fn delivery_effects(&self, items: &[Item]) -> Effects {
        let table = items.first().and_then(|item| table_of(&item.stream_arn));
        let context = CallContext {
            service: Service::Streams,
            operation: "GetRecords",
            resources: table.as_slice(),
            index: None,
            caller: Some(&self.settings.function),
        };
        self.ports.faults.inject(&context, |effect| matches!(effect, Effect::Delay(_) | Effect::Duplicate))
    }

    /// Waits for the next batch, which is complete when it is full or when the batching window ends. Returns `None`
    /// if the shard's reader has stopped.
    async fn next_batch(&mut self) -> Option<Vec<Item>> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.inbox.recv().await?);
        }
        let deadline = Instant::now() + self.settings.maximum_batching_window;
        loop {
            let (count, full) = fit(&self.waiting, self.settings.batch_size);
            if full {
                return Some(self.waiting.drain(..count).collect());
            }
            match timeout_at(deadline, self.inbox.recv()).await {
                Ok(Some(items)) => self.waiting.extend(items),
                Ok(None) | Err(_) => return Some(self.waiting.drain(..count).collect()),
            }
        }
    }

    /// Invokes the function with the records until each record has succeeded or is no longer retried.
    async fn process(&self, items: Vec<Item>) {
        let first = Batch { items, failures: 0, invocations: 0, refusals: 0, request_id: String::new() };
        // A stack: the first half of a split batch is pushed last and popped first, so that records keep their
        // order.
        let mut pending = vec![first];
        while let Some(mut batch) = pending.pop() {
            self.drop_expired(&mut batch);
            if batch.items.is_empty() {
                continue;
            }
            match self.invoke(&mut batch).await {
                Outcome::Done => self.done(&batch.items),
                Outcome::Refused => {
                    batch.refusals = batch.refusals.saturating_add(1);
                    self.wait(batch.refusals).await;
                    pending.push(batch);
                }
                Outcome::Failed { from, function_error } => {
                    let succeeded: Vec<_> = batch.items.drain(..from).collect();
                    self.done(&succeeded);
                    self.retry(batch, from > 0, function_error, &mut pending).await;
                }
            }
        }
    }

    /// Pushes a failed batch back onto `pending`, split in two if the settings ask for bisection, or stops retrying
    /// the batch. `progressed` says whether records before the failed ones succeeded.
    async fn retry(
        &self,
        mut batch: Batch,
        progressed: bool,
        function_error: Option<&str>,
        pending: &mut Vec<Batch>,
    ) {
        if self.settings.bisect_batch_on_function_error && (progressed || batch.items.len() > 1) {
            // A split does not count as a retry attempt. Splitting ends anyway, because each split makes the batch
            // smaller. If the function reported the first failed record, the batch is already split there.
            // Otherwise, or if the first record failed, the batch is halved.
            if !progressed {
                let second = batch.items.split_off(batch.items.len() / 2);
                pending.push(Batch { items: second, ..batch.clone() });
            }
            pending.push(batch);
            return;
        }
        if self.settings.maximum_retry_attempts.is_some_and(|attempts| batch.failures >= attempts) {
            let response = ResponseContext {
                status_code: 200,
                executed_version: "$LATEST".to_owned(),
                function_error: function_error.map(str::to_owned),
            };
            self.give_up(&batch, &batch.items, Condition::RetryAttemptsExhausted, Some(response));
            return;
        }
        batch.failures = batch.failures.saturating_add(1);
        self.wait(batch.failures).await;
        pending.push(batch);
    }

    async fn invoke(&self, batch: &mut Batch) -> Outcome {
        batch.request_id = uuid(&*self.ports.entropy);
        let (function, request_id) = (&self.settings.function, batch.request_id.clone());
        let payload = payload(&batch.items);
        let invocation = || self.ports.invoke.invoke_as(function, request_id.clone(), payload.clone());
        let effects = self.invocation_effects();
        if !effects.delay.is_zero() {
            sleep(effects.delay).await;
        }
        // The reply to the duplicate is ignored.
        let reply = if effects.effect == Some(Effect::Duplicate) {
            tokio::join!(invocation(), invocation()).0
        } else {
            invocation().await
        };
        if let Err(InvokeError::Throttled | InvokeError::NotFound(_) | InvokeError::Service) = reply {
            return Outcome::Refused;
        }
        batch.refusals = 0;
        batch.invocations = batch.invocations.saturating_add(1);
        let index_of = |number: &str| batch.items.iter().position(|item| item.sequence_number == number);
        match reply {
            Ok(reply) if self.settings.report_batch_item_failures => match verdict(&reply, index_of) {
                Verdict::Done => Outcome::Done,
                Verdict::FailedFrom(from) => Outcome::Failed { from, function_error: None },
            },
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed { from: 0, function_error: Some("Unhandled") },
        }
    }

    /// Returns the effects of faults on the invocation of the function with a batch.
    fn invocation_effects(&self) -> Effects {
        let resources: &[&str] = &[&self.settings.function];
        let (service, operation) = (Service::Lambda, CallContext::EVENT);
        let context = CallContext { service, operation, resources, index: None, caller: None };
        let possible = |effect| matches!(effect, Effect::Delay(_) | Effect::Duplicate);
        self.ports.faults.inject(&context, possible)
    }

    /// Removes the records older than the maximum age from the start of the batch, and sends a failure record about
    /// the removed records.
    fn drop_expired(&self, batch: &mut Batch) {
        let maximum = self.settings.maximum_record_age.unwrap_or(STREAM_RETENTION).min(STREAM_RETENTION);
        let now = self.ports.clock.now();
        let expired =
            batch.items.iter().take_while(|item| now.since(item.approximate_creation) > maximum).count();
        let expired: Vec<_> = batch.items.drain(..expired).collect();
        self.give_up(batch, &expired, Condition::RecordAgeExceeded, None);
    }

    /// Sends a failure record about `items`, if there are any, and moves the checkpoint past them.
    fn give_up(
        &self,
        batch: &Batch,
        items: &[Item],
        condition: Condition,
        response: Option<ResponseContext>,
    ) {
        let Some(batch_info) = BatchInfo::of(&self.shard, items) else { return };
        self.ports.on_failure.give_up(FailureRecord {
            request_context: RequestContext {
                request_id: batch.request_id.clone(),
                function_arn: self.settings.function_arn.clone(),
                condition,
                approximate_invoke_count: batch.invocations,
            },
            response_context: response,
            version: "1.0".to_owned(),
            timestamp: iso_8601(self.ports.clock.now()),
            batch_info,
        });
        self.done(items);
    }

    fn done(&self, items: &[Item]) {
        self.checkpoint.done(items.iter().map(|item| item.position));
    }

    async fn wait(&self, failures: u32) {
        // At least 1 ms, so that a backoff of zero does not become a busy loop.
        sleep(self.settings.backoff.after(failures).max(Duration::from_millis(1))).await;
    }
}
