//! One lane of a shard: gathers batches and works them off, one after the other.

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

/// How long a stream keeps a record: no longer can a mapping try it.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub(super) struct Lane {
    shard: String,
    settings: Arc<Settings>,
    ports: Ports,
    checkpoint: Arc<Checkpoint>,
    inbox: UnboundedReceiver<Vec<Item>>,
    waiting: VecDeque<Item>,
}

/// Records that are tried together, and what their tries came to.
#[derive(Clone, Debug)]
struct Batch {
    items: Vec<Item>,
    /// Invocations that ran, failed, and count.
    failures: u32,
    /// Invocations in all.
    invocations: u32,
    /// Invocations in a row that were refused, which do not count.
    refusals: u32,
    request_id: String,
}

/// What an invocation came to.
enum Outcome {
    Done,
    /// The records from this index on failed, with the function error that Lambda reports.
    Failed {
        from: usize,
        function_error: Option<&'static str>,
    },
    /// The function did not run, or nobody knows whether it did.
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
                // Side by side, as two invocations of one event may be.
                self.checkpoint.again(items.iter().map(|item| item.position));
                tokio::join!(self.process(items.clone()), self.process(items));
            } else {
                self.process(items).await;
            }
        }
    }

    /// What is to go wrong with the delivery of a batch.
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

    /// The next batch: full, or what has come in within the window.
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

    /// Tries a batch until each of its records is done or given up on.
    async fn process(&self, items: Vec<Item>) {
        let first = Batch { items, failures: 0, invocations: 0, refusals: 0, request_id: String::new() };
        // The last is worked off first, so that the parts of a split batch keep their order.
        let mut left = vec![first];
        while let Some(mut batch) = left.pop() {
            self.drop_expired(&mut batch);
            if batch.items.is_empty() {
                continue;
            }
            match self.invoke(&mut batch).await {
                Outcome::Done => self.done(&batch.items),
                Outcome::Refused => {
                    batch.refusals = batch.refusals.saturating_add(1);
                    self.wait(batch.refusals).await;
                    left.push(batch);
                }
                Outcome::Failed { from, function_error } => {
                    let succeeded: Vec<_> = batch.items.drain(..from).collect();
                    self.done(&succeeded);
                    self.retry(batch, from > 0, function_error, &mut left).await;
                }
            }
        }
    }

    /// Puts what failed back to be tried again, in parts where that is asked for, or gives it up.
    async fn retry(
        &self,
        mut batch: Batch,
        progressed: bool,
        function_error: Option<&str>,
        left: &mut Vec<Batch>,
    ) {
        if self.settings.bisect_batch_on_function_error && (progressed || batch.items.len() > 1) {
            // Each split leaves smaller parts, so that there is an end to them although they do not count.
            // The function's own report is such a split; where it points at the first record, which would
            // split nothing, the batch is halved.
            if !progressed {
                let second = batch.items.split_off(batch.items.len() / 2);
                left.push(Batch { items: second, ..batch.clone() });
            }
            left.push(batch);
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
        left.push(batch);
    }

    async fn invoke(&self, batch: &mut Batch) -> Outcome {
        batch.request_id = uuid(&*self.ports.entropy);
        let (function, request_id) = (&self.settings.function, batch.request_id.clone());
        let payload = payload(&batch.items);
        let once = || self.ports.invoke.invoke_as(function, request_id.clone(), payload.clone());
        let effects = self.invocation_effects();
        if !effects.delay.is_zero() {
            sleep(effects.delay).await;
        }
        // What the second one replies changes nothing.
        let reply = if effects.effect == Some(Effect::Duplicate) {
            tokio::join!(once(), once()).0
        } else {
            once().await
        };
        if let Err(InvokeError::Throttled | InvokeError::NotFound(_) | InvokeError::Service) = reply {
            return Outcome::Refused;
        }
        batch.refusals = 0;
        batch.invocations = batch.invocations.saturating_add(1);
        let place = |number: &str| batch.items.iter().position(|item| item.sequence_number == number);
        match reply {
            Ok(reply) if self.settings.report_batch_item_failures => match verdict(&reply, place) {
                Verdict::Done => Outcome::Done,
                Verdict::FailedFrom(from) => Outcome::Failed { from, function_error: None },
            },
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed { from: 0, function_error: Some("Unhandled") },
        }
    }

    /// What is to go wrong with a batch on its way to the function.
    fn invocation_effects(&self) -> Effects {
        let resources: &[&str] = &[&self.settings.function];
        let (service, operation) = (Service::Lambda, CallContext::EVENT);
        let context = CallContext { service, operation, resources, index: None, caller: None };
        let possible = |effect| matches!(effect, Effect::Delay(_) | Effect::Duplicate);
        self.ports.faults.inject(&context, possible)
    }

    /// Gives up on the records that are too old, the first ones.
    fn drop_expired(&self, batch: &mut Batch) {
        let maximum = self.settings.maximum_record_age.unwrap_or(KEPT).min(KEPT);
        let now = self.ports.clock.now();
        let expired =
            batch.items.iter().take_while(|item| now.since(item.approximate_creation) > maximum).count();
        let expired: Vec<_> = batch.items.drain(..expired).collect();
        self.give_up(batch, &expired, Condition::RecordAgeExceeded, None);
    }

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
        // Not even a backoff of zero may spin.
        sleep(self.settings.backoff.after(failures).max(Duration::from_millis(1))).await;
    }
}
