//! Test fixture: a world with one action, `scripted`, whose handler runs a closure that the test supplies.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::protocol::{ErrorBody, ErrorCode};
use streamer::protocol::{Frame, Seq};
use streamer::store::{
    AttemptOutcome, PageRequest, PastAttempt, ReadRequests as _, ReclaimVerdict, SweepRequests as _,
};
use streamer::store::{RequestSummary, Runner, Status};
use tokio::time::Instant;

use crate::world::{World, key, queue};

/// Handler that runs the closure `script`, and records the start time of each run.
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

/// World whose app has the action `scripted`. The helpers act for the user ann of the tenant acme.
pub(crate) struct Bench {
    pub(crate) world: World,
    starts: Arc<Mutex<Vec<Instant>>>,
}

impl Bench {
    /// Creates a world in which `script` handles the action `scripted`, with the retry policy `policy`.
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

    /// Sends the request `id`, estimated to take ten seconds, so that the processor runs the request.
    pub(crate) async fn queue(&self, id: &str) {
        let ack = self.world.ask("scripted", id, json!({"n": 1})).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    /// Queues the request `id` with a handler timeout of `limit` seconds.
    pub(crate) async fn queue_limited(&self, id: &str, limit: u64) {
        self.world.ask("scripted", id, json!({"limit": limit})).await;
    }

    /// Queues the request `id`, estimated to take an hour, so that only the worker may run the request.
    pub(crate) async fn queue_long(&self, id: &str) {
        self.world.ask("scripted", id, json!({"takes": 3_600})).await;
    }

    /// Returns the number of handler runs that have started.
    pub(crate) fn started(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    /// Returns the start time of each handler run, in order.
    pub(crate) fn starts(&self) -> Vec<Instant> {
        self.starts.lock().unwrap().clone()
    }

    /// Returns the frames that were sent to ann's connection.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.world.clients.frames("c-ann")
    }

    /// Returns the stored status of the request `id`.
    pub(crate) async fn status(&self, id: &str) -> Status {
        self.world.request(id).await.status
    }

    /// Returns the error in the last frame that was sent to ann. Asserts that only this frame is terminal.
    pub(crate) fn error(&self) -> ErrorBody {
        let frames = self.frames();
        assert_eq!(frames.iter().filter(|frame| frame.is_terminal()).count(), 1, "{frames:?}");
        let Some(Frame::Error { error, .. }) = frames.last() else { panic!("{frames:?}") };
        error.clone()
    }

    /// Returns the entry of the request `id` in the timer index.
    pub(crate) async fn summary(&self, id: &str) -> RequestSummary {
        let queue = queue(&self.world.db);
        let open = queue.due(self.world.now() + Duration::from_hours(48), PageRequest::first(100));
        open.await.unwrap().items.into_iter().find(|seen| seen.key() == key(id)).unwrap()
    }

    /// Returns the time left until the timer of the request `id` is due.
    pub(crate) async fn wait(&self, id: &str) -> Duration {
        self.summary(id).await.timer_at.unwrap().since(self.world.now())
    }

    /// Waits until the timer of the request `id` is due. Then reclaims the request as the sweeper does after an
    /// attempt has crashed.
    pub(crate) async fn reclaim(&self, id: &str) {
        tokio::time::sleep(self.wait(id).await).await;
        let seen = self.summary(id).await;
        let crashed = PastAttempt {
            attempt: seen.attempt,
            epoch: seen.epoch,
            started_at: seen.started_at,
            ended_at: self.world.now(),
            outcome: AttemptOutcome::Crashed,
            error: ErrorBody::new(ErrorCode::InternalError, "The process died"),
        };
        let history = crashed.added_to(&seen.history);
        let reclaimed =
            queue(&self.world.db).reclaim(&seen, &ReclaimVerdict::Rerun, &history, self.world.now()).await;
        assert!(reclaimed.unwrap());
    }

    /// Returns the attempt number and the outcome of each entry in the stored history of the request `id`.
    pub(crate) async fn history(&self, id: &str) -> Vec<(u32, AttemptOutcome)> {
        let history = self.world.request(id).await.history;
        history.iter().map(|past| (past.attempt, past.outcome)).collect()
    }

    /// Returns the function, processor or worker, that runs the next attempt of the request `id`.
    pub(crate) async fn runner(&self, id: &str) -> Runner {
        self.world.request(id).await.runner
    }

    /// Runs the attempts of the request `id` until the request is terminal. Waits until each retry is due.
    pub(crate) async fn run_until_terminal(&self, id: &str) {
        for _ in 0..200 {
            self.world.process().await;
            match self.status(id).await {
                Status::Retrying => self.world.retry(id).await,
                Status::Pending => {}
                Status::Processing => panic!("the request is still PROCESSING although no attempt runs"),
                Status::Completed | Status::Failed | Status::Cancelled => return,
            }
        }
        panic!("the request is not terminal after 200 rounds");
    }
}

/// Asserts that the sequence numbers of `frames` rise, and that no frame before the last is terminal.
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

/// Counter whose clones share one value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicU32>);

impl Count {
    /// Adds one to the counter.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the counter's value.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Guard that adds one to its counter when the guard is dropped.
#[derive(Debug)]
pub(crate) struct CountsDrop(pub(crate) Count);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}
