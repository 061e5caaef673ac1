//! Tests of the sweeper on the fake DynamoDB, in virtual time: the due items that the sweeper handles, the time at
//! which it handles them, and its DynamoDB calls.

use std::collections::BTreeSet;
use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::ServiceError;
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::dead_letters::{DeadLetter, DeadLetters};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::ids::RequestId;
use streamer::ports::Timestamp;
use streamer::protocol::{ErrorBody, ErrorCode, Frame, Seq};
use streamer::store::dynamodb::part_item;
use streamer::store::{
    AttemptOutcome, ClaimRequests as _, Claimed, LastReport, Lease, PastAttempt, Progress, Request,
    RunRequests as _, Runner, Status, SubmitRequests as _,
};
use streamer::sweeper::{Sweeper, Swept};
use streamer_harness::faults::{Call, Fault};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::world::{REQUESTS, World, batch, key, queue};

/// Handler that sleeps for a second and returns its payload.
struct Work;

impl Handler for Work {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, payload: Value, _: Context) -> Result<Value, HandlerError> {
        sleep(Duration::from_secs(1)).await;
        Ok(payload)
    }
}

/// Handler whose first run fails or hangs, and whose later runs return the payload.
#[derive(Clone, Default)]
struct Shaky {
    /// True if the first run hangs. If false, the first run fails and asks for a retry after five seconds.
    hangs: bool,
    /// Start time of each run of the handler.
    started: Arc<Mutex<Vec<Instant>>>,
}

impl Handler for Shaky {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, payload: Value, context: Context) -> Result<Value, HandlerError> {
        let starts = {
            let mut started = self.started.lock().unwrap();
            started.push(Instant::now());
            started.len()
        };
        context.progress.report(10.0, "Working")?;
        sleep(Duration::from_millis(500)).await;
        match (starts, self.hangs) {
            (1, true) => std::future::pending().await,
            (1, false) => {
                Err(HandlerError::retryable("PAPER_JAM", "Try again").retry_after(Duration::from_secs(5)))
            }
            _ => Ok(payload),
        }
    }
}

/// World in which ann's requests can be put into each state that the sweeper handles.
struct Scene {
    world: World,
}

impl Scene {
    async fn new() -> Self {
        let mut app = App::new();
        app.handle("work", Work).unwrap();
        Self { world: World::new(app).await }
    }

    /// Sends the request `id` through the router and asserts that the request is queued.
    async fn queue(&self, id: &str) {
        let ack = self.world.ask("work", id, json!({"n": 1})).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    /// Writes the request `id`, with `max_attempts`, to the store without the router.
    async fn queue_with(&self, id: &str, max_attempts: u32) {
        let request = Request::new(
            id.into(),
            "ann".into(),
            "acme".into(),
            "c-ann".into(),
            "work",
            json!({"n": 1}),
            self.world.now(),
        );
        queue(&self.world.db).enqueue(&Request { max_attempts, ..request }).await.unwrap();
    }

    /// Claims the request `id` for the worker and runs no handler, like a process that dies right after the claim.
    async fn claim(&self, id: &str) -> Lease {
        let (now, queue) = (self.world.now(), queue(&self.world.db));
        let claimed = queue.claim(&key(id), "it", Runner::Worker, now, now + LEASE).await.unwrap();
        let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
        lease
    }

    /// Returns the last progress report of the attempt that holds `lease`: 0 %, at the current time.
    fn last(&self, lease: &Lease) -> LastReport {
        let seq = Seq::start_of(lease.epoch).next();
        LastReport { progress: Progress::default(), seq, at: self.world.now() }
    }

    /// Queues and completes the request `id`, but pushes no frame, like a process that dies right after the terminal
    /// write.
    async fn complete(&self, id: &str) {
        self.queue_with(id, 1).await;
        let lease = self.claim(id).await;
        let last = self.last(&lease);
        queue(&self.world.db).complete(&key(id), &lease, &json!({"n": 1}), &last).await.unwrap();
    }

    /// Queues and fails the request `id`, but pushes no frame, like a process that dies right after the terminal
    /// write.
    async fn fail(&self, id: &str) {
        self.queue_with(id, 1).await;
        let lease = self.claim(id).await;
        let last = self.last(&lease);
        let history = [self.past(&lease)];
        queue(&self.world.db).fail(&key(id), &lease, &out_of_paper(), &history, &last).await.unwrap();
    }

    /// Queues the request `id` and fails its first attempt. Its retry is due after `wait`.
    async fn retry_in(&self, id: &str, wait: Duration) {
        self.queue_with(id, 3).await;
        let lease = self.claim(id).await;
        let (last, history) = (self.last(&lease), [self.past(&lease)]);
        let due = self.world.now() + wait;
        let queue = queue(&self.world.db);
        queue.retry_later(&key(id), &lease, &history, due, Runner::Processor, &last).await.unwrap();
    }

    /// Returns the history entry of a failed first attempt that held `lease`.
    fn past(&self, lease: &Lease) -> PastAttempt {
        PastAttempt {
            attempt: 1,
            epoch: lease.epoch,
            started_at: None,
            ended_at: self.world.now(),
            outcome: AttemptOutcome::Failed,
            error: out_of_paper(),
        }
    }

    /// Runs the sweeper once with its default settings, for a minute.
    async fn sweep(&self) -> Swept {
        self.world.sweeper().sweep(self.world.now() + INVOCATION).await
    }

    /// Runs the sweeper for a minute with only two queries for due items, for tests that need many runs.
    async fn sweep_slowly(&self) -> Swept {
        let mut sweeper = self.world.sweeper();
        sweeper.settings.pace = Duration::from_secs(30);
        sweeper.sweep(self.world.now() + INVOCATION).await
    }

    /// Runs the stage's other functions for `duration`: the processor on each new record of a pending
    /// request, and the worker on each dispatched request.
    async fn run_functions(&self, duration: Duration) {
        let end = Instant::now() + duration;
        let (mut seen, mut dispatched) = (BTreeSet::new(), self.world.dispatched.keys().len());
        let mut running = FuturesUnordered::new();
        while Instant::now() < end {
            for record in self.world.pending() {
                if seen.insert(record["eventID"].to_string()) {
                    running.push(
                        async {
                            let deadline = self.world.now() + Duration::from_mins(15);
                            self.world.processor().process(batch(vec![record]), deadline).await;
                        }
                        .boxed_local(),
                    );
                }
            }
            for key in self.world.dispatched.keys().split_off(dispatched) {
                dispatched += 1;
                running.push(self.world.work(key).boxed_local());
            }
            tokio::select! {
                biased;
                Some(()) = running.next() => {}
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    /// Returns the time at which the request `id` is due for the sweeper; `None` if the request has no timer.
    async fn timer_at(&self, id: &str) -> Option<Timestamp> {
        let item = self.world.item(id).await;
        item.get("timer_at").map(|at| Timestamp::from_millis(at.as_n().unwrap().parse().unwrap()))
    }

    /// Returns the time at which the sweeper made the retried request `id` pending. The time is computed from the
    /// request's timer, which the sweeper set to 150 s after that time.
    async fn pending_since(&self, id: &str) -> Timestamp {
        assert_eq!(self.world.request(id).await.status, Status::Pending);
        let timer = self.timer_at(id).await.unwrap();
        Timestamp::from_millis(timer.as_millis() - 150_000)
    }

    /// Returns the frames that were sent to ann's connection.
    fn frames(&self) -> Vec<Frame> {
        self.world.clients.frames("c-ann")
    }

    /// Returns the terminal frames of the request `id` that were sent to ann's connection.
    fn frames_of(&self, id: &str) -> Vec<Frame> {
        let id = RequestId::from(id);
        self.frames()
            .into_iter()
            .filter(|frame| match frame {
                Frame::Complete { request_id, .. } => *request_id == id,
                Frame::Error { request_id, .. } => request_id.as_ref() == Some(&id),
                Frame::Progress { .. } | Frame::Response { .. } | Frame::Acknowledgment { .. } => false,
            })
            .collect()
    }

    /// Returns the number of times that the sweeper has nudged the request `id`. A nudge is a write that puts the
    /// request into the stream again.
    async fn nudges(&self, id: &str) -> u64 {
        let item = self.world.item(id).await;
        item.get("nudges").map_or(0, |nudges| nudges.as_n().unwrap().parse().unwrap())
    }
}

/// Duration of the lease of each claim in these tests.
const LEASE: Duration = Duration::from_secs(60);
/// Time from the start of each sweeper invocation to its deadline.
const INVOCATION: Duration = Duration::from_secs(90);

fn out_of_paper() -> ErrorBody {
    ErrorBody::new(ErrorCode::from("OUT_OF_PAPER"), "There is no paper")
}

fn code(frame: &Frame) -> &ErrorCode {
    let Frame::Error { error, .. } = frame else { panic!("{frame:?}") };
    &error.code
}

#[tokio::test(start_paused = true)]
async fn request_lost_by_the_stream_is_nudged_and_then_processed() {
    let scene = Scene::new().await;
    scene.queue("r1").await;
    assert_eq!(scene.sweep().await.handled, 0, "a pending request is not due in its first minute");
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.nudged, swept.failed), (1, 1, 0));
    assert_eq!(scene.world.pending().len(), 2, "the nudge adds a stream record");
    let record = scene.world.pending().remove(1);
    let processor = scene.world.processor();
    let answer = processor.process(batch(vec![record]), scene.world.now() + INVOCATION).await;
    assert_eq!(answer.batch_item_failures, []);
    assert_eq!(scene.world.request("r1").await.status, Status::Completed);
    assert_eq!(scene.frames().len(), 1);
    assert_eq!(scene.sweep().await.handled, 0);
}

#[tokio::test(start_paused = true)]
async fn request_whose_process_died_is_reclaimed_for_the_worker_and_has_used_an_attempt() {
    let scene = Scene::new().await;
    scene.queue_with("r1", 3).await;
    let begun = scene.world.now();
    scene.claim("r1").await;
    assert_eq!(scene.sweep().await.handled, 0, "a request is not due while its lease is valid");
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.reclaimed), (1, 1));
    let request = scene.world.request("r1").await;
    assert_eq!((request.status, request.runner), (Status::Pending, Runner::Worker));
    assert_eq!((request.attempt, request.epoch, request.lease), (1, 1, None));
    let [crash] = request.history.as_slice() else { panic!("{:?}", request.history) };
    assert_eq!((crash.attempt, crash.epoch, crash.outcome), (1, 1, AttemptOutcome::Crashed));
    assert_eq!(crash.error.code, ErrorCode::ProcessingFailed);
    assert_eq!(crash.started_at, Some(begun));
    assert_eq!(
        crash.ended_at,
        begun + Duration::from_secs(70),
        "the request is reclaimed 10 s after its lease expires"
    );
    assert_eq!(scene.frames(), []);

    let record = scene.world.pending().pop().unwrap();
    assert_eq!(record["dynamodb"]["NewImage"]["runner"]["S"], "worker");
    let lease = scene.claim("r1").await;
    assert_eq!(lease.epoch, 2);
    assert_eq!(scene.world.request("r1").await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn request_that_crashes_its_process_in_every_attempt_fails_and_sends_a_dead_letter() {
    let scene = Scene::new().await;
    scene.queue_with("r1", 2).await;
    for attempt in 1..=2 {
        assert_eq!(scene.claim("r1").await.epoch, attempt);
        scene.sweep().await;
        scene.sweep().await;
    }
    let request = scene.world.request("r1").await;
    assert_eq!((request.status, request.attempt, request.history.len()), (Status::Failed, 2, 2));
    assert_eq!(request.subscribers, []);
    assert!(!request.is_dead_letter_due);
    let frames = scene.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(code(&frames[0]), &ErrorCode::ProcessingFailed);
    let letters = scene.world.letters.sent();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].id.as_str(), letters[0].attempts), ("acme/ann/r1#2@1700000000000", 2));
    assert_eq!((&letters[0].payload, letters[0].history.len()), (&json!({"n": 1}), 2));
    assert_eq!(
        scene.timer_at("r1").await,
        None,
        "a request whose frame and dead letter are sent has no timer"
    );
    assert_eq!(scene.sweep().await.handled, 0);
}

#[tokio::test(start_paused = true)]
async fn sweeper_cancels_a_request_whose_process_died_after_a_cancel_request() {
    let scene = Scene::new().await;
    scene.queue_with("r1", 3).await;
    scene.claim("r1").await;
    queue(&scene.world.db).cancel(&key("r1"), scene.world.now()).await.unwrap();
    scene.sweep().await;
    let swept = scene.sweep().await;
    assert_eq!((swept.ended, swept.delivered), (1, 1));
    let request = scene.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Cancelled, vec![]));
    assert_eq!(scene.frames().len(), 1);
    assert_eq!(code(&scene.frames()[0]), &ErrorCode::Cancelled);
    assert_eq!(scene.world.letters.sent(), []);
    assert_eq!(scene.timer_at("r1").await, None);
}

#[tokio::test(start_paused = true)]
async fn request_with_a_valid_lease_is_postponed_until_after_the_lease_expires() {
    let scene = Scene::new().await;
    scene.queue_with("r1", 3).await;
    let begun = scene.world.now();
    let lease = scene.claim("r1").await;
    advance(Duration::from_secs(50)).await;
    let until = begun + Duration::from_secs(110);
    queue(&scene.world.db).renew(&key("r1"), &lease, until).await.unwrap();
    let before = scene.world.request("r1").await;
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.held), (1, 1));
    assert_eq!(scene.world.request("r1").await, before);
    assert_eq!(scene.timer_at("r1").await, Some(until + Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn retry_is_delayed_until_its_due_time() {
    let scene = Scene::new().await;
    let begun = scene.world.now();
    for (id, wait) in [("r1", 5_000), ("r2", 7_000), ("r3", 12_345), ("r4", 59_999)] {
        scene.retry_in(id, Duration::from_millis(wait)).await;
    }
    let ledger = scene.world.db.ledger();
    drop(ledger.take());
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.retried, swept.max_timer_delay), (4, 4, Duration::ZERO));
    let calls = ledger.take();
    let writes = calls.iter().filter(|call| call.operation == "UpdateItem").count();
    assert_eq!(writes, 4, "{calls}");
    for (id, wait) in [("r1", 5_000), ("r2", 7_000), ("r3", 12_345), ("r4", 59_999)] {
        assert_eq!(scene.pending_since(id).await, begun + Duration::from_millis(wait), "{id}");
        assert_eq!(scene.world.request(id).await.history.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn due_retry_without_attempts_left_fails_with_the_last_error() {
    let scene = Scene::new().await;
    scene.retry_in("r1", Duration::from_secs(5)).await;
    scene.world.edit("r1", "SET max_attempts = :value", AttributeValue::N("1".into())).await;
    let swept = scene.sweep().await;
    assert_eq!((swept.ended, swept.delivered), (1, 1));
    assert_eq!(scene.world.request("r1").await.status, Status::Failed);
    assert_eq!(code(&scene.frames()[0]).as_str(), "OUT_OF_PAPER");
    assert_eq!(scene.world.letters.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sweeper_delivers_an_undelivered_result_to_each_subscriber_in_identical_frames() {
    let scene = Scene::new().await;
    scene.complete("r1").await;
    scene.world.subscribe("r1", "bob").await;
    scene.world.clients.fail("bob", SendErrorKind::Unavailable);
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.undelivered, swept.delivered, swept.delivery_incomplete), (1, 1, 0, 1));
    let request = scene.world.request("r1").await;
    assert_eq!(
        request.subscribers,
        ["bob".into()],
        "a subscriber that has received the terminal frame is removed"
    );
    scene.world.clients.fail_times("bob", SendErrorKind::Unavailable, 0);
    assert_eq!(scene.sweep().await.delivered, 1);
    let (ann, bob) = (scene.frames(), scene.world.clients.frames("bob"));
    assert_eq!((ann.len(), &ann), (1, &bob));
    assert_snapshot!(ann[0].to_json(), @r#"{"type":"complete","request_id":"r1","success":true,"result":{"n":1},"timestamp":1700000000,"seq":1048577}"#);
    assert_eq!(scene.timer_at("r1").await, None);
}

#[tokio::test(start_paused = true)]
async fn sweeper_removes_a_gone_subscriber_and_delivers_to_the_remaining_subscribers() {
    let scene = Scene::new().await;
    scene.complete("r1").await;
    scene.world.subscribe("r1", "bob").await;
    scene.world.clients.fail("c-ann", SendErrorKind::Gone);
    assert_eq!(scene.sweep().await.delivered, 1);
    assert_eq!((scene.frames().len(), scene.world.clients.frames("bob").len()), (0, 1));
    assert_eq!(scene.world.request("r1").await.subscribers, []);
    assert_eq!(scene.timer_at("r1").await, None);
}

#[tokio::test(start_paused = true)]
async fn due_dead_letter_is_resent_until_the_dead_letter_queue_accepts_it() {
    let scene = Scene::new().await;
    scene.fail("r1").await;
    scene.world.letters.fail_times(2);
    for _ in 0..3 {
        scene.sweep().await;
    }
    let letters = scene.world.letters.sent();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].id, "acme/ann/r1#1@1700000000000");
    assert_eq!(letters[0].error.code.as_str(), "OUT_OF_PAPER");
    assert!(!scene.world.request("r1").await.is_dead_letter_due);
    assert_eq!(scene.frames().len(), 1, "the terminal frame is pushed to ann only once");
    assert_eq!(scene.timer_at("r1").await, None);
}

#[tokio::test(start_paused = true)]
async fn delivery_to_an_unreachable_subscriber_backs_off_and_eventually_succeeds() {
    let scene = Scene::new().await;
    scene.complete("r1").await;
    scene.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    let mut deliveries = 0;
    for _ in 0..60 {
        deliveries += scene.sweep_slowly().await.undelivered;
    }
    // The sweeper attempts a delivery 30 s, 60 s, 120 s, 240 s, 480 s and 960 s after the terminal write, and then
    // every 15 minutes.
    assert_eq!(deliveries, 8);
    scene.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 0);
    for _ in 0..16 {
        scene.sweep_slowly().await;
    }
    assert_eq!(scene.frames().len(), 1);
    assert_eq!(scene.timer_at("r1").await, None);
}

#[tokio::test(start_paused = true)]
async fn big_payload_of_a_request_failed_by_the_sweeper_gets_an_expiry_time() {
    let scene = Scene::new().await;
    scene.queue_with("r1", 1).await;
    // A payload of this size is stored in a part item, a separate item beside the request's item.
    let payload = json!("x".repeat(5_000));
    let request = Request { id: "big".into(), payload, ..scene.world.request("r1").await };
    queue(&scene.world.db).enqueue(&request).await.unwrap();
    scene.claim("big").await;
    advance(Duration::from_secs(70)).await;
    scene.sweep().await;
    let part = part_item::key(&key("big"), part_item::PAYLOAD_PART);
    let found = scene.world.db.client().get_item().table_name(REQUESTS).set_key(Some(part)).send().await;
    assert!(found.unwrap().item.unwrap().contains_key("ttl"));
    assert_eq!(scene.timer_at("big").await, None);
    assert_eq!(scene.world.letters.sent()[0].payload, request.payload);
}

/// Creates six requests, each in a different state that the sweeper handles, and waits until all six are due.
async fn six_due_requests(scene: &Scene) {
    scene.complete("completed").await;
    scene.fail("failed").await;
    scene.retry_in("retrying", Duration::from_secs(40)).await;
    scene.queue_with("crashed", 3).await;
    scene.claim("crashed").await;
    scene.queue_with("crashed_for_good", 1).await;
    scene.claim("crashed_for_good").await;
    scene.queue_with("pending", 1).await;
    advance(Duration::from_secs(75)).await;
}

/// Asserts that each of the [`six_due_requests`] is in the state that a single sweeper run produces, and that at most
/// `max_letters` dead letters were sent.
async fn assert_handled_once(scene: &Scene, max_letters: usize) {
    let request = async |id: &str| scene.world.request(id).await;
    for (id, status) in
        [("completed", Status::Completed), ("failed", Status::Failed), ("crashed_for_good", Status::Failed)]
    {
        let request = request(id).await;
        assert_eq!((request.status, request.subscribers), (status, vec![]), "{id}");
        assert_eq!(scene.timer_at(id).await, None, "{id} has no timer");
        let frames = scene.frames_of(id);
        assert!(
            frames.windows(2).all(|pair| pair[0] == pair[1]),
            "all terminal frames are equal: {frames:?}"
        );
        assert!(!frames.is_empty(), "a terminal frame of {id} is pushed");
    }
    for (id, attempt) in [("retrying", 1), ("crashed", 1), ("pending", 0)] {
        let request = request(id).await;
        assert_eq!((request.status, request.attempt), (Status::Pending, attempt), "{id}");
        assert_eq!(request.history.len(), usize::from(attempt == 1), "{id}");
    }
    let sent = scene.world.letters.sent();
    let ids: BTreeSet<String> = sent.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(
        Vec::from_iter(ids),
        ["acme/ann/crashed_for_good#1@1700000000000", "acme/ann/failed#1@1700000000000"]
    );
    assert!(sent.len() <= max_letters, "at most {max_letters} dead letters are sent, not {}", sent.len());
}

#[tokio::test(start_paused = true)]
async fn two_concurrent_sweepers_handle_each_due_item_once() {
    let scene = Scene::new().await;
    six_due_requests(&scene).await;
    // The delay of each DynamoDB call makes the runs of the two sweepers overlap.
    let _slow = scene.world.faults.add(Fault::delay(Call::any_dynamodb(), Duration::from_millis(20)));
    // The second sweeper starts 7 ms later. If both sweepers wrote the same item in the same millisecond, their writes
    // would be identical, and each sweeper would treat the other's write as its own.
    let later = async {
        sleep(Duration::from_millis(7)).await;
        scene.sweep().await
    };
    let (one, other) = tokio::join!(scene.sweep(), later);
    assert_handled_once(&scene, 2).await;
    assert_eq!(scene.frames().len(), 3);
    assert_eq!(scene.nudges("pending").await, 1);
    assert_eq!((one.failed, other.failed), (0, 0));
    assert_eq!((one.reclaimed + other.reclaimed, one.nudged + other.nudged), (1, 1));
    assert_eq!(one.changed + other.changed, 6, "{one:?} {other:?}");
}

/// Polls a sweeper run at most `polls` times and then drops the run, as if its process were killed. Returns true if
/// the run ended within these polls.
async fn sweep_and_kill(scene: &Scene, polls: usize) -> bool {
    // The sweeper handles one item at a time, so that the test can kill the run between any two DynamoDB calls.
    let mut sweeper = scene.world.sweeper();
    sweeper.settings.pace = Duration::from_secs(30);
    sweeper.settings.concurrency = 1;
    let mut sweeping = pin!(sweeper.sweep(scene.world.now() + INVOCATION));
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        sweeping.as_mut().poll(context).map(|_| true)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn sweeper_killed_at_any_moment_loses_no_due_item() {
    for polls in 1.. {
        let scene = Scene::new().await;
        six_due_requests(&scene).await;
        let slow = scene.world.faults.add(Fault::delay(Call::any_dynamodb(), Duration::from_millis(20)));
        let ended = sweep_and_kill(&scene, polls).await;
        drop(slow);
        for _ in 0..3 {
            scene.sweep_slowly().await;
        }
        assert_handled_once(&scene, 4).await;
        if ended {
            assert!(polls > 15, "a run that ends by itself needs more than 15 polls, not {polls}");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_sweeper_run_handles_500_requests_that_fall_due_together() {
    let scene = Scene::new().await;
    for n in 0..500 {
        scene.queue_with(&format!("r{n}"), 1).await;
    }
    advance(Duration::from_secs(60)).await;
    let _slow = scene.world.faults.add(Fault::delay(Call::any_dynamodb(), Duration::from_millis(20)));
    let swept = scene.sweep().await;
    assert_eq!((swept.handled, swept.nudged), (500, 500));
    assert!(swept.max_timer_delay < Duration::from_secs(3), "{:?}", swept.max_timer_delay);
    assert_eq!(scene.world.pending().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn sweeper_run_stops_at_its_item_limit_and_the_next_run_handles_the_rest() {
    let scene = Scene::new().await;
    for n in 0..25 {
        scene.queue_with(&format!("r{n}"), 1).await;
    }
    advance(Duration::from_secs(60)).await;
    let mut sweeper = scene.world.sweeper();
    sweeper.settings.most = 10;
    for handled in [10, 10, 5] {
        let swept = sweeper.sweep(scene.world.now() + INVOCATION).await;
        assert_eq!((swept.handled, swept.nudged), (handled, handled));
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_due_items_are_postponed_and_do_not_block_other_due_items() {
    let scene = Scene::new().await;
    for n in 0..150 {
        let id = format!("bad{n}");
        scene.queue_with(&id, 1).await;
        scene.world.edit(&id, "SET history = :value", AttributeValue::N("1".into())).await;
    }
    // The query for due items can read the request `half`, but the whole item of `half` cannot be decoded.
    scene.complete("half").await;
    scene.world.edit("half", "SET metadata = :value", AttributeValue::N("1".into())).await;
    advance(Duration::from_millis(100)).await;
    scene.queue_with("good", 1).await;
    advance(Duration::from_secs(60)).await;
    let swept = scene.sweep().await;
    assert_eq!(
        (swept.unreadable, swept.nudged, swept.undelivered, swept.delivery_incomplete),
        (150, 1, 1, 1),
        "{swept:?}"
    );
    assert_eq!(swept.failed, 0);
    for _ in 0..14 {
        let swept = scene.sweep().await;
        assert_eq!(
            (swept.unreadable, swept.delivery_incomplete),
            (0, 0),
            "unreadable items are postponed by 15 minutes"
        );
    }
    assert_eq!(scene.sweep().await.unreadable, 150);
}

#[tokio::test(start_paused = true)]
async fn all_due_items_are_handled_although_the_store_throttles() {
    let scene = Scene::new().await;
    for n in 0..100 {
        scene.queue_with(&format!("r{n}"), 1).await;
    }
    advance(Duration::from_secs(60)).await;
    let throttle = scene.world.faults.add(Fault::throttle(Call::dynamodb("UpdateItem")).times(90));
    let swept = scene.sweep().await;
    assert_eq!(throttle.hits(), 90);
    assert!(swept.failed > 0, "throttled writes are counted as failed: {swept:?}");
    assert_eq!(swept.nudged, 100);
    for n in 0..100 {
        assert_eq!(scene.nudges(&format!("r{n}")).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_query_for_due_items_is_repeated_within_the_same_run() {
    let scene = Scene::new().await;
    scene.retry_in("r1", Duration::from_secs(5)).await;
    let broken = scene.world.faults.add(Fault::fail(Call::dynamodb("Query")));
    let (swept, ()) = tokio::join!(scene.sweep(), async {
        sleep(Duration::from_secs(30)).await;
        drop(broken);
    });
    assert!((2..=7).contains(&swept.failed_queries), "{swept:?}");
    assert_eq!(swept.retried, 1);
    assert!(swept.max_timer_delay < Duration::from_secs(32), "{swept:?}");
}

#[tokio::test(start_paused = true)]
async fn hanging_client_delays_neither_due_retries_nor_deliveries_to_other_clients() {
    let scene = Scene::new().await;
    scene.world.clients.hang("c-ann");
    for n in 0..200 {
        scene.complete(&format!("done{n}")).await;
    }
    scene.complete("other").await;
    scene.world.subscribe("other", "bob").await;
    advance(Duration::from_secs(30)).await;
    scene.retry_in("r1", Duration::from_secs(2)).await;
    let due = scene.world.now() + Duration::from_secs(2);
    let begun = Instant::now();
    let swept = scene.sweep().await;
    assert_eq!(scene.pending_since("r1").await, due);
    assert_eq!(scene.world.clients.frames("bob").len(), 1);
    assert!(scene.world.clients.times()[0] - begun < Duration::from_secs(15));
    assert!(swept.delivery_incomplete >= 201, "{swept:?}");
}

#[tokio::test(start_paused = true)]
async fn sweeper_run_ends_before_its_invocations_deadline() {
    let scene = Scene::new().await;
    scene.world.clients.hang("c-ann");
    scene.complete("r1").await;
    advance(Duration::from_secs(28)).await;
    let begun = Instant::now();
    let swept = scene.world.sweeper().sweep(scene.world.now() + Duration::from_secs(8)).await;
    assert_eq!(swept.undelivered, 1);
    assert!(begun.elapsed() <= Duration::from_secs(7), "{:?}", begun.elapsed());
    let swept = scene.world.sweeper().sweep(scene.world.now() + Duration::from_secs(3)).await;
    assert_eq!(swept.handled, 0, "a run with 3 s left handles no item");
}

/// Dead-letter queue that never answers a send.
#[derive(Debug)]
struct Hanging;

impl DeadLetters for Hanging {
    async fn send(&self, _: &DeadLetter) -> Result<(), ServiceError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_dead_letter_queue_delays_neither_deliveries_nor_the_writes_that_record_them() {
    let scene = Scene::new().await;
    for n in 0..100 {
        scene.fail(&format!("r{n}")).await;
    }
    advance(Duration::from_secs(30)).await;
    let Sweeper { queue, connections, clock, metrics, settings, .. } = scene.world.sweeper();
    let sweeper = Sweeper { queue, connections, dead_letters: Hanging, clock, metrics, settings };
    let begun = Instant::now();
    let swept = sweeper.sweep(scene.world.now() + INVOCATION).await;
    assert!(swept.delivery_incomplete >= 100, "{swept:?}");
    for n in 0..100 {
        let id = format!("r{n}");
        let request = scene.world.request(&id).await;
        assert_eq!((request.subscribers, request.is_dead_letter_due), (vec![], true));
        assert_eq!(scene.frames_of(&id).len(), 1, "the terminal frame of {id} is pushed only once");
    }
    assert!(scene.world.clients.times().iter().all(|at| *at - begun < Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn sweeper_write_whose_answer_is_lost_takes_effect_exactly_once() {
    for fault in [Fault::lose_answer, Fault::fail_after_apply] {
        let scene = Scene::new().await;
        six_due_requests(&scene).await;
        let lost = scene.world.faults.add(fault(Call::dynamodb("UpdateItem")).times(8));
        for _ in 0..3 {
            scene.sweep().await;
        }
        assert!(lost.hits() >= 6, "at least 6 writes lose their answer, not {}", lost.hits());
        drop(lost);
        assert_handled_once(&scene, 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_attempt_is_retried_by_the_processor_when_the_retry_falls_due() {
    let (mut app, shaky) = (App::new(), Shaky::default());
    app.handle("shaky", shaky.clone()).unwrap();
    let scene = Scene { world: World::new(app).await };
    scene.world.ask("shaky", "r1", json!(1)).await;
    tokio::join!(scene.run_functions(Duration::from_secs(10)), scene.sweep());
    let request = scene.world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Completed, 2));
    let started = shaky.started.lock().unwrap().clone();
    let [first, second] = started[..] else { panic!("{started:?}") };
    // The first run fails after 500 ms. `run_functions` reads the stream every 100 ms.
    let wait = second - first - Duration::from_millis(500);
    assert!((5.0..5.3).contains(&wait.as_secs_f64()), "{wait:?}");
    let frames = scene.frames();
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");
    assert_eq!(scene.frames_of("r1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn request_whose_process_dies_is_rerun_by_the_worker_and_completes() {
    let (mut app, shaky) = (App::new(), Shaky { hangs: true, ..Shaky::default() });
    app.handle("shaky", shaky.clone()).unwrap();
    let scene = Scene { world: World::new(app).await };
    scene.world.ask("shaky", "r1", json!(1)).await;
    // The timeout drops the invocation during the first attempt, as if the process were killed.
    timeout(Duration::from_secs(2), scene.world.process()).await.unwrap_err();
    tokio::join!(scene.run_functions(Duration::from_secs(120)), async {
        scene.sweep().await;
        scene.sweep().await;
    });
    let request = scene.world.request("r1").await;
    assert_eq!((request.status, request.attempt, request.runner), (Status::Completed, 2, Runner::Worker));
    assert_eq!(request.history.len(), 1);
    assert_eq!(request.history[0].outcome, AttemptOutcome::Crashed);
    assert_eq!(shaky.started.lock().unwrap().len(), 2);
    let seqs: Vec<Seq> = scene
        .frames()
        .iter()
        .filter_map(|frame| match frame {
            Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
            Frame::Error { .. } | Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
        })
        .collect();
    assert!(seqs.len() >= 3 && seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[tokio::test(start_paused = true)]
async fn sweeper_run_writes_its_counts_as_metrics() {
    let scene = Scene::new().await;
    six_due_requests(&scene).await;
    scene.sweep().await;
    assert_snapshot!(scene.world.metrics.lines().join("\n"), @r#"{"_aws":{"Timestamp":1700000135000,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["Function"]],"Metrics":[{"Name":"RequestsNudged","Unit":"Count"},{"Name":"TimersPostponed","Unit":"Count"},{"Name":"RetriesStarted","Unit":"Count"},{"Name":"RequestsReclaimed","Unit":"Count"},{"Name":"RequestsMadeTerminal","Unit":"Count"},{"Name":"UndeliveredFound","Unit":"Count"},{"Name":"DeliveriesCompleted","Unit":"Count"},{"Name":"DeliveriesIncomplete","Unit":"Count"},{"Name":"ChangedItemsSkipped","Unit":"Count"},{"Name":"RequestsUnreadable","Unit":"Count"},{"Name":"DueItemsFailed","Unit":"Count"},{"Name":"DueQueriesFailed","Unit":"Count"},{"Name":"MaxTimerDelay","Unit":"Milliseconds"}]}]},"Function":"sweeper","RequestsNudged":1,"TimersPostponed":0,"RetriesStarted":1,"RequestsReclaimed":1,"RequestsMadeTerminal":1,"UndeliveredFound":2,"DeliveriesCompleted":3,"DeliveriesIncomplete":0,"ChangedItemsSkipped":0,"RequestsUnreadable":0,"DueItemsFailed":0,"DueQueriesFailed":0,"MaxTimerDelay":45000}"#);
}

#[tokio::test(start_paused = true)]
async fn sweeper_makes_a_fixed_set_of_calls_for_each_kind_of_due_item() {
    let scene = Scene::new().await;
    let ledger = scene.world.db.ledger();
    let mut bill = String::new();
    let mut enter = |name: &str, calls: String| {
        assert!(!calls.contains("Scan"), "the sweeper scans no table: {calls}");
        bill += &format!("{name}\n");
        calls.lines().for_each(|line| bill += &format!("  {line}\n"));
    };
    drop(ledger.take());
    let mut sweeper = scene.world.sweeper();
    sweeper.settings.run = Duration::from_secs(1);
    let sweep = async || {
        drop(ledger.take());
        sweeper.sweep(scene.world.now() + INVOCATION).await;
        ledger.take().to_string()
    };
    enter("run without due items", sweep().await);
    scene.queue_with("pending", 1).await;
    advance(Duration::from_secs(60)).await;
    enter("nudge of an unclaimed request", sweep().await);
    scene.queue_with("held", 1).await;
    let lease = scene.claim("held").await;
    let until = scene.world.now() + Duration::from_secs(200);
    queue(&scene.world.db).renew(&key("held"), &lease, until).await.unwrap();
    advance(Duration::from_secs(70)).await;
    scene.world.edit("pending", "SET timer_at = :value", AttributeValue::N("9999999999999".into())).await;
    enter("postponement of a request with a valid lease", sweep().await);
    scene.world.edit("held", "SET timer_at = :value", AttributeValue::N("9999999999999".into())).await;
    scene.retry_in("retrying", Duration::from_secs(1)).await;
    advance(Duration::from_secs(1)).await;
    enter("start of a due retry", sweep().await);
    scene.world.edit("retrying", "SET timer_at = :value", AttributeValue::N("9999999999999".into())).await;
    scene.queue_with("crashed", 2).await;
    scene.claim("crashed").await;
    advance(Duration::from_secs(70)).await;
    enter("reclaim of a crashed request with attempts left", sweep().await);
    scene.claim("crashed").await;
    advance(Duration::from_secs(70)).await;
    enter("failure and delivery of a crashed request without attempts left", sweep().await);
    scene.complete("undelivered").await;
    advance(Duration::from_secs(30)).await;
    enter("delivery of an undelivered terminal frame", sweep().await);
    assert_snapshot!(bill);
}
