//! The goose scenario: the steps of one visit, from `$connect` to the close of the connection.

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

/// Returns the scenario. In each visit, a client connects, sends quick requests and one slow request, and
/// closes the connection. Then the next visit begins.
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

/// State that all users of a run share.
struct Plan {
    tokens: Tokens,
    tally: Arc<Tally>,
    tls: Connector,
    /// Random number in the request ids of this run. If a run repeated an id of an earlier run, the router
    /// would answer with the earlier request.
    run: u64,
    /// Number of requests sent so far, which makes each id unique within the run.
    requests: AtomicU64,
}

impl Plan {
    /// Number of quick requests in a visit, before its slow request.
    const ECHOES: u32 = 10;
    /// Pause after a failed attempt to connect, so that users do not retry in a tight loop.
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
        let opened = Connection::open(url.as_str(), &self.tls, timeout_of(user)).await;
        self.record(user, Metric::Connect, started.elapsed(), &opened).await?;
        match opened {
            Ok(connection) => Ok(connection),
            Err(_) => {
                sleep(Self::PAUSE_AFTER_REFUSAL).await;
                Err(visit_aborted(Metric::Connect))
            }
        }
    }

    async fn echo(&self, user: &mut GooseUser, connection: &mut Connection) -> TransactionResult {
        let echo = Echo::new(self.next_id());
        let message = echo.message();
        throttled(user).await?;
        let started = Instant::now();
        let until = started + timeout_of(user);
        let outcome = async {
            connection.send(message, until).await?;
            echo.check(&connection.next_frame(until).await?)
        }
        .await;
        self.record(user, Metric::Echo, started.elapsed(), &outcome).await?;
        outcome.map_err(|_| visit_aborted(Metric::Echo))
    }

    async fn slow_request(&self, user: &mut GooseUser, connection: &mut Connection) -> TransactionResult {
        let mut request = SlowRequest::new(self.next_id());
        let message = request.message();
        throttled(user).await?;
        let started = Instant::now();
        let until = started + timeout_of(user);
        let outcome = async {
            let sent = connection.send(message, until).await;
            sent.map_err(|failure| (request.awaited(), failure))?;
            while !request.is_over() {
                let next = connection.next_frame(until).await;
                let frame = next.map_err(|failure| (request.awaited(), failure))?;
                request.receive(&frame, started.elapsed())?;
            }
            Ok(())
        }
        .await;
        let mut visit_outcome = Ok(());
        for Measured { metric, elapsed, outcome } in request.measured(outcome, started.elapsed()) {
            self.record(user, metric, elapsed, &outcome).await?;
            visit_outcome = visit_outcome.and(outcome.map_err(|_| visit_aborted(metric)));
        }
        visit_outcome
    }

    /// Records a measurement as a request in goose's metrics, with the method `WS` and the metric's name.
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

/// Tells goose to end this user's visit early. The failed metric is already recorded.
fn visit_aborted(metric: Metric) -> Box<TransactionError> {
    Box::new(TransactionError::Custom(format!("visit aborted, because {:?} failed", metric.name())))
}

/// Waits until goose's `--throttle-requests` allows one more request.
async fn throttled(user: &GooseUser) -> TransactionResult {
    match user.throttle.as_ref().filter(|_| user.is_throttled) {
        Some(throttle) => throttle.send_async(true).await.map_err(|error| Box::new(error.into())),
        None => Ok(()),
    }
}

/// Returns the maximum wait for a connection or a frame: goose's `--timeout`, by default 60 s, at most 24
/// hours.
fn timeout_of(user: &GooseUser) -> Duration {
    let timeout = user.config.timeout.as_deref().and_then(|seconds| seconds.parse().ok());
    let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout.unwrap_or(Duration::from_secs(60)).min(Duration::from_hours(24))
}
