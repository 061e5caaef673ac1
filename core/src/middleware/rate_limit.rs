use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tower::Layer;

use super::around::Around;
use super::{Call, CallError, Next, Phase, Routing, Step};
use crate::handler::Context;
use crate::ids::joined;
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::store::{FullAt, Rate, StoreErrorKind, Taken};
use crate::telemetry::Causes;

mod shared;

pub(crate) use shared::SharedRateLimits;

/// Refuses, with `RATE_LIMITED`, whoever calls more often than a [`Rate`] allows.
///
/// Messages are counted as they come; what has been queued is run. `details.retry_after_ms` says when the next would
/// be let through. A clone counts together with its original, so that several actions can have one limit.
///
/// ```
/// use streamer::middleware::{Rate, RateLimit};
///
/// # let mut app = streamer::app::App::new();
/// app.layer(RateLimit::per_connection(Rate::per_second(20)))
///     .layer(RateLimit::per_user(Rate::per_minute(600).with_burst(100)).shared("messages"));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit {
    per: Per,
    rate: Rate,
    shared: Option<Arc<str>>,
    fails_closed: bool,
    buckets: Arc<Buckets>,
}

#[derive(Clone, Copy, Debug)]
enum Per {
    Connection,
    User,
}

impl RateLimit {
    /// What is told to wait for where nobody knows.
    const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

    /// So much for each connection.
    #[must_use]
    pub fn per_connection(rate: Rate) -> Self {
        Self::new(Per::Connection, rate)
    }

    /// So much for each user, over all connections.
    #[must_use]
    pub fn per_user(rate: Rate) -> Self {
        Self::new(Per::User, rate)
    }

    fn new(per: Per, rate: Rate) -> Self {
        Self { per, rate, shared: None, fails_closed: false, buckets: Arc::default() }
    }

    /// Counts for all of the router's environments together, in the table that the router was given
    /// (`RATE_LIMITS_TABLE`); limits of the same `name` are one.
    ///
    /// It costs a write for each message that is let through, and none for one that this environment knows to be too
    /// many. Without a table, and while it does not answer, each environment counts for itself
    /// ([`fail_closed`](Self::fail_closed) has it otherwise). Who meets a table that throttles is refused in any case: a
    /// flood on one bucket is throttled long before the table is, and must not open its own limit.
    #[must_use]
    pub fn shared(mut self, name: impl Into<Arc<str>>) -> Self {
        self.shared = Some(name.into());
        self
    }

    /// Refuses everybody while the table of a [shared](Self::shared) limit does not answer, or where there is none. By
    /// default each environment counts for itself then.
    #[must_use]
    pub const fn fail_closed(mut self) -> Self {
        self.fails_closed = true;
        self
    }

    /// Takes a token for a message, if there is one.
    async fn admit(&self, routing: &Routing, context: &Context) -> Result<(), CallError> {
        let (key, now) = (self.per.key(context), routing.received_at);
        let known = self.buckets.take(&key, self.rate, now).map_err(|bucket| self.refuse(bucket, now))?;
        let Some(name) = &self.shared else { return Ok(()) };
        let Some(limits) = &routing.rate_limits else {
            self.buckets.alone.call_once(|| {
                if self.fails_closed {
                    tracing::error!(limit = %name, "the router has no table for shared rate limits: this one refuses everybody");
                } else {
                    tracing::warn!(limit = %name, "the router has no table for shared rate limits: each counts for itself");
                }
            });
            return self.without_table(false);
        };
        let bucket = format!("{}/{key}", joined([&**name]));
        match limits.take(bucket, self.rate, now, known).await {
            Ok(Taken::Granted(bucket)) => {
                self.buckets.learn(key, bucket);
                Ok(())
            }
            Ok(Taken::Refused(bucket)) => {
                self.buckets.learn(key, bucket);
                Err(self.refuse(bucket, now))
            }
            Err(error) => {
                tracing::warn!(limit = %name, error = %Causes(&error), "the shared rate limit does not answer");
                self.without_table(error.kind() == StoreErrorKind::Throttled)
            }
        }
    }

    /// What becomes of a message whose token the table has not given.
    fn without_table(&self, throttled: bool) -> Result<(), CallError> {
        if throttled || self.fails_closed { Err(refusal(Self::UNKNOWN_WAIT)) } else { Ok(()) }
    }

    fn refuse(&self, bucket: FullAt, now: Timestamp) -> CallError {
        refusal(self.rate.wait(bucket, now))
    }
}

fn refusal(wait: Duration) -> CallError {
    let wait_ms = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    let told =
        ErrorBody::new(ErrorCode::RateLimited, format!("Too many requests: try again in {wait_ms} ms"));
    CallError::refused(told.with_detail("retry_after_ms", wait_ms))
}

impl Per {
    fn key(self, context: &Context) -> String {
        match self {
            Self::Connection => joined(["connection", context.connection.as_str()]),
            Self::User => joined(["user", context.tenant.as_str(), context.user.as_str()]),
        }
    }
}

/// What this environment knows of the buckets.
#[derive(Debug)]
struct Buckets {
    full_at: Mutex<LruCache<String, FullAt>>,
    /// Called where there is no table to share them in.
    alone: Once,
}

impl Buckets {
    /// How many are remembered. One that is forgotten, since as many others were used later, is full again.
    const MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    /// Takes a token, and returns the bucket as it was before; an error is the bucket without one.
    fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<FullAt, FullAt> {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(key).copied().unwrap_or_default();
        let taken = rate.take(bucket, now).ok_or(bucket)?;
        buckets.put(key.to_owned(), taken);
        Ok(bucket)
    }

    /// Remembers what the table says.
    fn learn(&self, key: String, bucket: FullAt) {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).put(key, bucket);
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self { full_at: Mutex::new(LruCache::new(Self::MAX)), alone: Once::new() }
    }
}

impl<S: Step> Layer<S> for RateLimit {
    type Service = Next;

    fn layer(&self, inner: S) -> Next {
        let limit = self.clone();
        let limited = move |call: Call, next: Next| {
            let limit = limit.clone();
            async move {
                if let Phase::Routing(routing) = &call.phase {
                    limit.admit(routing, &call.context).await?;
                }
                next.run(call).await
            }
        };
        Around::step(Arc::new(limited), inner)
    }
}
