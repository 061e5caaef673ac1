use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::processor::BatchItemFailure;
use streamer::protocol::{ErrorCode, Frame, Seq};
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer::store::{Ending, Status};
use tokio::time::{Instant, sleep};

use crate::world::{World, batch};

/// What a slow handler of these tests does.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Reports this often, this far apart, and then returns its payload.
    Report(u32, Duration),
    /// Says nothing for this long.
    Silent(Duration),
    Fail,
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
        Duration::from_secs(60)
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
            Work::Fail => return Err(HandlerError::failure("CARD_DECLINED", "The card was declined")),
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
    assert_snapshot!(bench.wire());
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
async fn a_request_without_progress_costs_four_writes_and_one_push() {
    let bench = Bench::new(Work::Silent(Duration::from_secs(10))).await;
    bench.queue("r1").await;
    bench.world.process().await;
    let writes: Vec<String> = bench
        .world
        .records()
        .iter()
        .map(|record| record["dynamodb"]["NewImage"]["status"]["S"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(writes, ["PENDING", "PROCESSING", "COMPLETED", "COMPLETED"]);
    assert_eq!(bench.frames().len(), 1);
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
    assert_snapshot!(bench.wire());
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
    assert_snapshot!(bench.wire());
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
    assert_eq!(began.elapsed().as_secs(), 290, "ten seconds before the invocation's end");
    tokio::task::yield_now().await;
    assert_eq!((bench.started(), bench.stopped()), (1, 1));
    assert_snapshot!(bench.wire());
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
    for (kind, name) in [(SendErrorKind::Unavailable, "throttled"), (SendErrorKind::Refused, "refused")] {
        let bench = Bench::new(Work::Report(2, Duration::from_millis(200))).await;
        bench.world.clients.fail("c-ann", kind);
        bench.queue("r1").await;
        bench.world.process().await;
        let request = bench.world.request("r1").await;
        assert_eq!(request.status, Status::Completed, "{name}");
        assert_eq!(request.subscribers, ["c-ann".into()], "{name}");
        assert!(bench.world.item("r1").await.contains_key("timer_at"), "{name}: somebody must look again");
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
            assert_snapshot!(bench.wire());
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
