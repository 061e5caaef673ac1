use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::handler::HandlerTask;
use crate::ports::Timestamp;
use crate::store::{FullAt, Rate, RateLimits, StoreError, StoreErrorKind, Taken};

/// The rate limits that all execution environments share through the store. The store is called on the router's own
/// runtime.
///
/// If the store were called on the handlers' runtime, a handler that computes without awaiting would delay the
/// connections to DynamoDB, which all calls share.
#[derive(Clone)]
pub(crate) struct SharedRateLimits {
    limits: Arc<dyn DynRateLimits>,
    runtime: Handle,
}

impl SharedRateLimits {
    /// Maximum time that a message waits for a token from the store.
    const TIMEOUT: Duration = Duration::from_secs(1);

    /// Creates shared limits that call `limits` on `runtime`.
    pub(crate) fn new(limits: impl RateLimits + 'static, runtime: Handle) -> Self {
        Self { limits: Arc::new(limits), runtime }
    }

    pub(super) async fn take(
        &self,
        bucket: String,
        rate: Rate,
        now: Timestamp,
        known: FullAt,
    ) -> Result<Taken, StoreError> {
        let limits = Arc::clone(&self.limits);
        let mut task = HandlerTask::spawn(&self.runtime, async move {
            let taken = timeout(Self::TIMEOUT, limits.take_boxed(&bucket, rate, now, known));
            taken.await.unwrap_or_else(|_| {
                let problem =
                    format!("take a token from bucket {bucket}: no answer within {:?}", Self::TIMEOUT);
                Err(StoreError::new(StoreErrorKind::Unavailable, problem))
            })
        });
        task.ended().await.unwrap_or_else(|panic| {
            let problem = "take a token: the store's adapter panicked";
            Err(StoreError::new(StoreErrorKind::Unavailable, problem).with_source(panic))
        })
    }
}

impl fmt::Debug for SharedRateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRateLimits")
    }
}

/// The dyn-compatible form of [`RateLimits`], whose async method returns a boxed future.
trait DynRateLimits: Send + Sync {
    fn take_boxed<'a>(
        &'a self,
        bucket: &'a str,
        rate: Rate,
        now: Timestamp,
        known: FullAt,
    ) -> BoxFuture<'a, Result<Taken, StoreError>>;
}

impl<L: RateLimits> DynRateLimits for L {
    fn take_boxed<'a>(
        &'a self,
        bucket: &'a str,
        rate: Rate,
        now: Timestamp,
        known: FullAt,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        Box::pin(self.take(bucket, rate, now, known))
    }
}
