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

/// What a slow handler of these tests does.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Reports this often, this far apart, and then returns its payload.
    Report(u32, Duration),
    /// Says nothing for this long.
    Silent(Duration),
    /// Says that half is done, and then nothing for this long.
    ReportThenSilent(Duration),
    Fail,
    /// Fails with a code and a message of this many bytes.
    FailAtLength {
        code: usize,
        message: usize,
    },
    Panic,
    /// Returns this many bytes.
    Large(usize),
    Hang,
}

/// A handler that counts how often it was started, and how often it was stopped before its end.
#[derive(Clone, Debug)]
struct Slow {
    work: Work,
    started: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

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

    async fn queue(&self, id: &str) {
        let ack = self.world.ask("slow", id, json!({"n": 1})).await;
        assert!(matches!(ack, Frame::Acknowledgment { .. }), "{ack:?}");
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    fn stopped(&self) -> usize {
        self.stopped.load(Ordering::SeqCst)
    }

    fn frames(&self) -> Vec<Frame> {
        self.world.clients.frames("c-ann")
    }

    fn wire(&self) -> String {
        self.frames().iter().map(Frame::to_json).collect::<Vec<_>>().join("\n")
    }
}

fn seq(frame: &Frame) -> Seq {
    match frame {
        Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => *seq,
        Frame::Error { seq, .. } => seq.unwrap(),
        Frame::Response { .. } | Frame::Acknowledgment { .. } => {
            panic!("{frame:?} has no place among the frames")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_run_reported_on_completed_and_told() {
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
    assert_eq!(request.subscribers, [], "everyone has been told");
    let item = bench.world.item("r1").await;
    assert!(item.contains_key("ttl"));
    assert!(!item.contains_key("timer_at") && !item.contains_key("timer_shard"), "nothing is left to do");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_again_changes_nothing() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.queue("r1").await;
    let twice: Vec<Value> = [bench.world.pending(), bench.world.pending()].concat();
    let deadline = bench.world.now() + Duration::from_mins(15);
    assert_eq!(bench.world.processor().process(batch(twice), deadline).await.batch_item_failures, []);
    let (item, frames) = (bench.world.item("r1").await, bench.frames());
    assert_eq!(bench.world.process().await.batch_item_failures, [], "a success, or it would come again");
    assert_eq!(bench.world.item("r1").await, item);
    assert_eq!(bench.frames(), frames);
    assert_eq!(bench.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_processors_that_get_the_same_record_one_runs_it() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(30))).await;
    bench.queue("r1").await;
    let (one, other) = tokio::join!(bench.world.process(), bench.world.process());
    assert_eq!((one.batch_item_failures, other.batch_item_failures), (vec![], vec![]));
    assert_eq!(bench.started(), 1);
    assert_eq!(bench.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_failure_ends_the_request_with_that_error() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"CARD_DECLINED","message":"The card was declined"},"timestamp":1700000000,"seq":1048577}"#);
    let request = bench.world.request("r1").await;
    assert_eq!(request.status, Status::Failed);
    let Some(Ending::Failed(error)) = request.ending else { panic!("no error is stored") };
    assert_eq!(error.code, ErrorCode::Custom("CARD_DECLINED".into()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_request_alone_and_tells_nothing_of_the_bug() {
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
async fn what_a_later_version_cannot_run_ends_with_why() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    let processor = World::new(App::new()).await;
    // The same database under an app that has lost its handler.
    let stranger = World { db: bench.world.db.clone(), clients: bench.world.clients.clone(), ..processor };
    stranger.process().await;
    let Some(Ending::Failed(error)) = bench.world.request("r1").await.ending else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidAction, "Unknown action: slow"));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_its_invocation_is_stopped_in_time_to_say_so() {
    let bench = Bench::new(Work::Hang).await;
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process_for(Duration::from_mins(5)).await;
    assert_eq!(
        began.elapsed().as_secs(),
        295,
        "told ten seconds before the invocation's end, and given five"
    );
    tokio::task::yield_now().await;
    assert_eq!((bench.started(), bench.stopped()), (1, 1));
    assert_snapshot!(bench.wire(), @r#"{"type":"error","request_id":"r1","error":{"code":"TIMEOUT","message":"The request took longer than one invocation allows"},"timestamp":1700000295,"seq":1048577}"#);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_stops_the_attempt_without_another_word() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(100))).await;
    bench.queue("r1").await;
    let takes_over = async {
        sleep(Duration::from_millis(2_550)).await;
        bench.world.take_over("r1").await;
        (bench.frames().len(), bench.world.item("r1").await)
    };
    let (response, (frames, item)) = tokio::join!(bench.world.process(), takes_over);
    assert_eq!(response.batch_item_failures, []);
    // Until its next stored report, at most a second later, the attempt cannot know.
    assert!(bench.frames().len() <= frames + 10, "{} frames after {frames}", bench.frames().len());
    assert!(!bench.frames().iter().any(Frame::is_terminal));
    assert_eq!(bench.world.item("r1").await, item, "a fenced attempt changes nothing");
    tokio::task::yield_now().await;
    assert_eq!(bench.stopped(), 1);
}

/// Asks for a request's end after this long, while it runs, and returns how long it went on then.
async fn cancel_after(bench: &Bench, running: Duration) -> Duration {
    let cancels = async {
        sleep(running).await;
        let asked = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
        assert_eq!(asked, Cancelled::Requested);
        Instant::now()
    };
    let (response, asked_at) = tokio::join!(bench.world.process(), cancels);
    assert_eq!(response.batch_item_failures, []);
    asked_at.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_running_request_whose_end_is_asked_for_is_stopped_at_its_next_report() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(400))).await;
    bench.queue("r1").await;
    let went_on = cancel_after(&bench, Duration::from_millis(2_050)).await;
    // Seen at its next stored report, and heard by the handler at the one after that.
    assert!(went_on <= Duration::from_millis(1_500), "{went_on:?}");
    assert_eq!((bench.started(), bench.stopped()), (1, 1));

    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.ending), (Status::Cancelled, Some(Ending::Cancelled)));
    assert_eq!((request.lease, request.subscribers), (None, vec![]));
    let item = bench.world.item("r1").await;
    assert!(item.contains_key("ttl") && !item.contains_key("timer_at"), "nothing is left to do");
    let frames = bench.frames();
    assert!(frames.windows(2).all(|pair| seq(&pair[0]) < seq(&pair[1])));
    assert_eq!(frames.iter().filter(|frame| frame.is_terminal()).count(), 1);
    let Some(Frame::Error { request_id, error, seq: last, .. }) = frames.last() else { panic!("{frames:?}") };
    assert_eq!((request_id.clone(), &error.code), (Some("r1".into()), &ErrorCode::Cancelled));
    assert_eq!(*last, Some(request.seq));
}

#[tokio::test(start_paused = true)]
async fn a_silent_handler_is_stopped_when_its_lease_is_renewed() {
    let bench = Bench::new(Work::Silent(Duration::from_mins(10))).await;
    bench.queue("r1").await;
    let went_on = cancel_after(&bench, Duration::from_secs(25)).await;
    // It is told when its lease is renewed after 40 s, and does not listen.
    assert!(went_on <= Duration::from_secs(21), "{went_on:?}");
    assert_eq!((bench.started(), bench.stopped()), (1, 1));
    assert_eq!(bench.world.request("r1").await.status, Status::Cancelled);
    assert_eq!(bench.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_ends_before_it_hears_that_it_should_has_ended_so() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(10))).await;
    bench.queue("r1").await;
    cancel_after(&bench, Duration::from_secs(9)).await;
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
    let again = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
    assert_eq!(again, Cancelled::Ended(Status::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_that_waits_is_never_run() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let cancelled = queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Now { .. }), "{cancelled:?}");
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_eq!((bench.started(), bench.frames().len()), (0, 0));
    assert_eq!(bench.world.request("r1").await.status, Status::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_that_has_lost_its_lease_says_nothing() {
    let bench = Bench::new(Work::Report(100, Duration::from_millis(100))).await;
    bench.queue("r1").await;
    let meddles = async {
        sleep(Duration::from_millis(2_550)).await;
        queue(&bench.world.db).cancel(&key("r1"), bench.world.now()).await.unwrap();
        bench.world.take_over("r1").await;
        bench.world.item("r1").await
    };
    let (_, item) = tokio::join!(bench.world.process(), meddles);
    assert_eq!(bench.world.item("r1").await, item);
    assert!(!bench.frames().iter().any(Frame::is_terminal));
}

#[tokio::test(start_paused = true)]
async fn a_silent_handlers_lease_is_renewed_every_twenty_seconds() {
    let bench = Bench::new(Work::Silent(Duration::from_mins(5))).await;
    bench.queue("r1").await;
    let began = bench.world.now();
    let watches = async {
        for minute in 0..5 {
            let lease = bench.world.request("r1").await.lease;
            let held = lease.is_none_or(|lease| lease.expires_at > bench.world.now());
            assert!(held, "the lease has lapsed in minute {minute}");
            sleep(Duration::from_secs(59)).await;
        }
    };
    tokio::join!(bench.world.process(), watches);
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(bench.world.now().since(began) >= Duration::from_mins(5));
    // Put, claim, end and delivery; 300 s in renewals of 20 s, less the one that would fall on the end.
    let renewals = bench.world.records().len() - 4;
    assert!((14..=15).contains(&renewals), "{renewals} renewals");
}

#[tokio::test(start_paused = true)]
async fn progress_is_pushed_ten_times_a_second_and_stored_once() {
    let bench = Bench::new(Work::Report(1_000, Duration::from_millis(10))).await;
    bench.queue("r1").await;
    bench.world.process().await;
    let frames = bench.frames();
    let (last, progress) = frames.split_last().unwrap();
    assert!(matches!(last, Frame::Complete { .. }));
    assert!((90..=102).contains(&progress.len()), "{} frames in 10 s", progress.len());
    let times = bench.world.clients.times();
    let paced =
        times[..times.len() - 2].windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(100));
    assert!(paced, "but for the last report, which is told before the end, pushes keep their distance");
    let stored = bench.world.records().len() - 4;
    assert!((9..=10).contains(&stored), "{stored} stored reports in 10 s");
    let Some(Frame::Progress { percentage, message, .. }) = progress.last() else { panic!() };
    assert_eq!((*percentage, message.as_str()), (100.0, "Step 1000"), "the last report is never lost");
    let percentages: Vec<f64> = progress
        .iter()
        .map(|frame| if let Frame::Progress { percentage, .. } = frame { *percentage } else { panic!() })
        .collect();
    assert!(percentages.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_is_gone_is_told_nothing_and_counts_as_told() {
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
async fn a_subscriber_that_cannot_be_reached_now_is_kept_for_later() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Completed, vec!["c-ann".into()]));
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "somebody must look again");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_whose_gateway_refuses_for_good_is_not_kept() {
    let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Refused);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.subscribers), (Status::Completed, vec![]));
    assert!(!bench.world.item("r1").await.contains_key("timer_at"));
}

#[tokio::test(start_paused = true)]
async fn the_last_frame_is_sent_again_while_there_is_time() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 3);
    bench.queue("r1").await;
    bench.world.process().await;
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
    assert_eq!(bench.world.request("r1").await.subscribers, []);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_hangs_holds_up_nobody_else() {
    let bench = Bench::new(Work::Report(20, Duration::from_millis(100))).await;
    bench.world.clients.hang("c-ann");
    bench.queue("r1").await;
    bench.world.subscribe("r1", "c9").await;
    bench.world.process().await;
    let others = bench.world.clients.frames("c9");
    assert!(others.len() >= 20, "{} frames in 2 s", others.len());
    assert!(matches!(others.last(), Some(Frame::Complete { .. })));
    assert_eq!(bench.world.request("r1").await.subscribers, ["c-ann".into()], "who was not told is kept");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_hangs_takes_no_second_try_from_another() {
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
async fn an_end_that_is_sent_again_brings_no_progress_back_with_it() {
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
async fn progress_that_failed_is_sent_again_when_the_lease_is_renewed() {
    let bench = Bench::new(Work::ReportThenSilent(Duration::from_secs(50))).await;
    bench.world.clients.fail_times("c-ann", SendErrorKind::Unavailable, 1);
    bench.queue("r1").await;
    let watches = async {
        sleep(Duration::from_secs(30)).await;
        bench.frames()
    };
    let (_, frames) = tokio::join!(bench.world.process(), watches);
    assert!(matches!(&frames[..], [Frame::Progress { percentage, .. }] if *percentage == 50.0), "{frames:?}");
    assert_eq!(bench.frames().len(), 2, "and the end: {:?}", bench.frames());
}

/// Everybody is told, as far as is known.
fn delivery(delivered: &[ConnectionId]) -> Delivery<'_> {
    Delivery { delivered, is_complete: true, is_dead_letter_sent: false, parts_released: false }
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_listen_after_the_end_keeps_the_request_in_the_timer_index() {
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
    assert_eq!(bench.world.request("r1").await.subscribers, ["c9".into()], "a passed epoch changes nothing");
    queue.record_delivery(&key("r1"), 1, delivery(&["c9".into()])).await.unwrap();
    assert!(!bench.world.item("r1").await.contains_key("timer_at"));
}

/// Reports without ever awaiting, until a client has seen three frames.
struct Spins(Clients);

impl Handler for Spins {
    type Input = Value;
    type Output = bool;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, _: Value, context: Context) -> Result<bool, HandlerError> {
        #[expect(clippy::disallowed_methods, reason = "what is measured is the machine's own time")]
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
async fn a_handler_that_burns_cpu_and_reports_without_end_is_pushed_all_the_same() {
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
async fn a_store_that_fails_for_a_while_costs_neither_the_lease_nor_the_end() {
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
    assert!(bench.frames().len() > 90, "pushes go on meanwhile: {} frames in 10 s", bench.frames().len());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_takes_the_end_is_given_up_before_the_invocation_ends() {
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
    assert_eq!(bench.frames(), [], "what is not stored is not told");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_store_cannot_hold_ends_the_request_as_failed() {
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
async fn an_item_that_cannot_be_read_is_ended_and_does_not_come_again() {
    let bench = Bench::new(Work::Fail).await;
    bench.queue("r1").await;
    let not_json = AttributeValue::S("{".into());
    bench.world.edit("r1", "SET payload = :value", not_json).await;
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    let item = bench.world.item("r1").await;
    assert_eq!(item["status"].as_s().unwrap(), "FAILED");
    assert!(item["error"].as_s().unwrap().contains("INTERNAL_ERROR"));
    assert_eq!(bench.started(), 0);
    assert_eq!(bench.world.process().await.batch_item_failures, [], "nor does it block who comes after it");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_read_is_ended_by_a_store_that_fails_for_a_while() {
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
async fn what_an_invocation_has_no_time_for_is_handed_over_as_it_is() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let response = bench.world.process_for(Duration::from_secs(40)).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!(bench.world.dispatched.keys(), [key("r1")]);
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Pending, 0));
}

/// A claim that is not answered is given up while a handler could still run, and its record comes again.
#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_answers_ends_before_its_invocation() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let started = Instant::now();
    let deadline = bench.world.now() + Duration::from_secs(60);
    let processor = bench.world.processor_with(silent_queue());
    let response = processor.process(batch(bench.world.pending()), deadline).await;
    assert_eq!(response.batch_item_failures.len(), 1, "it must come again");
    assert_eq!(started.elapsed().as_secs(), 50);
    assert_eq!(bench.started(), 0);
}

/// Its payload is still there, and somebody else may be able to read it: it is not ended for a store that fails.
#[tokio::test(start_paused = true)]
async fn a_claimed_request_whose_payload_is_out_of_reach_is_left_to_its_leases_end() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.world.ask("slow", "r1", json!("x".repeat(9_000))).await;
    let processor = bench.world.processor_with(queue_without(&bench.world.db, ".GetItem"));
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = processor.process(batch(bench.world.pending()), deadline).await;
    assert_eq!(response.batch_item_failures, [], "another record would find it claimed");
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt), (Status::Processing, 1));
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "somebody looks at it after that");
    assert_eq!((bench.started(), bench.frames().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_frame_can_carry_is_told_without_its_text() {
    for (work, code) in [
        (Work::FailAtLength { code: 200_000, message: 1 }, ErrorCode::ProcessingFailed),
        (Work::FailAtLength { code: 8, message: 200_000 }, ErrorCode::Custom("XXXXXXXX".into())),
    ] {
        let bench = Bench::new(work).await;
        bench.queue("r1").await;
        bench.world.process().await;
        let frames = bench.frames();
        let [Frame::Error { error, .. }] = &frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(error.code, code);
        assert_eq!(error.message, "The error's message and details are too large for a WebSocket frame");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_hangs_does_not_stop_the_handler() {
    let bench = Bench::new(Work::Report(10, Duration::from_millis(100))).await;
    bench.world.clients.hang("c-ann");
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_result_above_the_frame_limit_is_a_clear_failure_and_one_at_the_limit_is_sent() {
    let shell = r#"{"type":"complete","request_id":"r1","success":true,"result":"","timestamp":1700000000,"seq":1048577}"#;
    let limit = 128 * 1024 - shell.len();
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
async fn only_records_that_failed_before_their_claim_come_again() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(1))).await;
    bench.queue("r1").await;
    let good = bench.world.pending().remove(0);
    let broken = json!({"eventName": "INSERT", "dynamodb": {"Keys": {}, "SequenceNumber": "7"}});
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = bench.world.processor().process(batch(vec![broken, good.clone()]), deadline).await;
    assert_eq!(response.batch_item_failures, [BatchItemFailure { item_identifier: "7".into() }]);
    assert_eq!(bench.world.request("r1").await.status, Status::Completed);

    let nowhere = DynamoRequestQueue::new(bench.world.db.client(), "no-such-table", QueueSettings::default());
    let response = bench.world.processor_with(nowhere).process(batch(vec![good.clone()]), deadline).await;
    let sequence_number = good["dynamodb"]["SequenceNumber"].as_str().unwrap();
    assert_eq!(response.batch_item_failures, [BatchItemFailure { item_identifier: sequence_number.into() }]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_runs_ten_requests_at_once() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(10))).await;
    for n in 0..25 {
        bench.queue(&format!("r{n}")).await;
    }
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(began.elapsed().as_secs(), 30, "25 requests of 10 s, 10 at a time");
    assert_eq!(bench.started(), 25);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_there_any_more_is_done_with() {
    let bench = Bench::new(Work::Fail).await;
    let record = json!({"eventName": "INSERT", "dynamodb": {
        "Keys": {"request_id": {"S": "acme/ann/never"}, "part": {"S": "request"}}, "SequenceNumber": "1",
    }});
    let deadline = bench.world.now() + Duration::from_mins(15);
    let response = bench.world.processor().process(batch(vec![record]), deadline).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!(bench.started(), 0);
}
