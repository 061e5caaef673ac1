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

/// A layer that rejects messages above a [`Rate`], with the error `RATE_LIMITED`.
///
/// Only the router counts messages, so the limit does not affect requests that are already queued. The error's
/// `details.retry_after_ms` is the time in milliseconds after which the next message would be accepted. A `RateLimit`
/// and its clones share one count, so that several actions can share one limit.
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
    /// Value of `retry_after_ms` if the time until the next free token is unknown.
    const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

    /// Creates a limit for the messages of each connection.
    #[must_use]
    pub fn per_connection(rate: Rate) -> Self {
        Self::new(Per::Connection, rate)
    }

    /// Creates a limit for the messages of each user, counted over all connections of the user.
    #[must_use]
    pub fn per_user(rate: Rate) -> Self {
        Self::new(Per::User, rate)
    }

    fn new(per: Per, rate: Rate) -> Self {
        Self { per, rate, shared: None, fails_closed: false, buckets: Arc::default() }
    }

    /// Counts the messages of all execution environments of the router together, in the DynamoDB table whose name is
    /// in the environment variable `RATE_LIMITS_TABLE`.
    ///
    /// Limits with the same `name` share their counts. Each accepted message costs one write. If an environment has
    /// learned from an earlier write that the limit is reached, it rejects messages without a write.
    ///
    /// If the router has no table, or the table does not answer, each environment counts separately, unless the limit
    /// is set to [`fail_closed`](Self::fail_closed). If DynamoDB throttles the write, the message is always rejected.
    /// Otherwise users could disable their own limit, by sending so many messages that the writes to their item are
    /// throttled.
    #[must_use]
    pub fn shared(mut self, name: impl Into<Arc<str>>) -> Self {
        self.shared = Some(name.into());
        self
    }

    /// Rejects all messages while the table of a [shared](Self::shared) limit is missing or does not answer.
    ///
    /// Without this setting, each execution environment counts separately while the table is missing or does not
    /// answer.
    #[must_use]
    pub const fn fail_closed(mut self) -> Self {
        self.fails_closed = true;
        self
    }

    /// Takes a token for a message from the token bucket. Returns the `RATE_LIMITED` error if no token is available.
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
                tracing::warn!(limit = %name, error = %Causes(&error), "shared rate limit could not be checked");
                self.without_table(error.kind() == StoreErrorKind::Throttled)
            }
        }
    }

    /// Accepts or rejects a message when the shared table is missing, or when the call to the table has
    /// failed. `throttled` is `true` if DynamoDB throttled the call.
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

/// The token buckets that an execution environment keeps in memory.
#[derive(Debug)]
struct Buckets {
    full_at: Mutex<LruCache<String, FullAt>>,
    /// Ensures that a missing rate limits table is logged only once.
    missing_table: Once,
}

impl Buckets {
    /// Maximum number of token buckets in memory. If a new bucket exceeds this number, the least recently used bucket
    /// is evicted. An evicted bucket is full at its next use.
    const MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    /// Takes a token from a bucket, and returns the state that the bucket had before. If the bucket has no token
    /// left, returns the bucket's state as the error.
    fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<FullAt, FullAt> {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(key).copied().unwrap_or_default();
        let taken = rate.take(bucket, now).ok_or(bucket)?;
        buckets.put(key.to_owned(), taken);
        Ok(bucket)
    }

    /// Caches in memory the state of a bucket that the table holds.
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
