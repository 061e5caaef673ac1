//! Requests whose handler is a test's own function.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::protocol::{ErrorBody, ErrorCode};
use streamer::protocol::{Frame, Seq};
use streamer::store::{
    Abandoned, AttemptOutcome, PageRequest, PastAttempt, ReadRequests as _, SweepRequests as _,
};
use streamer::store::{RequestSummary, Runner, Status};
use tokio::time::Instant;

use crate::world::{World, key, queue};

/// A handler that does what a function does, and notes when it was started.
struct Scripted<F> {
    policy: RetryPolicy,
    starts: Arc<Mutex<Vec<Instant>>>,
    script: F,
}

impl<F, W> Handler for Scripted<F>
where
    F: Fn(Context) -> W + Send + Sync + 'static,
    W: Future<Output = Result<Value, HandlerError>> + Send + 'static,
{
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, payload: &Value) -> Duration {
        Duration::from_secs(payload["takes"].as_u64().unwrap_or(10))
    }

    fn timeout(&self, payload: &Value) -> Option<Duration> {
        payload["limit"].as_u64().map(Duration::from_secs)
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.policy.clone()
    }

    async fn process(&self, _: Value, context: Context) -> Result<Value, HandlerError> {
        self.starts.lock().unwrap().push(Instant::now());
        (self.script)(context).await
    }
}

/// A world with an action, `scripted`.
pub(crate) struct Bench {
    pub(crate) world: World,
    starts: Arc<Mutex<Vec<Instant>>>,
}

impl Bench {
    pub(crate) async fn new<F, W>(policy: RetryPolicy, script: F) -> Self
    where
        F: Fn(Context) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Value, HandlerError>> + Send + 'static,
    {
        let starts = Arc::default();
        let mut app = App::new();
        app.handle("scripted", Scripted { policy, starts: Arc::clone(&starts), script }).unwrap();
        Self { world: World::new(app).await, starts }
    }

    pub(crate) async fn queue(&self, id: &str) {
        let ack = self.world.ask("scripted", id, json!({"n": 1})).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    /// Queues what may take so many seconds.
    pub(crate) async fn queue_limited(&self, id: &str, limit: u64) {
        self.world.ask("scripted", id, json!({"limit": limit})).await;
    }

    /// Queues what only the worker may run.
    pub(crate) async fn queue_long(&self, id: &str) {
        self.world.ask("scripted", id, json!({"takes": 3_600})).await;
    }

    pub(crate) fn started(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    /// When each run was started.
    pub(crate) fn starts(&self) -> Vec<Instant> {
        self.starts.lock().unwrap().clone()
    }

    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.world.clients.frames("c-ann")
    }

    pub(crate) async fn status(&self, id: &str) -> Status {
        self.world.request(id).await.status
    }

    /// The error that ends what ann was sent; it must be the only terminal frame.
    pub(crate) fn error(&self) -> ErrorBody {
        let frames = self.frames();
        assert_eq!(frames.iter().filter(|frame| frame.is_terminal()).count(), 1, "{frames:?}");
        let Some(Frame::Error { error, .. }) = frames.last() else { panic!("{frames:?}") };
        error.clone()
    }

    pub(crate) async fn summary(&self, id: &str) -> RequestSummary {
        let queue = queue(&self.world.db);
        let open = queue.due(self.world.now() + Duration::from_hours(48), PageRequest::first(100));
        open.await.unwrap().items.into_iter().find(|seen| seen.key() == key(id)).unwrap()
    }

    /// How long it is until somebody looks at the request.
    pub(crate) async fn wait(&self, id: &str) -> Duration {
        self.summary(id).await.timer_at.unwrap().since(self.world.now())
    }

    /// Takes a request back from an attempt that has died, as the sweeper does once its lease has ended.
    pub(crate) async fn take_back(&self, id: &str) {
        tokio::time::sleep(self.wait(id).await).await;
        let seen = self.summary(id).await;
        let crashed = PastAttempt {
            attempt: seen.attempt,
            epoch: seen.epoch,
            started_at: seen.started_at,
            ended_at: self.world.now(),
            outcome: AttemptOutcome::Crashed,
            error: ErrorBody::new(ErrorCode::InternalError, "Its process died"),
        };
        let history = crashed.added_to(&seen.history);
        let taken =
            queue(&self.world.db).take_back(&seen, &Abandoned::Again, &history, self.world.now()).await;
        assert!(taken.unwrap());
    }

    /// What is kept of the request's attempts.
    pub(crate) async fn history(&self, id: &str) -> Vec<(u32, AttemptOutcome)> {
        let history = self.world.request(id).await.history;
        history.iter().map(|past| (past.attempt, past.outcome)).collect()
    }

    pub(crate) async fn runner(&self, id: &str) -> Runner {
        self.world.request(id).await.runner
    }

    /// Runs the request, and brings it back each time it is due, until it has ended.
    pub(crate) async fn until_it_ends(&self, id: &str) {
        for _ in 0..200 {
            self.world.process().await;
            match self.status(id).await {
                Status::Retrying => self.world.retry(id).await,
                Status::Pending => {}
                Status::Processing => panic!("nobody runs it"),
                Status::Completed | Status::Failed | Status::Cancelled => return,
            }
        }
        panic!("it does not end");
    }
}

/// That a client was sent numbers that rise, and at most one end, as the last.
pub(crate) fn assert_in_order(frames: &[Frame]) {
    let seqs: Vec<Seq> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
            Frame::Error { seq, .. } => *seq,
            Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
        })
        .collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{frames:?}");
    assert!(!frames.iter().rev().skip(1).any(Frame::is_terminal), "{frames:?}");
}

/// How often something has happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicU32>);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts when it is dropped.
#[derive(Debug)]
pub(crate) struct CountsDrop(pub(crate) Count);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}
