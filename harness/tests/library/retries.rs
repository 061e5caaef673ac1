//! Tests of failed attempts: their retries, backoff, dead letters and history entries.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::ports::Entropy;
use streamer::processor::{Processor, ProcessorSettings};
use streamer::protocol::{ErrorBody, ErrorCode, Frame};
use streamer::store::{AttemptOutcome, Ending, Runner, Status, StoreErrorKind};
use streamer::worker::Worker;
use streamer::worker::dispatch::WorkerEvent;
use tokio::time::{Instant, sleep};

use crate::flaky::Flaky;
use crate::scripted::{Bench, assert_in_order};
use crate::world::{batch, key, queue};

fn busy() -> HandlerError {
    HandlerError::retryable("BUSY", "The printer is busy")
}

/// Handler body: fails in each attempt before the attempt number `attempt`. In a later attempt, returns the number of
/// the current attempt.
async fn succeeds_at(attempt: u32, context: Context) -> Result<Value, HandlerError> {
    if context.attempt < attempt { Err(busy()) } else { Ok(json!(context.attempt)) }
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_retried_until_one_succeeds() {
    let bench = Bench::new(RetryPolicy::attempts(3), |context| succeeds_at(3, context)).await;
    bench.queue("r1").await;
    for (attempt, max_backoff_ms) in [(1, 1_000), (2, 2_000)] {
        assert_eq!(bench.world.process().await.batch_item_failures, []);
        let request = bench.world.request("r1").await;
        assert_eq!((request.status, request.attempt, request.lease), (Status::Retrying, attempt, None));
        assert!(bench.wait("r1").await <= Duration::from_millis(max_backoff_ms));
        assert_eq!(bench.frames(), [], "a failed attempt that is retried pushes no frame");
        bench.world.retry("r1").await;
    }
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!(request.ending, Some(Ending::Completed(json!(3))));
    assert_eq!((request.attempt, request.epoch, request.is_dead_letter_due), (3, 3, false));
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Failed)]);
    assert!(matches!(bench.frames()[..], [Frame::Complete { .. }]));
    assert_eq!((bench.started(), bench.world.letters.sent()), (3, vec![]));
}

#[tokio::test(start_paused = true)]
async fn request_whose_attempts_all_fail_ends_with_the_last_error_and_a_dead_letter() {
    let bench = Bench::new(RetryPolicy::attempts(3), async |_| Err(busy())).await;
    bench.queue("r1").await;
    bench.run_until_terminal("r1").await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.attempt, bench.started()), (Status::Failed, 3, 3));
    assert_eq!(bench.error(), ErrorBody::new("BUSY".into(), "The printer is busy"));
    let epochs: Vec<_> = request.history.iter().map(|past| (past.attempt, past.epoch)).collect();
    assert_eq!(epochs, [(1, 1), (2, 2), (3, 3)]);
    assert!(request.history.iter().all(|past| past.error == bench.error() && past.started_at.is_some()));

    let [letter] = &bench.world.letters.sent()[..] else { panic!("exactly one dead letter is sent") };
    assert_eq!((letter.id.as_str(), letter.attempts, letter.epoch), ("acme/ann/r1#3@1700000000000", 3, 3));
    assert_eq!((&letter.payload, &letter.error), (&json!({"n": 1}), &bench.error()));
    assert_eq!(letter.history, request.history);
    assert_eq!(Some(letter.failed_at), request.finished_at);
    assert!(!request.is_dead_letter_due, "a dead letter that was sent is no longer due");
    assert!(
        !bench.world.item("r1").await.contains_key("timer_at"),
        "a request whose frame and dead letter are sent has no timer"
    );
}

#[tokio::test(start_paused = true)]
async fn dead_letter_that_cannot_be_sent_stays_due_and_keeps_its_request_in_the_timer_index() {
    let bench = Bench::new(RetryPolicy::never(), async |_| Err(busy())).await;
    bench.world.letters.fail_times(1);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.is_dead_letter_due), (Status::Failed, true));
    assert_eq!((request.subscribers, bench.world.letters.sent()), (vec![], vec![]));
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "the request stays in the timer index");
    assert_eq!(bench.error().code, ErrorCode::Custom("BUSY".into()));
}

#[tokio::test(start_paused = true)]
async fn sent_dead_letter_is_no_longer_due_although_the_client_is_unreachable() {
    let bench = Bench::new(RetryPolicy::never(), async |_| Err(busy())).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.is_dead_letter_due, request.subscribers), (false, vec!["c-ann".into()]));
    assert_eq!(bench.world.letters.sent().len(), 1);
    assert!(bench.world.item("r1").await.contains_key("timer_at"), "the delivery to ann is still due");
}

/// Each error occurs in the first of two allowed attempts. A request that will be retried has the status RETRYING.
#[tokio::test(start_paused = true)]
async fn handler_error_decides_whether_the_request_is_retried() {
    fn unexpected() -> HandlerError {
        "no number".parse::<u32>().unwrap_err().into()
    }
    let errors: [(fn() -> HandlerError, Status); 6] = [
        (unexpected, Status::Retrying),
        (busy, Status::Retrying),
        (|| HandlerError::failure("A", "a").retry_after(Duration::from_secs(1)), Status::Retrying),
        (|| HandlerError::failure("CARD_DECLINED", "no"), Status::Failed),
        (|| busy().fatal(), Status::Failed),
        (|| unexpected().fatal(), Status::Failed),
    ];
    for (n, (error, status)) in errors.into_iter().enumerate() {
        let bench = Bench::new(RetryPolicy::attempts(2), move |_| std::future::ready(Err(error()))).await;
        bench.queue("r1").await;
        bench.world.process().await;
        assert_eq!(bench.status("r1").await, status, "error {n} makes the request {status:?}");
        assert_eq!(
            bench.history("r1").await,
            [(1, AttemptOutcome::Failed)],
            "the history contains the attempt that failed with error {n}"
        );
        assert_eq!(
            bench.frames().len(),
            usize::from(status == Status::Failed),
            "a frame is pushed only if error {n} is final"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn retry_waits_as_long_as_the_handler_error_asks_but_at_most_a_day() {
    for (retry_after_s, backoff_s) in [(60, 60), (u64::MAX, 24 * 3_600)] {
        let error = move || busy().retry_after(Duration::from_secs(retry_after_s));
        let bench = Bench::new(RetryPolicy::attempts(2), move |_| async move { Err(error()) }).await;
        bench.queue("r1").await;
        bench.world.process().await;
        assert_eq!(bench.wait("r1").await.as_secs(), backoff_s);
    }
}

/// Entropy source that returns fixed random bytes for backoffs. A draw of 4 bytes, which decides a backoff, is filled
/// with the first field. Any other draw, such as for an owner token, is filled with a counter, so that the tokens
/// differ.
#[derive(Debug)]
struct FixedBackoff(u8, std::sync::atomic::AtomicU8);

impl Entropy for FixedBackoff {
    fn fill(&self, bytes: &mut [u8]) {
        let n = self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        bytes.fill(if bytes.len() == 4 { self.0 } else { n });
    }
}

#[tokio::test(start_paused = true)]
async fn maximum_backoff_grows_with_each_attempt_up_to_the_policys_cap() {
    for (byte, backoffs_ms) in [
        (u8::MAX, [2_000, 6_000, 18_000, 20_000, 20_000]),
        (128, [1_003, 3_011, 9_035, 10_039, 10_039]),
        (0, [0; 5]),
    ] {
        let policy =
            RetryPolicy::attempts(6).base(Duration::from_secs(2)).factor(3.0).cap(Duration::from_secs(20));
        let bench = Bench::new(policy, async |_| Err(busy())).await;
        bench.queue("r1").await;
        let entropy: Arc<dyn Entropy> = Arc::new(FixedBackoff(byte, 0.into()));
        for backoff_ms in backoffs_ms {
            let executor = bench.world.executor_on(queue(&bench.world.db), tokio::runtime::Handle::current());
            let processor = Processor::new(
                streamer::executor::Executor { entropy: Arc::clone(&entropy), ..executor },
                bench.world.dispatched.clone(),
                ProcessorSettings::default(),
            );
            let deadline = bench.world.now() + Duration::from_mins(15);
            processor.process(batch(bench.world.pending()), deadline).await;
            assert_eq!(
                bench.wait("r1").await,
                Duration::from_millis(backoff_ms),
                "the backoff is computed from random bytes of the value {byte}"
            );
            bench.world.retry("r1").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn panic_is_retried_only_if_the_retry_policy_retries_panics() {
    async fn panics(_: Context) -> Result<Value, HandlerError> {
        panic!("a bug in the handler")
    }
    let mut never = RetryPolicy::attempts(2);
    never.retries_panics = false;
    for (policy, history) in [
        (RetryPolicy::attempts(2), vec![(1, AttemptOutcome::Panicked), (2, AttemptOutcome::Panicked)]),
        (never, vec![(1, AttemptOutcome::Panicked)]),
    ] {
        let bench = Bench::new(policy, panics).await;
        bench.queue("r1").await;
        bench.run_until_terminal("r1").await;
        assert_eq!(bench.history("r1").await, history);
        assert_eq!(bench.error().code, ErrorCode::ProcessingFailed);
        assert!(!bench.error().message.contains("bug"));
        assert_eq!(bench.world.letters.sent().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_history_keeps_only_the_last_ten_attempts_with_shortened_errors() {
    let long = || HandlerError::retryable("LONG", "x".repeat(5_000)).with_detail("all", "y".repeat(5_000));
    let bench = Bench::new(RetryPolicy::attempts(14), move |_| async move { Err(long()) }).await;
    bench.queue("r1").await;
    bench.run_until_terminal("r1").await;
    let history = bench.world.request("r1").await.history;
    let attempts: Vec<_> = history.iter().map(|past| past.attempt).collect();
    assert_eq!(attempts, (5..=14).collect::<Vec<_>>(), "the history contains the latest ten attempts");
    assert!(history.iter().all(|past| past.error.message.len() == 120 && past.error.details.is_empty()));
    assert_eq!(bench.error().message.len(), 5_000, "the client receives the full message");
}

/// Fails the first attempt of the request `r1`, with a retry after `wait`, and completes its second attempt. For any
/// other request, sleeps for ten seconds.
async fn first_request_fails_once(context: Context, wait: Duration) -> Result<Value, HandlerError> {
    if context.request_id.as_str() == "r1" {
        return match context.attempt {
            1 => Err(busy().retry_after(wait)),
            attempt => Ok(json!(attempt)),
        };
    }
    sleep(Duration::from_secs(10)).await;
    Ok(Value::Null)
}

#[tokio::test(start_paused = true)]
async fn processor_runs_a_retry_itself_if_its_backoff_is_short_and_other_requests_run() {
    let wait = Duration::from_secs(4);
    let bench =
        Bench::new(RetryPolicy::attempts(2), move |context| first_request_fails_once(context, wait)).await;
    bench.queue("r1").await;
    bench.queue("r2").await;
    let began = Instant::now();
    assert_eq!(bench.world.process().await.batch_item_failures, []);
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!(2))));
    let last = *bench.starts().last().unwrap() - began;
    assert!((4_000..4_100).contains(&last.as_millis()), "{last:?}");
    assert_eq!(began.elapsed().as_secs(), 10, "the backoff does not lengthen the invocation");
    assert_in_order(&bench.frames()[..1]);
}

#[tokio::test(start_paused = true)]
async fn retry_is_left_to_the_sweeper_if_its_backoff_is_long_or_no_other_request_runs() {
    for (wait, has_other_request) in [(4, false), (6, true)] {
        let wait = Duration::from_secs(wait);
        let bench =
            Bench::new(RetryPolicy::attempts(2), move |context| first_request_fails_once(context, wait))
                .await;
        bench.queue("r1").await;
        if has_other_request {
            bench.queue("r2").await;
        }
        let began = Instant::now();
        bench.world.process().await;
        assert_eq!(bench.status("r1").await, Status::Retrying);
        assert_eq!(began.elapsed().as_secs(), if has_other_request { 10 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn retry_runs_once_if_both_the_sweeper_and_the_waiting_processor_start_it() {
    let wait = Duration::from_secs(3);
    let bench =
        Bench::new(RetryPolicy::attempts(3), move |context| first_request_fails_once(context, wait)).await;
    bench.queue("r1").await;
    bench.queue("r2").await;
    let sweeps = async {
        sleep(Duration::from_secs(1)).await;
        bench.world.retry("r1").await;
        bench.world.process().await;
    };
    tokio::join!(bench.world.process(), sweeps);
    assert_eq!(bench.world.request("r1").await.ending, Some(Ending::Completed(json!(2))));
    assert_eq!(bench.started(), 3);
}

#[tokio::test(start_paused = true)]
async fn worker_ends_its_invocation_instead_of_waiting_for_a_retry() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| Err(busy())).await;
    bench.queue_long("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!((bench.status("r1").await, bench.started()), (Status::Retrying, 1));
    assert_eq!(began.elapsed().as_secs(), 0);
    assert_eq!(bench.runner("r1").await, Runner::Worker, "the worker also runs the retry");
    bench.run_until_terminal("r1").await;
    assert_eq!((bench.started(), bench.error().code), (2, ErrorCode::Custom("BUSY".into())));
}

#[tokio::test(start_paused = true)]
async fn write_that_schedules_a_retry_is_repeated_until_it_succeeds() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| Err(busy())).await;
    bench.queue("r1").await;
    let flaky = Flaky {
        queue: queue(&bench.world.db),
        progress: Arc::default(),
        ends: Arc::new(5.into()),
        kind: StoreErrorKind::Throttled,
    };
    let deadline = bench.world.now() + Duration::from_mins(1);
    bench.world.processor_with(flaky).process(batch(bench.world.pending()), deadline).await;
    assert_eq!(bench.status("r1").await, Status::Retrying);
    assert_eq!(bench.history("r1").await, [(1, AttemptOutcome::Failed)]);
}

/// The maximum number of attempts is stored with a request when the request is queued.
#[tokio::test(start_paused = true)]
async fn queued_request_keeps_its_max_attempts_when_the_retry_policy_changes() {
    let bench = Bench::new(RetryPolicy::attempts(2), async |_| Err(busy())).await;
    bench.queue("r1").await;
    let later = Bench::new(RetryPolicy::attempts(9), async |_| Err(busy())).await;
    let executor = bench.world.executor_on(queue(&bench.world.db), tokio::runtime::Handle::current());
    let worker = Worker::new(streamer::executor::Executor { app: Arc::clone(&later.world.app), ..executor });
    let deadline = bench.world.now() + Duration::from_mins(15);
    worker.run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap();
    assert_eq!(bench.status("r1").await, Status::Retrying);
    bench.world.retry("r1").await;
    worker.run(&WorkerEvent::of(&key("r1")), deadline).await.unwrap();
    assert_eq!(bench.status("r1").await, Status::Failed);
}
