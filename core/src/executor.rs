//! Running requests: claimed, run, reported on, ended. The processor and the worker both do it this way.

mod attempt;
mod outcome;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::config::Environment;
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::handler::HandlerRuntime;
use crate::ids::RequestKey;
use crate::lifecycle::Rules;
use crate::ports::{Clock, Entropy};
use crate::protocol::{ErrorBody, ErrorCode, Seq};
use crate::store::{Claimed, Ending, LastReport, Lease, RequestQueue, Runner, StoreError, StoreErrorKind};
use crate::telemetry::Causes;
use attempt::{Attempt, LAST_MOMENT, write};
use outcome::Parting;

/// How requests are run.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
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
    /// How long a handler that is told to stop has to clean up. Default 5 s.
    pub stop_grace: Duration,
    /// By how much the clocks of two functions may differ: nothing is pushed so shortly before a lease's end. Default 5 s.
    pub clock_skew: Duration,
    /// How often a request may go on from a checkpoint in a fresh invocation. Default 100: a day of invocations of 15 minutes.
    pub max_continuations: u32,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            push_interval: Duration::from_millis(100),
            store_interval: Duration::from_secs(1),
            push_timeout: Duration::from_secs(3),
            deadline_margin: Duration::from_secs(10),
            stop_grace: Duration::from_secs(5),
            clock_skew: Duration::from_secs(5),
            max_continuations: Rules::default().max_continuations,
        }
    }
}

impl ExecutorSettings {
    /// Reads `LEASE_MS` and `MAX_CONTINUATIONS`, as [`lambda`](crate::lambda) has them.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self {
            lease: environment.milliseconds("LEASE_MS", defaults.lease, 30_000..=900_000),
            max_continuations: Rules::from_env(environment).max_continuations,
            ..defaults
        }
    }

    /// Until when a lease that was asked for at `asked_at` surely holds, whatever the clocks of others say.
    fn lease_holds_until(&self, asked_at: Instant) -> Instant {
        asked_at + self.lease.saturating_sub(self.clock_skew)
    }
}

/// What runs requests: all that an attempt stands on.
pub struct Executor<Q, P, D> {
    /// The handlers.
    pub app: Arc<App>,
    /// Where requests are claimed, and end.
    pub queue: Q,
    /// The way to the clients.
    pub connections: P,
    /// Where it is told what has failed for good.
    pub dead_letters: D,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where owner tokens and the chance in waits come from.
    pub entropy: Arc<dyn Entropy>,
    /// The runtime that handlers run on. Where that is not the one that attempts are made on, a handler that burns CPU keeps
    /// neither leases from being renewed nor frames from being pushed; and one that holds its last thread past its time holds
    /// up nobody who comes after it, who runs on a fresh one.
    pub handler_runtime: HandlerRuntime,
    /// How requests are run.
    pub settings: ExecutorSettings,
}

impl<Q: fmt::Debug, P: fmt::Debug, D: fmt::Debug> fmt::Debug for Executor<Q, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("app", &self.app)
            .field("queue", &self.queue)
            .field("connections", &self.connections)
            .field("dead_letters", &self.dead_letters)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What became of the wish to run a request.
#[derive(Debug)]
pub(crate) enum Ran {
    /// It was run, or there was nothing to run.
    Done,
    /// It is for the worker.
    ForWorker,
    /// Its next attempt is due then.
    RetryAt(Instant),
}

/// Why a request was not run, and stands as before.
#[derive(Debug)]
pub(crate) enum NotClaimed {
    NoTimeLeft,
    Store(StoreError),
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Executor<Q, P, D> {
    /// Claims a request and runs it until it ends, or is to go on later. It must have this much time `at_least` before its
    /// handler would be told that the invocation ends.
    pub(crate) async fn run(
        &self,
        key: &RequestKey,
        runner: Runner,
        at_least: Duration,
        deadline: Instant,
    ) -> Result<Ran, NotClaimed> {
        // Before the claim: the lease cannot have begun earlier.
        let asked_at = Instant::now();
        if asked_at + self.settings.deadline_margin + at_least >= deadline {
            return Err(NotClaimed::NoTimeLeft);
        }
        let (now, owner) = (self.clock.now(), self.owner_token());
        let claim = self.queue.claim(key, &owner, runner, now, now + self.settings.lease);
        // A claim that comes later than this leaves its handler no time.
        let claimed = timeout_at(deadline - self.settings.deadline_margin, claim).await;
        let late = |_| {
            let context = format!("claim {key}: no answer in the time that this invocation has");
            Err(StoreError::new(StoreErrorKind::Unavailable, context))
        };
        match claimed.unwrap_or_else(late).map_err(NotClaimed::Store)? {
            Claimed::Won(request, lease) => {
                tracing::info!(request = %key, action = request.action, attempt = request.attempt, "claimed");
                return Ok(Box::pin(Attempt::new(self, *request, lease, asked_at, deadline).run()).await);
            }
            // To give it back would take the store that does not answer: it costs an attempt.
            Claimed::OutOfReach(_, error) => {
                tracing::error!(request = %key, error = %Causes(&error), "claimed, and left to its lease's end");
            }
            Claimed::Unreadable(lease, error) => self.give_up(key, &lease, &error, deadline).await,
            Claimed::ForWorker => return Ok(Ran::ForWorker),
            Claimed::NotPending(status) => {
                tracing::debug!(request = %key, status = status.as_str(), "not pending: nothing to do");
            }
            Claimed::Missing => tracing::warn!(request = %key, "the request is not there (any more)"),
        }
        Ok(Ran::Done)
    }

    /// Ends a request that is ours and that nobody can read: another try would find it no better.
    async fn give_up(&self, key: &RequestKey, lease: &Lease, error: &StoreError, deadline: Instant) {
        tracing::error!(request = %key, error = %Causes(error), "the request cannot be read");
        let told = ErrorBody::new(ErrorCode::InternalError, "The request can no longer be read");
        let seq = Seq::start_of(lease.epoch).next();
        let last = LastReport { seq, at: self.clock.now(), ..LastReport::default() };
        let end_of_time = deadline.checked_sub(LAST_MOMENT).unwrap_or(deadline);
        // Its history, which nobody can read either, stays as it is.
        let parting = Parting::Ended(Ending::Failed(told), Vec::new());
        let written = async {
            match write(self, key, lease, &parting, &last).await {
                // Its end was asked for meanwhile.
                Err(error) if error.kind() == StoreErrorKind::ConditionLost => {
                    write(self, key, lease, &Parting::cancelled(), &last).await
                }
                written => written,
            }
        };
        match timeout_at(end_of_time, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(request = %key, error = %Causes(&error), "the end was not stored");
            }
            Err(_) => {
                tracing::error!(request = %key, "the end is not known to be stored before the invocation's own")
            }
        }
    }

    /// A number from 0 to 1.
    fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn owner_token(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }
}
