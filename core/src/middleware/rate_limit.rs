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

/// A layer that rejects messages above a [`Rate`], with `RATE_LIMITED`.
///
/// Messages are counted in the router only: a request that is already queued runs. The error's
/// `details.retry_after_ms` says after how many milliseconds the next message would be accepted. Clones of a
/// `RateLimit` count together, so that several actions can share one limit.
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
    /// The `retry_after_ms` to send if the time until the next free token is unknown.
    const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

    /// Creates a limit for each connection.
    #[must_use]
    pub fn per_connection(rate: Rate) -> Self {
        Self::new(Per::Connection, rate)
    }

    /// Creates a limit for each user, for all connections of the user together.
    #[must_use]
    pub fn per_user(rate: Rate) -> Self {
        Self::new(Per::User, rate)
    }

    fn new(per: Per, rate: Rate) -> Self {
        Self { per, rate, shared: None, fails_closed: false, buckets: Arc::default() }
    }

    /// Counts messages of all the router's execution environments together, in the DynamoDB table `RATE_LIMITS_TABLE`.
    ///
    /// Limits with the same `name` share their counts. Each accepted message costs one write. A message is rejected
    /// without a write if this environment already knows that the limit is reached.
    ///
    /// If the router has no table, or the table does not answer, each environment counts separately, unless the limit
    /// is set to [`fail_closed`](Self::fail_closed). If DynamoDB throttles the write, the message is always rejected.
    /// Otherwise a flood of messages of one user, which throttles that user's item, could disable the user's own
    /// limit.
    #[must_use]
    pub fn shared(mut self, name: impl Into<Arc<str>>) -> Self {
        self.shared = Some(name.into());
        self
    }

    /// Rejects all messages while the table of a [shared](Self::shared) limit is missing or does not answer.
    ///
    /// By default, each environment counts separately in this case.
    #[must_use]
    pub const fn fail_closed(mut self) -> Self {
        self.fails_closed = true;
        self
    }

    /// Takes a token for a message, or returns the `RATE_LIMITED` error if no token is available.
    async fn admit(&self, routing: &Routing, context: &Context) -> Result<(), CallError> {
        let (key, now) = (self.per.key(context), routing.received_at);
        let known = self.buckets.take(&key, self.rate, now).map_err(|bucket| self.refuse(bucket, now))?;
        let Some(name) = &self.shared else { return Ok(()) };
        let Some(limits) = &routing.rate_limits else {
            self.buckets.missing_table.call_once(|| {
                if self.fails_closed {
                    tracing::error!(limit = %name, "RATE_LIMITS_TABLE not set; shared limit rejects all messages");
                } else {
                    tracing::warn!(limit = %name, "RATE_LIMITS_TABLE not set; each environment counts separately");
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
                tracing::warn!(limit = %name, error = %Causes(&error), "call to shared rate limit failed");
                self.without_table(error.kind() == StoreErrorKind::Throttled)
            }
        }
    }

    /// Decides about a message whose token could not be taken from the table.
    fn without_table(&self, throttled: bool) -> Result<(), CallError> {
        if throttled || self.fails_closed { Err(refusal(Self::UNKNOWN_WAIT)) } else { Ok(()) }
    }

    fn refuse(&self, bucket: FullAt, now: Timestamp) -> CallError {
        refusal(self.rate.wait(bucket, now))
    }
}

fn refusal(wait: Duration) -> CallError {
    let wait_ms = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    let error =
        ErrorBody::new(ErrorCode::RateLimited, format!("Too many requests: try again in {wait_ms} ms"));
    CallError::refused(error.with_detail("retry_after_ms", wait_ms))
}

impl Per {
    fn key(self, context: &Context) -> String {
        match self {
            Self::Connection => joined(["connection", context.connection.as_str()]),
            Self::User => joined(["user", context.tenant.as_str(), context.user.as_str()]),
        }
    }
}

/// The token buckets that this execution environment remembers.
#[derive(Debug)]
struct Buckets {
    full_at: Mutex<LruCache<String, FullAt>>,
    /// Ensures that a missing table is logged only once.
    missing_table: Once,
}

impl Buckets {
    /// Maximum number of remembered buckets. The least recently used bucket is evicted, and counts as full afterwards.
    const MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    /// Takes a token and returns the previous state of the bucket. An error contains the bucket that has no token left.
    fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<FullAt, FullAt> {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(key).copied().unwrap_or_default();
        let taken = rate.take(bucket, now).ok_or(bucket)?;
        buckets.put(key.to_owned(), taken);
        Ok(bucket)
    }

    /// Remembers the state of a bucket as stored in the table.
    fn learn(&self, key: String, bucket: FullAt) {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).put(key, bucket);
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self { full_at: Mutex::new(LruCache::new(Self::MAX)), missing_table: Once::new() }
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
