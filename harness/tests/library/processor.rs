use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::ids::ConnectionId;
use streamer::processor::BatchItemFailure;
use streamer::protocol::{ErrorCode, Frame, Seq};
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer::store::{
    Cancelled, Delivery, Ending, Status, StoreErrorKind, SubmitRequests as _, SubscribeToRequests as _,
};
use tokio::time::{Instant, sleep};

use crate::flaky::{Flaky, queue_without, silent_queue};
use crate::world::{Clients, World, batch, key, queue};

/// Behavior of a [`Slow`] handler.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// `Report(times, apart)`: reports progress `times` times, at intervals of `apart`, and returns the payload.
    Report(u32, Duration),
    /// `Silent(duration)`: sleeps for `duration` without a progress report, and returns the payload.
    Silent(Duration),
    /// `ReportThenSilent(duration)`: reports 50 %, sleeps for `duration`, and returns the payload.
    ReportThenSilent(Duration),
    /// Fails with the error code `CARD_DECLINED`.
    Fail,
    /// Fails with an error whose code and message have the lengths in the fields.
    FailAtLength {
        /// Length of the error's code, in bytes.
        code: usize,
        /// Length of the error's message, in bytes.
        message: usize,
    },
    /// Panics.
    Panic,
    /// `Large(bytes)`: returns a string of `bytes` bytes.
    Large(usize),
    /// Never returns.
    Hang,
}

/// Handler that counts the runs that start, and the runs that are dropped before they return `Ok`.
#[derive(Clone, Debug)]
struct Slow {
    work: Work,
    started: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

/// Guard that adds one to its counter when the guard is dropped. A run that returns `Ok` forgets its guard
/// (`mem::forget`), so that the run is not counted.
struct CountedIfStopped(Arc<AtomicUsize>);

impl Drop for CountedIfStopped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Slow {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(10)
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::never()
    }

    async fn process(&self, payload: Value, context: Context) -> Result<Value, HandlerError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let guard = CountedIfStopped(Arc::clone(&self.stopped));
        match self.work {
            Work::Report(times, apart) => {
                context.progress.set_metadata("times", times)?;
                for n in 1..=times {
                    sleep(apart).await;
                    context.progress.report(f64::from(n) / f64::from(times) * 100.0, format!("Step {n}"))?;
                }
            }
            Work::Silent(duration) => sleep(duration).await,
            Work::ReportThenSilent(duration) => {
                context.progress.report(50.0, "Half")?;
                sleep(duration).await;
            }
            Work::Fail => return Err(HandlerError::failure("CARD_DECLINED", "The card was declined")),
            Work::FailAtLength { code, message } => {
                let code = "X".repeat(code);
                return Err(HandlerError::failure(code.as_str(), "x".repeat(message)));
            }
            Work::Panic => panic!("a bug in the handler"),
            Work::Large(bytes) => {
                std::mem::forget(guard);
                return Ok(json!("x".repeat(bytes)));
            }
            Work::Hang => std::future::pending().await,
        }
        std::mem::forget(guard);
        Ok(payload)
    }
}

/// World whose app has two actions. The handler of `slow` does the [`Work`] that the test chooses. The handler of
/// `other` sleeps for a second.
struct Bench {
    world: World,
    started: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

impl Bench {
    async fn new(work: Work) -> Self {
        let (started, stopped) = (Arc::default(), Arc::default());
        let slow = Slow { work, started: Arc::clone(&started), stopped: Arc::clone(&stopped) };
        let other = Slow { work: Work::Silent(Duration::from_secs(1)), ..slow.clone() };
        let mut app = App::new();
        app.handle("slow", slow).unwrap().handle("other", other).unwrap();
        Self { world: World::new(app).await, started, stopped }
    }

    /// Sends the request `id` with the action `slow`, and asserts that the request is queued.
    async fn queue(&self, id: &str) {
        let ack = self.world.ask("slow", id, json!({"n": 1})).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    /// Returns the number of handler runs that have started.
    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// Returns the number of handler runs that were dropped before they returned `Ok`.
    fn stopped(&self) -> usize {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Returns the frames that were sent to ann's connection.
    fn frames(&self) -> Vec<Frame> {
        self.world.clients.frames("c-ann")
    }

    /// Returns the frames that were sent to ann's connection, as JSON, one per line.
    fn wire(&self) -> String {
        self.frames().iter().map(Frame::to_json).collect::<Vec<_>>().join("\n")
    }
}

fn seq(frame: &Frame) -> Seq {
    match frame {
        Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => *seq,
        Frame::Error { seq, .. } => seq.unwrap(),
        Frame::Response { .. } | Frame::Acknowledgment { .. } => {
            panic!("each frame of a queued request has a sequence number: {frame:?}")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queued_request_is_run_and_its_progress_and_result_are_pushed_and_stored() {
    let bench = Bench::new(Work::Report(3, Duration::from_millis(400))).await;
    bench.queue("r1").await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_snapshot!(bench.wire(), @r#"
    {"type":"progress","request_id":"r1","percentage":0.0,"message":"","timestamp":1700000000,"metadata":{"times":3},"seq":1048577}
    {"type":"progress","request_id":"r1","percentage":33.33,"message":"Step 1","timestamp":1700000000,"metadata":{"times":3},"seq":1048578}
    {"type":"progress","request_id":"r1","percentage":66.67,"message":"Step 2","timestamp":1700000000,"metadata":{"times":3},"seq":1048579}
    {"type":"progress","request_id":"r1","percentage":100.0,"message":"Step 3","timestamp":1700000001,"metadata":{"times":3},"seq":1048580}
    {"type":"complete","request_id":"r1","success":true,"result":{"n":1},"timestamp":1700000001,"seq":1048581}
    "#);
    let frames = bench.frames();
    assert!(frames.windows(2).all(|pair| seq(&pair[0]) < seq(&pair[1])));

    let request = bench.world.request("r1").await;
    assert_eq!(request.status, Status::Completed);
    assert_eq!(request.ending, Some(Ending::Completed(json!({"n": 1}))));
    assert_eq!((request.attempt, request.epoch, request.lease), (1, 1, None));
    assert_eq!(request.seq, seq(frames.last().unwrap()));
    assert_eq!(request.subscribers, [], "the terminal frame is delivered to every subscriber");
    let item = bench.world.item("r1").await;
    assert!(item.contains_key("ttl"), "a terminal request has a TTL");
    assert!(
        !item.contains_key("timer_at") && !item.contains_key("timer_shard"),
        "a delivered terminal request has no timer"
    );
}

#[tokio::test(start_paused = true)]
async fn stream_record_processed_twice_runs_its_request_once() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.queue("r1").await;
    let duplicated: Vec<Value> = [bench.world.pending(), bench.world.pending()].concat();
    let deadline = bench.world.now() + Duration::from_mins(15);
    assert_eq!(bench.world.processor().process(batch(duplicated), deadline).await.batch_item_failures, []);
    let (item, frames) = (bench.world.item("r1").await, bench.frames());
    assert_eq!(
        bench.world.process().await.batch_item_failures,
        [],
        "a record that is processed again is reported as processed"
    );
    assert_eq!(bench.world.item("r1").await, item);
    assert_eq!(bench.frames(), frames);
    assert_eq!(bench.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_processors_with_the_same_record_exactly_one_runs_the_request() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(30))).await;
    bench.queue("r1").await;
    let (one, other) = tokio::join!(bench.world.process(), bench.world.process());
    assert_eq!((one.batch_item_failures, other.batch_item_failures), (vec![], vec![]));
    assert_eq!(bench.started(), 1);
    assert_eq!(bench.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn handler_failure_makes_the_request_failed_with_the_handlers_error() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"CARD_DECLINED","message":"The card was declined"},"timestamp":1700000000,"seq":1048577}"#);
    let request = bench.world.request("r1").await;
    assert_eq!(request.status, Status::Failed);
    let Some(Ending::Failed(error)) = request.ending else { panic!("a failed request stores its error") };
    assert_eq!(error.code, ErrorCode::Custom("CARD_DECLINED".into()));
}

#[tokio::test(start_paused = true)]
async fn panic_fails_only_its_own_request_and_hides_the_panic_message_from_the_client() {
    let bench = Bench::new(Work::Panic).await;
    bench.queue("r1").await;
    bench.world.ask("other", "r2", json!(2)).await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_eq!(bench.world.request("r1").await.status, Status::Failed);
    assert_eq!(bench.world.request("r2").await.status, Status::Completed);
    assert_snapshot!(bench.wire(), @r#"
    {"type":"error","request_id":"r1","error":{"code":"PROCESSING_FAILED","message":"The request could not be processed"},"timestamp":1700000000,"seq":1048577}
    {"type":"complete","request_id":"r2","success":true,"result":2,"timestamp":1700000001,"seq":1048577}
    "#);
}

#[tokio::test(start_paused = true)]
async fn queued_request_fails_as_unknown_action_if_the_app_no_longer_has_its_handler() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    let empty = World::new(App::new()).await;
    // A later version of the app, without a handler for `slow`, processes the queue of the earlier version.
    let later_version = World { db: bench.world.db.clone(), clients: bench.world.clients.clone(), ..empty };
    later_version.process().await;
    let Some(Ending::Failed(error)) = bench.world.request("r1").await.ending else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidAction, "Unknown action: slow"));
}

#[tokio::test(start_paused = true)]
async fn handler_that_outlasts_its_invocation_is_stopped_in_time_to_send_a_timeout_error() {
    let bench = Bench::new(Work::Hang).await;
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(5)).await;
    assert_eq!(
        began.elapsed().as_secs(),
        295,
        "the handler receives the stop signal 10 s before the invocation's deadline and is dropped 5 s later"
    );
    tokio::task::yield_now().await;
    assert_eq!((bench.started(), bench.stopped()), (1, 1));
    assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"TIMEOUT","message":"The request took longer than one invocation allows"},"timestamp":1700000295,"seq":1048577}"#);
}

#[tokio::test(start_paused = true)]
async fn attempt_that_loses_its_lease_stops_without_a_write_or_a_terminal_frame() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(100))).await;
    bench.queue("r1").await;
    let takes_over = async {
        sleep(Duration::from_millis(2_550)).await;
        bench.world.take_over("r1").await;
        (bench.frames().len(), bench.world.item("r1").await)
    };
    let (response, (frames, item)) = tokio::join!(bench.world.process(), takes_over);
    assert_eq!(response.batch_item_failures, []);
    // The attempt detects that it lost the lease when it next stores a report, at most a second later.
    assert!(
        bench.frames().len() <= frames + 10,
        "at most ten frames are pushed after the lease is lost, not {}",
        bench.frames().len() - frames
    );
    assert!(!bench.frames().iter().any(Frame::is_terminal));
    assert_eq!(bench.world.item("r1").await, item, "a fenced attempt changes nothing");
    tokio::task::yield_now().await;
    assert_eq!(bench.stopped(), 1);
}

/// Runs the processor, and cancels the request `r1` after `running`. Returns the time from the cancel to the end of
/// the processor's invocation.
async fn cancel_after(bench: &Bench, running: Duration) -> Duration {
    let cancels = async {
        sleep(running).await;
        let cancelled = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
        assert_eq!(cancelled, Cancelled::Requested);
        Instant::now()
    };
    let (response, cancelled_at) = tokio::join!(bench.world.process(), cancels);
    assert_eq!(response.batch_item_failures, []);
    cancelled_at.elapsed()
}

#[tokio::test(start_paused = true)]
async fn cancel_stops_a_handler_that_reports_progress_soon_after_its_next_stored_report() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(400))).await;
    bench.queue("r1").await;
    let delay = cancel_after(&bench, Duration::from_millis(2_050)).await;
    // The attempt reads the cancel flag when it next stores a report. The handler's next call of
    // `report` then fails.
    assert!(delay <= Duration::from_millis(1_500), "{delay:?}");
    assert_eq!((bench.started(), bench.stopped()), (1, 1));

    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.ending), (Status::Cancelled, Some(Ending::Cancelled)));
    assert_eq!((request.lease, request.subscribers), (None, vec![]));
    let item = bench.world.item("r1").await;
    assert!(
        item.contains_key("ttl") && !item.contains_key("timer_at"),
        "a cancelled and delivered request has a TTL and no timer"
    );
    let frames = bench.frames();
    assert!(frames.windows(2).all(|pair| seq(&pair[0]) < seq(&pair[1])));
    assert_eq!(frames.iter().filter(|frame| frame.is_terminal()).count(), 1);
    let Some(Frame::Error { request_id, error, seq: last, .. }) = frames.last() else { panic!("{frames:?}") };
    assert_eq!((request_id.clone(), &error.code), (Some("r1".into()), &ErrorCode::Cancelled));
    assert_eq!(*last, Some(request.seq));
}

#[tokio::test(start_paused = true)]
async fn cancel_stops_a_handler_without_reports_soon_after_its_next_lease_renewal() {
    let bench = Bench::new(Work::Silent(Duration::from_mins(10))).await;
    bench.queue("r1").await;
    let delay = cancel_after(&bench, Duration::from_secs(25)).await;
    // The attempt reads the cancel flag when it renews its lease, 40 s after the claim. The handler ignores the
    // stop signal and is dropped five seconds later.
    assert!(delay <= Duration::from_secs(21), "{delay:?}");
    assert_eq!((bench.started(), bench.stopped()), (1, 1));
    assert_eq!(bench.world.request("r1").await.status, Status::Cancelled);
    assert_eq!(bench.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancel_that_the_attempt_has_not_yet_read_leaves_a_completed_request_completed() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(10))).await;
    bench.queue("r1").await;
    cancel_after(&bench, Duration::from_secs(9)).await;
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
    let again = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
    assert_eq!(again, Cancelled::Ended(Status::Completed));
}

#[tokio::test(start_paused = true)]
async fn request_cancelled_while_pending_is_never_run() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let cancelled = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Now { .. }), "{cancelled:?}");
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_eq!((bench.started(), bench.frames().len()), (0, 0));
    assert_eq!(bench.world.request("r1").await.status, Status::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn cancelled_attempt_that_lost_its_lease_writes_nothing_and_sends_no_terminal_frame() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(100))).await;
    bench.queue("r1").await;
    let takes_over = async {
        sleep(Duration::from_millis(2_550)).await;
        queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
        bench.world.take_over("r1").await;
        bench.world.item("r1").await
    };
    let (_, item) = tokio::join!(bench.world.process(), takes_over);
    assert_eq!(bench.world.item("r1").await, item);
    assert!(!bench.frames().iter().any(Frame::is_terminal));
}

#[tokio::test(start_paused = true)]
async fn lease_is_renewed_every_20_seconds_while_a_handler_reports_no_progress() {
    let bench = Bench::new(Work::Silent(Duration::from_mins(5))).await;
    bench.queue("r1").await;
    let began = bench.world.now();
    let watches = async {
        for minute in 0..5 {
            let lease = bench.world.request("r1").await.lease;
            let held = lease.is_none_or(|lease| lease.expires_at > bench.world.now());
            assert!(held, "the attempt's lease is valid in minute {minute}");
            sleep(Duration::from_secs(59)).await;
        }
    };
    tokio::join!(bench.world.process(), watches);
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(bench.world.now().since(began) >= Duration::from_mins(5));
    // Four stream records come from the write that queues the request, the claim, the terminal write and the write
    // that records the delivery. Each other record comes from a lease renewal. The attempt renews every 20 s for
    // 300 s, but the last renewal may coincide with the terminal write.
    let renewals = bench.world.records().len() - 4;
    assert!(
        (14..=15).contains(&renewals),
        "the lease is renewed 14 or 15 times in 300 s, not {renewals} times"
    );
}

#[tokio::test(start_paused = true)]
async fn progress_is_pushed_at_most_ten_times_a_second_and_stored_once_a_second() {
    let bench = Bench::new(Work::Report(1_000, Duration::from_millis(10))).await;
    bench.queue("r1").await;
    bench.world.process().await;
    let frames = bench.frames();
    let (last, progress) = frames.split_last().unwrap();
    assert!(matches!(last, Frame::Complete { .. }));
    assert!(
        (90..=102).contains(&progress.len()),
        "about 100 progress frames are pushed in 10 s, not {}",
        progress.len()
    );
    let times = bench.world.clients.times();
    let paced =
        times[..times.len() - 2].windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(100));
    assert!(
        paced,
        "pushes are at least 100 ms apart, except those of the last report and the terminal frame"
    );
    let stored = bench.world.records().len() - 4;
    assert!((9..=10).contains(&stored), "nine or ten reports are stored in 10 s, not {stored}");
    let Some(Frame::Progress { percentage, message, .. }) = progress.last() else { panic!() };
    assert_eq!(
        (*percentage, message.as_str()),
        (100.0, "Step 1000"),
        "the last progress frame has the last report"
    );
    let percentages: Vec<f64> = progress
        .iter()
        .map(|frame| if let Frame::Progress { percentage, .. } = frame { *percentage } else { panic!() })
        .collect();
    assert!(percentages.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn gone_subscriber_is_removed_at_completion_as_if_it_had_received_the_terminal_frame() {
    let bench = Bench::new(Work::Report(5, Duration::from_millis(200))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Gone);
    bench.queue("r1").await;
    bench.world.process().await;
    assert_eq!(bench.frames(), []);
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Completed, vec![]));
    assert!(!bench.world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn subscriber_that_is_unreachable_at_completion_is_kept_for_a_later_delivery() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Completed, vec!["c-ann".into()]));
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "the request stays in the timer index");
}

#[tokio::test(start_paused = true)]
async fn subscriber_is_removed_if_the_gateway_refuses_the_terminal_frame_permanently() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Refused);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Completed, vec![]));
    assert!(!bench.world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn terminal_frame_is_resent_after_transient_send_failures() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 3);
    bench.queue("r1").await;
    bench.world.process().await;
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
    assert_eq!(bench.world.request("r1").await.subscribers, []);
}

#[tokio::test(start_paused = true)]
async fn hanging_subscriber_delays_no_other_subscriber() {
    let bench = Bench::new(Work::Report(20, Duration::from_millis(100))).await;
    bench.world.clients.hang("c-ann");
    bench.queue("r1").await;
    bench.world.subscribe("r1", "c9").await;
    bench.world.process().await;
    let others = bench.world.clients.frames("c9");
    assert!(others.len() >= 20, "c9 is sent at least 20 frames in 2 s, not {}", others.len());
    assert!(matches!(others.last(), Some(Frame::Complete { .. })));
    assert_eq!(
        bench.world.request("r1").await.subscribers,
        ["c-ann".into()],
        "the hanging subscriber remains in the subscriber list"
    );
}

#[tokio::test(start_paused = true)]
async fn hanging_subscriber_does_not_prevent_a_resend_to_another_subscriber() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.clients.hang("c-ann");
    bench.world.clients.fail_times("c9", SendErrorKind::Unavailable, 1);
    bench.queue("r1").await;
    bench.world.subscribe("r1", "c9").await;
    bench.world.process().await;
    assert!(matches!(bench.world.clients.frames("c9")[..], [Frame::Complete { .. }]));
    assert_eq!(bench.world.request("r1").await.subscribers, ["c-ann".into()]);
}

#[tokio::test(start_paused = true)]
async fn resend_of_a_terminal_frame_does_not_repeat_earlier_progress() {
    let bench = Bench::new(Work::ReportThenSilent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let fails = async {
        sleep(Duration::from_millis(500)).await;
        bench.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 1);
    };
    tokio::join!(bench.world.process(), fails);
    let frames = bench.frames();
    assert!(matches!(frames[..], [Frame::Progress { .. }, Frame::Complete { .. }]), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_progress_push_is_repeated_at_the_next_lease_renewal() {
    let bench = Bench::new(Work::ReportThenSilent(Duration::from_secs(50))).await;
    bench.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 1);
    bench.queue("r1").await;
    let watches = async {
        sleep(Duration::from_secs(30)).await;
        bench.frames()
    };
    let (_, frames) = tokio::join!(bench.world.process(), watches);
    assert!(matches!(&frames[..], [Frame::Progress { percentage, .. }] if *percentage == 50.0), "{frames:?}");
    assert_eq!(
        bench.frames().len(),
        2,
        "the terminal frame follows the progress frame: {:?}",
        bench.frames()
    );
}

/// Returns the [`Delivery`] for a terminal frame that was delivered to `delivered`, the only known subscribers.
fn delivery(delivered: &[ConnectionId]) -> Delivery<'_> {
    Delivery { delivered, is_complete: true, is_dead_letter_sent: false, part_ttls_set: false }
}

#[tokio::test(start_paused = true)]
async fn subscriber_added_after_completion_keeps_the_request_in_the_timer_index() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("r1").await;
    bench.world.process().await;
    bench.world.subscribe("r1", "c9").await;
    let queue = queue(&bench.world.db);
    queue.record_delivery(&key("r1"), 1, delivery(&["c-ann".into()])).await.unwrap();
    assert_eq!(bench.world.request("r1").await.subscribers, ["c9".into()]);
    assert!(bench.world.item("r1").await.contains_key("timer_at"));

    queue.record_delivery(&key("r1"), 0, delivery(&["c9".into()])).await.unwrap();
    assert_eq!(
        bench.world.request("r1").await.subscribers,
        ["c9".into()],
        "a delivery recorded with an old epoch changes nothing"
    );
    queue.record_delivery(&key("r1"), 1, delivery(&["c9".into()])).await.unwrap();
    assert!(!bench.world.item("r1").await.contains_key("timer_at"));
}

/// Handler that reports progress in a loop that never awaits. Returns true once three frames have been sent to
/// clients, or false after 20 s of real time.
struct Spins(Clients);

impl Handler for Spins {
    type Input = Value;
    type Output = bool;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, _: Value, context: Context) -> Result<bool, HandlerError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the handler must stop after 20 s of real time if no frame is pushed"
        )]
        let began = std::time::Instant::now();
        let mut n = 0;
        while self.0.times().len() < 3 {
            n += 1;
            context.progress.report(0.0, format!("Turn {n}"))?;
            if began.elapsed() > Duration::from_secs(20) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[tokio::test]
async fn progress_of_a_handler_that_never_awaits_is_still_pushed() {
    let clients = Clients::default();
    let mut app = App::new();
    app.handle("slow", Spins(clients.clone())).unwrap();
    let world = World { clients, ..World::new(app).await };
    world.ask("slow", "r1", Value::Null).await;
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let processor = world.processor_on(queue(&world.db), threads.handle().clone());
    processor.process(batch(world.pending()), world.now() + Duration::from_mins(15)).await;
    assert_eq!(world.request("r1").await.ending, Some(Ending::Completed(json!(true))));
    threads.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn attempt_keeps_its_lease_and_completes_despite_transient_store_failures() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(100))).await;
    bench.queue("r1").await;
    let flaky = Flaky {
        queue: queue(&bench.world.db),
        progress: Arc::new(5.into()),
        ends: Arc::new(4.into()),
        kind: StoreErrorKind::Throttled,
    };
    let deadline = bench.world.now() + Duration::from_mins(15);
    let processor = bench.world.processor_with(flaky.clone());
    assert_eq!(processor.process(batch(bench.world.pending()), deadline).await.batch_item_failures, []);
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert_eq!((flaky.progress.load(Ordering::SeqCst), flaky.ends.load(Ordering::SeqCst)), (0, 0));
    assert!(
        bench.frames().len() > 90,
        "more than 90 frames are pushed in 10 s although the store fails, not {}",
        bench.frames().len()
    );
}

#[tokio::test(start_paused = true)]
async fn failing_terminal_write_is_abandoned_before_the_invocation_ends() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let flaky = Flaky {
        queue: queue(&bench.world.db),
        progress: Arc::default(),
        ends: Arc::new(u32::MAX.into()),
        kind: StoreErrorKind::Unavailable,
    };
    let began = Instant::now();
    let deadline = bench.world.now() + Duration::from_mins(1);
    let processor = bench.world.processor_with(flaky);
    assert_eq!(processor.process(batch(bench.world.pending()), deadline).await.batch_item_failures, []);
    assert!((59.0..60.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert_eq!(bench.frames(), [], "no terminal frame is pushed if the terminal write fails");
}

#[tokio::test(start_paused = true)]
async fn result_too_large_for_the_store_makes_the_request_failed() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let flaky = Flaky {
        queue: queue(&bench.world.db),
        progress: Arc::default(),
        ends: Arc::new(1.into()),
        kind: StoreErrorKind::TooLarge,
    };
    let deadline = bench.world.now() + Duration::from_mins(15);
    bench.world.processor_with(flaky).process(batch(bench.world.pending()), deadline).await;
    assert_eq!(bench.world.request("r1").await.status, Status::Failed);
    assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"PAYLOAD_TOO_LARGE","message":"The result is too large to store"},"timestamp":1700000001,"seq":1048577}"#);
}

#[tokio::test(start_paused = true)]
async fn unreadable_request_item_is_failed_and_its_record_is_not_retried() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    let not_json = AttributeValue::S("{".into());
    bench.world.edit("r1", "SET payload = :value", not_json).await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    let item = bench.world.item("r1").await;
    assert_eq!(item["status"].as_s().unwrap(), "FAILED");
    assert!(item["error"].as_s().unwrap().contains("INTERNAL_ERROR"));
    assert_eq!(bench.started(), 0);
    assert_eq!(
        bench.world.process().await.batch_item_failures,
        [],
        "a second delivery of the stream record also succeeds"
    );
}

#[tokio::test(start_paused = true)]
async fn unreadable_request_item_is_failed_despite_transient_store_failures() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    bench.world.edit("r1", "SET payload = :value", AttributeValue::S("{".into())).await;
    let flaky = Flaky {
        queue: queue(&bench.world.db),
        progress: Arc::default(),
        ends: Arc::new(4.into()),
        kind: StoreErrorKind::Unavailable,
    };
    let deadline = bench.world.now() + Duration::from_mins(1);
    bench.world.processor_with(flaky).process(batch(bench.world.pending()), deadline).await;
    assert_eq!(bench.world.item("r1").await["status"].as_s().unwrap(), "FAILED");
}

#[tokio::test(start_paused = true)]
async fn request_is_dispatched_unclaimed_if_the_invocation_has_too_little_time_left() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let response = bench.world.process_for(Duration::from_secs(40)).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Pending, 0));
}

/// The processor abandons the claim 10 s before the invocation's deadline and reports the record as failed,
/// so that the stream delivers the record again.
#[tokio::test(start_paused = true)]
async fn unanswered_claim_times_out_before_the_invocation_ends_and_its_record_is_retried() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let started = Instant::now();
    let deadline = bench.world.now() + Duration::from_secs(60);
    let processor = bench.world.processor_with(silent_queue());
    let response = processor.process(batch(bench.world.pending()), deadline).await;
    assert_eq!(
        response.batch_item_failures.len(),
        1,
        "the record is reported as failed, so that the stream delivers the record again"
    );
    assert_eq!(started.elapsed().as_secs(), 50);
    assert_eq!(bench.started(), 0);
}

/// A failed read of the payload does not fail the request, because a later attempt may read the payload.
#[tokio::test(start_paused = true)]
async fn claimed_request_whose_payload_cannot_be_fetched_keeps_its_claim_until_lease_expiry() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.ask("slow", "r1", json!("x".repeat(9_000))).await;
    let processor = bench.world.processor_with(queue_without(&bench.world.db, ".GetItem"));
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = processor.process(batch(bench.world.pending()), deadline).await;
    assert_eq!(
        response.batch_item_failures,
        [],
        "the record is not retried, because a retry could not claim the claimed request"
    );
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Processing, 1));
    assert!(
        bench.world.item("r1").await.contains_key("timer_at"),
        "the request stays in the timer index, so that the sweeper reclaims it"
    );
    assert_eq!((bench.started(), bench.frames().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn error_too_large_for_a_frame_is_delivered_without_its_message() {
    for (work, code) in [
        (Work::FailAtLength { code: 200_000, message: 1 }, ErrorCode::ProcessingFailed),
        (Work::FailAtLength { code: 8, message: 200_000 }, ErrorCode::Custom("XXXXXXXX".into())),
    ] {
        let bench = Bench::new(work).await;
        bench.queue("r1").await;
        bench.world.process().await;
        let frames = bench.frames();
        let [Frame::Error { error, .. }] = &frames[..] else {
            panic!("exactly one frame, an error, is pushed, not {} frames", frames.len())
        };
        assert_eq!(error.code, code);
        assert_eq!(error.message, "The error's message and details are too large for a WebSocket frame");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_subscriber_does_not_stop_the_handler() {
    let bench = Bench::new(Work::Report(10, Duration::from_millis(100))).await;
    bench.world.clients.hang("c-ann");
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn result_frame_of_exactly_128_kib_completes_the_request_and_a_larger_one_fails_it() {
    let empty_frame = r#"{"type":"complete","request_id":"r1","success":true,"result":"","timestamp":1700000000,"seq":1048577}"#;
    let limit = 128 * 1024 - empty_frame.len();
    for (bytes, status) in [(limit, Status::Completed), (limit + 1, Status::Failed)] {
        let bench = Bench::new(Work::Large(bytes)).await;
        bench.queue("r1").await;
        bench.world.process().await;
        assert_eq!(bench.world.request("r1").await.status, status);
        if status == Status::Failed {
            assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"PAYLOAD_TOO_LARGE","message":"The frame with the result has 131073 bytes; the gateway carries at most 131072"},"timestamp":1700000000,"seq":1048577}"#);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_stream_records_that_fail_before_their_claim_are_reported_for_retry() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let good = bench.world.pending().remove(0);
    let broken = json!({"eventName": "INSERT", "dynamodb": {"Keys": {}, "SequenceNumber": "7"}});
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = bench.world.processor().process(batch(vec![broken, good.clone()]), deadline).await;
    assert_eq!(response.batch_item_failures, [BatchItemFailure { item_identifier: "7".into() }]);
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);

    let broken_queue =
        DynamoRequestQueue::new(bench.world.db.client(), "no-such-table", QueueSettings::default());
    let response =
        bench.world.processor_with(broken_queue).process(batch(vec![good.clone()]), deadline).await;
    let sequence_number = good["dynamodb"]["SequenceNumber"].as_str().unwrap();
    assert_eq!(response.batch_item_failures, [BatchItemFailure { item_identifier: sequence_number.into() }]);
}

#[tokio::test(start_paused = true)]
async fn processor_runs_up_to_ten_requests_of_a_batch_concurrently() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(10))).await;
    for n in 0..25 {
        bench.queue(&format!("r{n}")).await;
    }
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(began.elapsed().as_secs(), 30, "25 requests of 10 s each run ten at a time");
    assert_eq!(bench.started(), 25);
}

#[tokio::test(start_paused = true)]
async fn stream_record_of_a_missing_request_succeeds_without_running_a_handler() {
    let bench = Bench::new(Work::Fail).await;
    let record = json!({"eventName": "INSERT", "dynamodb": {
        "Keys": {"request_id": {"S": "acme/ann/never"}, "part": {"S": "request"}}, "SequenceNumber": "1",
    }});
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = bench.world.processor().process(batch(vec![record]), deadline).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!(bench.started(), 0);
}
