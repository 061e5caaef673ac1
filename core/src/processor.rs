//! From a stream's records to requests that are run: a batch at a time.

mod batch;

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

pub use batch::{BatchItemFailure, BatchResponse, StreamBatch};

use crate::attempts::{Attempts, NotClaimed, Ran};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::ports::Timestamp;
use crate::store::{RequestQueue, Runner};
use crate::telemetry::Causes;
use crate::workers::Workers;
use batch::Read;

/// Runs queued requests that do not take long, and hands the others over to the worker.
#[derive(Debug)]
pub struct Processor<Q, P, D, W> {
    attempts: Attempts<Q, P, D>,
    workers: W,
    concurrency: usize,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters, W: Workers> Processor<Q, P, D, W> {
    /// How many requests of a batch run at once, unless it is [set](Self::set_concurrency).
    pub const CONCURRENCY: usize = 10;

    /// A processor that runs requests so, and hands over to these workers.
    #[must_use]
    pub fn new(attempts: Attempts<Q, P, D>, workers: W) -> Self {
        Self { attempts, workers, concurrency: Self::CONCURRENCY }
    }

    /// How many requests of a batch run at once; at least one. Default 10.
    pub fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency = concurrency.max(1);
    }

    /// Runs the requests of a batch, and names the records that must come again.
    ///
    /// Those are the ones whose request could not be claimed for a reason other than that somebody else has. Once
    /// it is claimed, the request itself says how it goes on: its record is done with.
    pub async fn process(&self, batch: StreamBatch, deadline: Timestamp) -> BatchResponse {
        let deadline = Instant::now() + deadline.since(self.attempts.clock.now());
        let mut seen = HashSet::new();
        // Boxed, since each holds a whole attempt.
        let runs: Vec<_> = batch
            .into_records()
            .filter(|read| match read {
                Read::Request { key, .. } => seen.insert(key.clone()),
                Read::Nothing | Read::Undecodable { .. } => true,
            })
            .map(|read| Box::pin(self.process_record(read, deadline)))
            .collect();
        let failures: Vec<Option<BatchItemFailure>> =
            stream::iter(runs).buffer_unordered(self.concurrency).collect().await;
        BatchResponse { batch_item_failures: failures.into_iter().flatten().collect() }
    }

    async fn process_record(&self, read: Read, deadline: Instant) -> Option<BatchItemFailure> {
        let (sequence_number, key) = match read {
            Read::Nothing => return None,
            Read::Undecodable { sequence_number, problem } => {
                tracing::error!(sequence_number, problem, "a stream record cannot be read");
                return Some(BatchItemFailure { item_identifier: sequence_number });
            }
            Read::Request { sequence_number, key } => (sequence_number, key),
        };
        let refused = match self.attempts.run(&key, Runner::Processor, deadline).await {
            Ok(Ran::Done | Ran::RetryAt(_)) => return None,
            Ok(Ran::ForWorker) => match self.workers.hand_over(&key).await {
                Ok(()) => return None,
                Err(error) => Causes(&error).to_string(),
            },
            Err(NotClaimed::NoTimeLeft) => "this invocation has no time left for it".to_owned(),
            Err(NotClaimed::Store(error)) => Causes(&error).to_string(),
        };
        tracing::error!(request = %key, error = refused, "the request was not claimed");
        Some(BatchItemFailure { item_identifier: sequence_number })
    }
}
