use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::handler::HandlerTask;
use crate::ports::Timestamp;
use crate::store::{FullAt, Rate, RateLimits, StoreError, StoreErrorKind, Taken};

/// The shared limits, asked on the router's own runtime: on the handlers', one that burns CPU would hold up the
/// connections to the table that all calls share.
#[derive(Clone)]
pub(crate) struct SharedRateLimits {
    limits: Arc<dyn DynRateLimits>,
    runtime: Handle,
}

impl SharedRateLimits {
    /// The longest that a message waits for its token.
    const TIMEOUT: Duration = Duration::from_secs(1);

    /// `limits`, asked on `runtime`.
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
        let mut asking = HandlerTask::spawn(&self.runtime, async move {
            let taken = timeout(Self::TIMEOUT, limits.take_boxed(&bucket, rate, now, known));
            taken.await.unwrap_or_else(|_| {
                let problem =
                    format!("take a token from bucket {bucket}: no answer within {:?}", Self::TIMEOUT);
                Err(StoreError::new(StoreErrorKind::Unavailable, problem))
            })
        });
        asking.ended().await.unwrap_or_else(|panic| {
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

/// [`RateLimits`] of any type.
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
