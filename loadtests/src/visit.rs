//! The scenario: what one client does from `$connect` to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use goose::goose::{GooseUser, Scenario, Transaction, TransactionError, TransactionResult};
use streamer_protocol::RequestId;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::Connector;

use crate::connection::{self, Connection};
use crate::measure::{Failure, Measured, Metric};
use crate::replies::{Echo, SlowRequest};
use crate::tally::Tally;
use crate::tokens::Tokens;

/// A client that connects, asks quick and slow things, and leaves; then the next comes.
pub(crate) fn scenario(tokens: Tokens, tally: Arc<Tally>) -> Scenario {
    let plan = Arc::new(Plan {
        tokens,
        tally,
        tls: connection::tls(),
        run: fastrand::u64(..),
        requests: AtomicU64::new(0),
    });
    let visit = Transaction::new(Arc::new(move |user| {
        let plan = Arc::clone(&plan);
        Box::pin(async move { plan.visit(user).await })
    }));
    Scenario::new("client").register_transaction(visit.set_name("visit"))
}

/// What all users of a run share.
struct Plan {
    tokens: Tokens,
    tally: Arc<Tally>,
    tls: Connector,
    /// Makes the ids of this run differ from those of every other: a used id would be answered with its old request.
    run: u64,
    requests: AtomicU64,
}

impl Plan {
    /// Quick requests for each slow one.
    const ECHOES: u32 = 10;
    /// An endpoint that refuses connections is not asked again in an endless hurry.
    const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

    async fn visit(&self, user: &mut GooseUser) -> TransactionResult {
        let mut connection = self.connect(user).await?;
        for _ in 0..Self::ECHOES {
            self.echo(user, &mut connection).await?;
        }
        self.slow_request(user, &mut connection).await?;
        connection.close().await;
        Ok(())
    }

    async fn connect(&self, user: &mut GooseUser) -> Result<Connection, Box<TransactionError>> {
        let mut url = user.base_url.clone();
        url.query_pairs_mut().append_pair("token", self.tokens.of_user(user.weighted_users_index));
        throttled(user).await?;
        let started = Instant::now();
        let opened = Connection::open(url.as_str(), &self.tls, patience(user)).await;
        self.record(user, Metric::Connect, started.elapsed(), &opened).await?;
        match opened {
            Ok(connection) => Ok(connection),
            Err(_) => {
                sleep(Self::PAUSE_AFTER_REFUSAL).await;
                Err(ended_at(Metric::Connect))
            }
        }
    }

    async fn echo(&self, user: &mut GooseUser, connection: &mut Connection) -> TransactionResult {
        let echo = Echo::new(self.next_id());
        let message = echo.message();
        throttled(user).await?;
        let started = Instant::now();
        let until = started + patience(user);
        let outcome = async {
            connection.send(message, until).await?;
            echo.check(&connection.next_frame(until).await?)
        }
        .await;
        self.record(user, Metric::Echo, started.elapsed(), &outcome).await?;
        outcome.map_err(|_| ended_at(Metric::Echo))
    }

    async fn slow_request(&self, user: &mut GooseUser, connection: &mut Connection) -> TransactionResult {
        let mut request = SlowRequest::new(self.next_id());
        let message = request.message();
        throttled(user).await?;
        let started = Instant::now();
        let until = started + patience(user);
        let ended = async {
            let sent = connection.send(message, until).await;
            sent.map_err(|failure| (request.awaited(), failure))?;
            while !request.is_over() {
                let next = connection.next_frame(until).await;
                let frame = next.map_err(|failure| (request.awaited(), failure))?;
                request.take(&frame, started.elapsed())?;
            }
            Ok(())
        }
        .await;
        let mut visit_goes_on = Ok(());
        for Measured { metric, elapsed, outcome } in request.measured(ended, started.elapsed()) {
            self.record(user, metric, elapsed, &outcome).await?;
            visit_goes_on = visit_goes_on.and(outcome.map_err(|_| ended_at(metric)));
        }
        visit_goes_on
    }

    /// Makes a measurement a request of goose's, under the name `WS` and that of the metric.
    async fn record<T>(
        &self,
        user: &mut GooseUser,
        metric: Metric,
        elapsed: Duration,
        outcome: &Result<T, Failure>,
    ) -> TransactionResult {
        let failure = outcome.as_ref().err();
        let status = match (metric, failure) {
            (Metric::Connect, None) => Some(101),
            (_, failure) => failure.and_then(Failure::status),
        };
        self.tally.count(metric, failure);
        let text = failure.map(ToString::to_string);
        user.record_custom_request_duration(
            Metric::METHOD,
            metric.name(),
            elapsed,
            failure.is_none(),
            status,
            text.as_deref(),
        )
        .await
    }

    fn next_id(&self) -> RequestId {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId::new(format!("load-{:016x}-{number}", self.run))
    }
}

/// How goose is told that a client has left early; what failed is recorded already.
fn ended_at(metric: Metric) -> Box<TransactionError> {
    Box::new(TransactionError::Custom(format!("the client left after {:?} had failed", metric.name())))
}

/// Waits until goose's `--throttle-requests` lets one more request through.
async fn throttled(user: &GooseUser) -> TransactionResult {
    match user.throttle.as_ref().filter(|_| user.is_throttled) {
        Some(throttle) => throttle.send_async(true).await.map_err(|error| Box::new(error.into())),
        None => Ok(()),
    }
}

/// How long anything is waited for: goose's `--timeout`, by default 60 s, at most a day.
fn patience(user: &GooseUser) -> Duration {
    let timeout = user.config.timeout.as_deref().and_then(|seconds| seconds.parse().ok());
    let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout.unwrap_or(Duration::from_secs(60)).min(Duration::from_hours(24))
}
