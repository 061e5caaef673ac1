//! From a stream's records to requests that are run: a batch at a time.

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
use crate::deadline::{LAST_MOMENT, before};
use crate::executor::{Executor, NotClaimed, Ran};
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner};
use crate::telemetry::Causes;
use crate::worker::dispatch::WorkerDispatch;
use batch::Read;

/// Runs queued requests that do not take long, and hands the others over to the worker.
#[derive(Debug)]
pub struct Processor<Q, P, D, W> {
    executor: Executor<Q, P, D>,
    dispatch: W,
    settings: ProcessorSettings,
}

/// How the processor works.
#[derive(Clone, Debug)]
pub struct ProcessorSettings {
    /// How many requests of a batch run at once; at least one. Default 10.
    pub concurrency: usize,
    /// How long what is run here is expected to take at most, as the router has it: a request that would not have that
    /// long before its invocation's end is handed over instead. Default 30 s.
    pub inline_limit: Duration,
    /// How long a request of a batch is waited for that failed and is to be tried again, as long as others of the batch
    /// are running: the sweeper sees to it otherwise. Default 5 s.
    pub wait_in_place: Duration,
}

impl Default for ProcessorSettings {
    fn default() -> Self {
        Self { concurrency: 10, inline_limit: Duration::from_secs(30), wait_in_place: Duration::from_secs(5) }
    }
}

impl ProcessorSettings {
    /// Reads `CONCURRENCY` and `INLINE_LIMIT_MS`, as [`lambda`](crate::lambda) has them.
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

    /// Reads `INLINE_LIMIT_MS`, which the router goes by as well.
    pub(crate) fn inline_limit_from_env(environment: &mut Environment<'_>) -> Duration {
        environment.milliseconds("INLINE_LIMIT_MS", Self::default().inline_limit, 0..=870_000)
    }
}

/// What a slot is filled with.
enum Work {
    Record(Read),
    /// A request of this batch whose next attempt is due.
    Retry(RequestKey),
}

/// What came of it.
enum Done {
    With,
    ComesAgain(BatchItemFailure),
    /// The request's next attempt is due then.
    RetryAt(Instant, RequestKey),
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters, W: WorkerDispatch> Processor<Q, P, D, W> {
    /// A processor that runs requests so, and hands over to these workers.
    #[must_use]
    pub fn new(executor: Executor<Q, P, D>, dispatch: W, settings: ProcessorSettings) -> Self {
        let settings = ProcessorSettings { concurrency: settings.concurrency.max(1), ..settings };
        Self { executor, dispatch, settings }
    }

    /// Runs the requests of a batch, and names the records that must come again.
    ///
    /// Those are the ones whose request could not be claimed for a reason other than that somebody else has, or not be
    /// handed over. Once it is claimed, the request itself says how it goes on: its record is done with.
    pub async fn process(&self, batch: StreamBatch, deadline: Timestamp) -> BatchResponse {
        let deadline = Instant::now() + deadline.since(self.executor.clock.now());
        let mut seen = HashSet::new();
        let mut queue: VecDeque<Read> = batch
            .into_records()
            .filter(|read| match read {
                Read::Request { key, .. } => seen.insert(key.clone()),
                Read::Nothing | Read::Undecodable { .. } => true,
            })
            .collect();
        let mut waiting = BinaryHeap::new();
        let mut running = FuturesUnordered::new();
        let mut batch_item_failures = Vec::new();
        loop {
            if running.is_empty() && queue.is_empty() {
                // What waits now would be waited for with nothing else to do.
                return BatchResponse { batch_item_failures };
            }
            while running.len() < self.settings.concurrency {
                let Some(work) = next(&mut waiting, &mut queue) else { break };
                // Boxed, since each holds a whole attempt.
                running.push(Box::pin(self.carry_out(work, deadline)));
            }
            let due = waiting.peek().map(|Reverse((due, _))| *due);
            let has_room = running.len() < self.settings.concurrency;
            tokio::select! {
                biased;
                // Whatever ends, what is due by then is looked for as well.
                Some(done) = running.next() => match done {
                    Done::With => {}
                    Done::ComesAgain(failure) => batch_item_failures.push(failure),
                    Done::RetryAt(due, key) if due <= Instant::now() + self.settings.wait_in_place => {
                        waiting.push(Reverse((due, key)));
                    }
                    Done::RetryAt(..) => {}
                },
                () = sleep_until(due.unwrap_or(deadline)), if has_room && due.is_some() => {}
            }
        }
    }

    async fn carry_out(&self, work: Work, deadline: Instant) -> Done {
        let (sequence_number, key, runner) = match work {
            Work::Record(Read::Nothing) => return Done::With,
            Work::Record(Read::Undecodable { sequence_number, problem }) => {
                tracing::error!(sequence_number, problem, "a stream record cannot be read");
                return Done::ComesAgain(BatchItemFailure { item_identifier: sequence_number });
            }
            Work::Record(Read::Request { sequence_number, key, runner }) => {
                (Some(sequence_number), key, runner)
            }
            Work::Retry(key) => (None, key, Runner::Processor),
        };
        let refused = match self.run_or_dispatch(&key, runner, deadline).await {
            Ok(Ran::Done | Ran::ForWorker) => return Done::With,
            Ok(Ran::RetryAt(due)) => return Done::RetryAt(due, key),
            Err(refused) => refused,
        };
        match sequence_number {
            Some(sequence_number) => {
                tracing::error!(request = %key, error = refused, "neither claimed nor handed over: its record comes again");
                Done::ComesAgain(BatchItemFailure { item_identifier: sequence_number })
            }
            // It stands in the timer index.
            None => {
                tracing::warn!(request = %key, error = refused, "not claimed again: left to the sweeper");
                Done::With
            }
        }
    }

    /// Runs what there is time for and what is not the worker's; an error says why nothing has happened.
    async fn run_or_dispatch(
        &self,
        key: &RequestKey,
        runner: Runner,
        deadline: Instant,
    ) -> Result<Ran, String> {
        match runner {
            // As its record says; if it is out of date, the worker finds out.
            Runner::Worker => {}
            Runner::Processor => {
                match self.executor.run(key, Runner::Processor, self.settings.inline_limit, deadline).await {
                    Ok(Ran::ForWorker) | Err(NotClaimed::NoTimeLeft) => {}
                    Ok(ran @ (Ran::Done | Ran::RetryAt(_))) => return Ok(ran),
                    Err(NotClaimed::Store(error)) => return Err(Causes(&error).to_string()),
                }
            }
        }
        let in_time = before(deadline, LAST_MOMENT);
        match timeout_at(in_time, self.dispatch.dispatch(key)).await {
            Ok(Ok(())) => {
                tracing::info!(request = %key, "handed over to the worker");
                Ok(Ran::ForWorker)
            }
            // Its record would find it no better: the request stays pending, and comes again when its timer fires.
            Ok(Err(error)) if !error.is_transient() => {
                tracing::error!(request = %key, error = %Causes(&error), "the hand-over is refused: an operator must see to it");
                Ok(Ran::ForWorker)
            }
            Ok(Err(error)) => Err(Causes(&error).to_string()),
            Err(_) => Err("it was not handed over before the invocation's end".to_owned()),
        }
    }
}

/// A request that is due again, or else a record that is new.
fn next(
    waiting: &mut BinaryHeap<Reverse<(Instant, RequestKey)>>,
    queue: &mut VecDeque<Read>,
) -> Option<Work> {
    if waiting.peek().is_some_and(|Reverse((due, _))| *due <= Instant::now())
        && let Some(Reverse((_, key))) = waiting.pop()
    {
        return Some(Work::Retry(key));
    }
    queue.pop_front().map(Work::Record)
}
