//! From a stream record to a request's end: claimed, run, reported on, completed.

mod attempt;
mod batch;
mod listeners;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

pub use batch::{BatchItemFailure, BatchResponse, StreamBatch};

use crate::app::App;
use crate::connections::Connections;
use crate::ids::RequestKey;
use crate::ports::{Clock, Entropy, Timestamp};
use crate::protocol::{ErrorBody, ErrorCode, Seq};
use crate::store::{Claimed, Ending, Lease, RequestQueue, StoreError};
use crate::telemetry::Causes;
use attempt::{Attempt, LAST_MOMENT, write_end};
use batch::Read;

/// How the processor works.
#[derive(Clone, Debug)]
pub struct ProcessorSettings {
    /// How many requests of a batch run at once. Default 10.
    pub concurrency: usize,
    /// How long a claim holds without being renewed; it is renewed at a third. Default 60 s.
    pub lease: Duration,
    /// The least time between two progress frames of a request. Default 100 ms.
    pub push_interval: Duration,
    /// The least time between two stored progress reports of a request. Default 1 s.
    pub store_interval: Duration,
    /// How long one frame may take to one client. Default 3 s.
    pub push_timeout: Duration,
    /// How long before its invocation's end a handler is stopped, so that there is time to say so. Default 10 s.
    pub deadline_margin: Duration,
    /// By how much the clocks of two functions may differ: nothing is pushed so shortly before a lease's end. Default 5 s.
    pub clock_skew: Duration,
}

impl Default for ProcessorSettings {
    fn default() -> Self {
        Self {
            concurrency: 10,
            lease: Duration::from_secs(60),
            push_interval: Duration::from_millis(100),
            store_interval: Duration::from_secs(1),
            push_timeout: Duration::from_secs(3),
            deadline_margin: Duration::from_secs(10),
            clock_skew: Duration::from_secs(5),
        }
    }
}

impl ProcessorSettings {
    /// Until when a lease that was asked for at `asked_at` surely holds, whatever the clocks of others say.
    fn lease_holds_until(&self, asked_at: Instant) -> Instant {
        asked_at + self.lease.saturating_sub(self.clock_skew)
    }
}

/// Runs queued requests.
pub struct Processor<Q, P> {
    app: Arc<App>,
    queue: Q,
    connections: P,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    handlers: Handle,
    settings: ProcessorSettings,
}

impl<Q: fmt::Debug, P: fmt::Debug> fmt::Debug for Processor<Q, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor")
            .field("app", &self.app)
            .field("queue", &self.queue)
            .field("connections", &self.connections)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<Q: RequestQueue, P: Connections> Processor<Q, P> {
    /// A processor of `app`'s actions, whose handlers run on the runtime that `handlers` belongs to.
    ///
    /// Where that is not the runtime that [`process`](Self::process) runs on, a handler that burns CPU
    /// keeps neither leases from being renewed nor frames from being pushed.
    #[must_use]
    pub fn new(
        app: Arc<App>,
        queue: Q,
        connections: P,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        handlers: Handle,
        settings: ProcessorSettings,
    ) -> Self {
        Self { app, queue, connections, clock, entropy, handlers, settings }
    }

    /// Runs the requests of a batch, and names the records that must come again.
    ///
    /// Those are the ones whose request could not be claimed for a reason other than that somebody else has. Once
    /// it is claimed, the request itself says how it goes on: its record is done with.
    pub async fn process(&self, batch: StreamBatch, deadline: Timestamp) -> BatchResponse {
        let deadline = Instant::now() + deadline.since(self.clock.now());
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
            stream::iter(runs).buffer_unordered(self.settings.concurrency.max(1)).collect().await;
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
        let refused = match self.run(&key, deadline).await {
            Ok(()) => return None,
            Err(NotClaimed::NoTimeLeft) => "this invocation has no time left for it".to_owned(),
            Err(NotClaimed::Store(error)) => Causes(&error).to_string(),
        };
        tracing::error!(request = %key, error = refused, "the request was not claimed");
        Some(BatchItemFailure { item_identifier: sequence_number })
    }

    /// Claims a request and runs it to its end.
    async fn run(&self, key: &RequestKey, deadline: Instant) -> Result<(), NotClaimed> {
        // Before the claim: the lease cannot have begun earlier.
        let asked_at = Instant::now();
        if asked_at + self.settings.deadline_margin >= deadline {
            return Err(NotClaimed::NoTimeLeft);
        }
        let (now, owner) = (self.clock.now(), self.owner_token());
        let claim = self.queue.claim(key, &owner, now, now + self.settings.lease);
        // A claim that comes later than this leaves its handler no time.
        let claimed = timeout_at(deadline - self.settings.deadline_margin, claim).await;
        match claimed.map_err(|_| NotClaimed::NoTimeLeft)?.map_err(NotClaimed::Store)? {
            Claimed::Won(request, lease) => {
                tracing::info!(request = %key, action = request.action, attempt = request.attempt, "claimed");
                Attempt::new(self, *request, lease, asked_at, deadline).run().await;
            }
            Claimed::OutOfReach(_, error) => {
                tracing::error!(request = %key, error = %Causes(&error), "claimed, and left to its lease's end");
            }
            Claimed::Unreadable(lease, error) => self.give_up(key, &lease, &error, deadline).await,
            Claimed::NotPending(status) => {
                tracing::debug!(request = %key, status = status.as_str(), "not pending: nothing to do");
            }
            Claimed::Missing => tracing::warn!(request = %key, "the request is not there (any more)"),
        }
        Ok(())
    }

    /// Ends a request that is ours and that nobody can read: another try would find it no better.
    async fn give_up(&self, key: &RequestKey, lease: &Lease, error: &StoreError, deadline: Instant) {
        tracing::error!(request = %key, error = %Causes(error), "the request cannot be read");
        let told = ErrorBody::new(ErrorCode::InternalError, "The request can no longer be read");
        let (seq, now) = (Seq::start_of(lease.epoch).next(), self.clock.now());
        let end_of_time = deadline.checked_sub(LAST_MOMENT).unwrap_or(deadline);
        match timeout_at(end_of_time, write_end(self, key, lease, &Ending::Failed(told), seq, now)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(request = %key, error = %Causes(&error), "the end was not stored");
            }
            Err(_) => {
                tracing::error!(request = %key, "the end is not known to be stored before the invocation's own")
            }
        }
    }

    fn owner_token(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }
}

/// Why a record must come again.
enum NotClaimed {
    NoTimeLeft,
    Store(StoreError),
}
