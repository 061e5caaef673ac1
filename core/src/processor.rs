//! Runs the requests whose records a DynamoDB stream delivers, one batch per invocation.

mod batch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use batch::{BatchItemFailure, BatchResponse, StreamBatch};

use crate::config::Environment;
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::deadline::{REPLY_MARGIN, before};
use crate::executor::{Executor, NotClaimed, RunResult};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner};
use crate::telemetry::Causes;
use crate::worker::dispatch::WorkerDispatch;
use batch::Decoded;

/// Runs queued requests that are expected to be short, and dispatches all other requests to the worker.
#[derive(Debug)]
pub struct Processor<Q, P, D, W> {
    executor: Executor<Q, P, D>,
    dispatch: W,
    settings: ProcessorSettings,
}

/// Settings of the [`Processor`].
#[derive(Clone, Debug)]
pub struct ProcessorSettings {
    /// Maximum number of requests of one batch that run concurrently; at least 1. Default 10.
    pub concurrency: usize,
    /// Longest expected duration of a request that the processor runs itself; the router applies the same
    /// limit. A request is dispatched to the worker instead if the processor's invocation has less than this
    /// time left. Default 30 s.
    pub inline_limit: Duration,
    /// Longest wait for a retry within the same invocation. The processor waits only while other requests of
    /// the batch run; otherwise the sweeper starts the retry. Default 5 s.
    pub wait_in_place: Duration,
}

impl Default for ProcessorSettings {
    fn default() -> Self {
        Self { concurrency: 10, inline_limit: Duration::from_secs(30), wait_in_place: Duration::from_secs(5) }
    }
}

impl ProcessorSettings {
    /// Reads `CONCURRENCY` and `INLINE_LIMIT_MS` from the environment; all other settings keep their defaults.
    ///
    /// See [`lambda`](crate::lambda) for the environment variables.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        let concurrency = environment.number("CONCURRENCY", "requests", defaults.concurrency as u64, 1..=100);
        Self {
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
            inline_limit: Self::inline_limit_from_env(environment),
            ..defaults
        }
    }

    /// Reads `INLINE_LIMIT_MS`, which the processor and the router share.
    pub(crate) fn inline_limit_from_env(environment: &mut Environment<'_>) -> Duration {
        environment.milliseconds("INLINE_LIMIT_MS", Self::default().inline_limit, 0..=870_000)
    }
}

/// A piece of work of a batch. The processor runs up to [`ProcessorSettings::concurrency`] pieces concurrently.
enum Work {
    /// A new stream record.
    Record(Decoded),
    /// A request of this batch whose retry is due.
    Retry(RequestKey),
}

/// Result of one piece of the processor's work.
enum WorkResult {
    /// The stream does not need to deliver the record again.
    Finished,
    /// The stream must deliver the record again.
    Redeliver(BatchItemFailure),
    /// The request's attempt failed, and its next attempt is due at this instant.
    RetryAt(Instant, RequestKey),
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters, W: WorkerDispatch> Processor<Q, P, D, W> {
    /// Creates a processor that runs short requests through `executor`, and dispatches all other requests to
    /// the worker through `dispatch`.
    #[must_use]
    pub fn new(executor: Executor<Q, P, D>, dispatch: W, settings: ProcessorSettings) -> Self {
        let settings = ProcessorSettings { concurrency: settings.concurrency.max(1), ..settings };
        Self { executor, dispatch, settings }
    }

    /// Runs the requests of a batch, and returns the records that the stream must deliver again.
    ///
    /// A record must be delivered again if it cannot be decoded, or if an error prevented both the claim and
    /// the dispatch of its request. Redelivery is not needed in two cases. A claimed request continues from its
    /// stored state. A request whose dispatch is refused for good is written into the stream again later, by
    /// the sweeper.
    pub async fn process(&self, batch: StreamBatch, deadline: Timestamp) -> BatchResponse {
        let deadline = Instant::now() + deadline.since(self.executor.clock.now());
        let mut seen = HashSet::new();
        let mut queue: VecDeque<Decoded> = batch
            .into_records()
            .filter(|record| match record {
                Decoded::Request { key, .. } => seen.insert(key.clone()),
                Decoded::Ignored | Decoded::Undecodable { .. } => true,
            })
            .collect();
        let mut waiting = BinaryHeap::new();
        let mut running = FuturesUnordered::new();
        let mut batch_item_failures = Vec::new();
        loop {
            if running.is_empty() && queue.is_empty() {
                // Only retries that are not due yet remain. The sweeper starts them, because waiting for them
                // here would keep an idle invocation alive.
                return BatchResponse { batch_item_failures };
            }
            while running.len() < self.settings.concurrency {
                let Some(work) = next(&mut waiting, &mut queue) else { break };
                // Boxed because each future holds a whole attempt.
                running.push(Box::pin(self.run_work(work, deadline)));
            }
            let due = waiting.peek().map(|Reverse((due, _))| *due);
            let has_room = running.len() < self.settings.concurrency;
            tokio::select! {
                biased;
                // After each finished run, the next round of the loop also starts the retries that are due.
                Some(result) = running.next() => match result {
                    WorkResult::Finished => {}
                    WorkResult::Redeliver(failure) => batch_item_failures.push(failure),
                    WorkResult::RetryAt(due, key) if due <= Instant::now() + self.settings.wait_in_place => {
                        waiting.push(Reverse((due, key)));
                    }
                    WorkResult::RetryAt(..) => {}
                },
                () = sleep_until(due.unwrap_or(deadline)), if has_room && due.is_some() => {}
            }
        }
    }

    async fn run_work(&self, work: Work, deadline: Instant) -> WorkResult {
        let (sequence_number, key, runner) = match work {
            Work::Record(Decoded::Ignored) => return WorkResult::Finished,
            Work::Record(Decoded::Undecodable { sequence_number, problem }) => {
                tracing::error!(sequence_number, problem, "stream record undecodable; reported as failed");
                return WorkResult::Redeliver(BatchItemFailure { item_identifier: sequence_number });
            }
            Work::Record(Decoded::Request { sequence_number, key, runner }) => {
                (Some(sequence_number), key, runner)
            }
            Work::Retry(key) => (None, key, Runner::Processor),
        };
        let error = match self.run_or_dispatch(&key, runner, deadline).await {
            Ok(RunResult::Done | RunResult::ForWorker) => return WorkResult::Finished,
            Ok(RunResult::RetryAt(due)) => return WorkResult::RetryAt(due, key),
            Err(error) => error,
        };
        match sequence_number {
            Some(sequence_number) => {
                tracing::error!(
                    request = %key, error,
                    "request neither claimed nor dispatched; record reported as failed"
                );
                WorkResult::Redeliver(BatchItemFailure { item_identifier: sequence_number })
            }
            // The request is in the timer index, so the sweeper finds it.
            None => {
                tracing::warn!(request = %key, error, "due retry not claimed; left to the sweeper");
                WorkResult::Finished
            }
        }
    }

    /// Runs the request in this invocation. Dispatches the request to the worker instead if only the worker may
    /// run it, or if too little time is left.
    ///
    /// The error text says why the request was neither run nor dispatched.
    async fn run_or_dispatch(
        &self,
        key: &RequestKey,
        runner: Runner,
        deadline: Instant,
    ) -> Result<RunResult, String> {
        match runner {
            // The stream record names the worker as the runner. If the record is out of date, the worker
            // notices this when it claims the request.
            Runner::Worker => {}
            Runner::Processor => {
                match self.executor.run(key, Runner::Processor, self.settings.inline_limit, deadline).await {
                    Ok(RunResult::ForWorker) | Err(NotClaimed::NoTimeLeft) => {}
                    Ok(result @ (RunResult::Done | RunResult::RetryAt(_))) => return Ok(result),
                    Err(NotClaimed::Store(error)) => return Err(Causes(&error).to_string()),
                }
            }
        }
        let in_time = before(deadline, REPLY_MARGIN);
        match timeout_at(in_time, self.dispatch.dispatch(key)).await {
            Ok(Ok(())) => {
                tracing::info!(request = %key, "request dispatched to the worker");
                Ok(RunResult::ForWorker)
            }
            // A dispatch after a redelivery of the record would be refused too. The request stays pending until
            // its timer fires, and the sweeper then nudges it (writes it into the stream again).
            Ok(Err(error)) if !error.is_transient() => {
                tracing::error!(
                    request = %key, error = %Causes(&error),
                    "dispatch to the worker refused; operator action required"
                );
                Ok(RunResult::ForWorker)
            }
            Ok(Err(error)) => Err(Causes(&error).to_string()),
            Err(_) => Err("the request was not dispatched before the invocation's deadline".to_owned()),
        }
    }
}

/// Removes and returns the next piece of work: a retry that is due, otherwise a new record.
fn next(
    waiting: &mut BinaryHeap<Reverse<(Instant, RequestKey)>>,
    queue: &mut VecDeque<Decoded>,
) -> Option<Work> {
    if waiting.peek().is_some_and(|Reverse((due, _))| *due <= Instant::now())
        && let Some(Reverse((_, key))) = waiting.pop()
    {
        return Some(Work::Retry(key));
    }
    queue.pop_front().map(Work::Record)
}
