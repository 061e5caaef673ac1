//! Tests of the last progress report of an attempt. The report is pushed before the terminal frame and stored with
//! the attempt's last write.

use std::time::Duration;

use serde_json::{Value, json};
use streamer::connections::SendErrorKind;
use streamer::handler::{Context, HandlerError, RetryPolicy};
use streamer::protocol::Frame;
use streamer::store::Status;
use tokio::time::{Instant, sleep};

use crate::scripted::{Bench, assert_in_order};

/// Reports 1 %, waits 20 ms, and reports 2 % to 99 % without a pause, faster than reports are pushed. Returns
/// `result`.
async fn reports(context: Context, result: Result<Value, HandlerError>) -> Result<Value, HandlerError> {
    context.progress.report(1.0, "Begun")?;
    sleep(Duration::from_millis(20)).await;
    for n in 2..=99 {
        context.progress.report(f64::from(n), format!("Step {n}"))?;
    }
    context.progress.set_metadata("rows", 7)?;
    result
}

#[tokio::test(start_paused = true)]
async fn last_progress_report_is_pushed_before_the_terminal_frame_and_stored() {
    for succeeds in [true, false] {
        let bench = Bench::new(RetryPolicy::never(), move |context| {
            let failed = Err(HandlerError::failure("A", "a"));
            reports(context, if succeeds { Ok(json!(1)) } else { failed })
        })
        .await;
        bench.queue("r1").await;
        bench.world.process().await;
        let frames = bench.frames();
        assert_in_order(&frames);
        let [Frame::Progress { .. }, Frame::Progress { percentage, metadata, .. }, end] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(end.is_terminal());
        assert_eq!((*percentage, &metadata["rows"]), (99.0, &json!(7)));
        let stored = bench.world.request("r1").await.progress;
        assert_eq!((stored.percentage, stored.message.as_str()), (99.0, "Step 99"));
        let status = bench.world.ask("status", "r2", json!({"request_id": "r1"})).await;
        let Frame::Response { data, .. } = status else { panic!("{status:?}") };
        let data = serde_json::to_value(data).unwrap();
        assert_eq!((&data["percentage"], &data["message"]), (&json!(99.0), &json!("Step 99")));
    }
}

/// The write that schedules a retry also stores the last report, so that the stored progress is never behind the
/// progress that clients have received.
#[tokio::test(start_paused = true)]
async fn last_progress_report_of_a_failed_attempt_is_pushed_and_stored_before_the_retry() {
    let error = || HandlerError::retryable("BUSY", "busy");
    let bench = Bench::new(RetryPolicy::attempts(2), move |context| reports(context, Err(error()))).await;
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.progress.percentage), (Status::Retrying, 99.0));
    assert!(matches!(bench.frames().last(), Some(Frame::Progress { percentage: 99.0, .. })));

    // The second attempt also begins with the report of 1 %. Its sequence numbers are higher than those of
    // the first attempt.
    bench.run_until_terminal("r1").await;
    assert_in_order(&bench.frames());
    assert!(bench.frames().iter().filter(|frame| is_progress(frame, 1.0)).count() == 2);
}

fn is_progress(frame: &Frame, expected: f64) -> bool {
    matches!(frame, Frame::Progress { percentage, .. } if *percentage == expected)
}

#[tokio::test(start_paused = true)]
async fn hanging_client_delays_the_write_that_schedules_a_retry_by_at_most_four_seconds() {
    let error = || HandlerError::retryable("BUSY", "busy").retry_after(Duration::from_secs(60));
    let bench = Bench::new(RetryPolicy::attempts(2), move |context| reports(context, Err(error()))).await;
    bench.world.clients.hang("c-ann");
    bench.queue("r1").await;
    let began = Instant::now();
    bench.world.process().await;
    assert_eq!(bench.status("r1").await, Status::Retrying);
    assert!(began.elapsed() <= Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn progress_report_that_reaches_no_subscriber_is_still_stored() {
    let bench = Bench::new(RetryPolicy::never(), |context| reports(context, Ok(Value::Null))).await;
    bench.world.clients.fail("c-ann", SendErrorKind::Unavailable);
    bench.queue("r1").await;
    bench.world.process().await;
    let request = bench.world.request("r1").await;
    assert_eq!((request.status, request.progress.percentage), (Status::Completed, 99.0));
}
