//! Tests of asynchronous invocations, on virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use streamer::ports::TokioClock;
use streamer_fakes::destination::{Destination, NoDestination};
use streamer_fakes::faults::{Call, Caller, Fault, Faults};
use streamer_fakes::lambda::{
    AsyncSettings, CapturedLog, FunctionConfig, Functions, InProcess, InProcessEnvironment, InProcessEvent,
    Invocation, InvokeError, Options, Starting,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::in_process::{START, function_error};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:";
const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:failed";

/// Receiver of the invocations of a [`Scripted`] function: for each, the time in seconds since the start, and
/// the event.
pub(crate) type Invoked = mpsc::UnboundedReceiver<(u64, InProcessEvent)>;

/// In-process function that returns the given replies in order, and then `null`, and reports each invocation.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    began: Instant,
    replies: Arc<Mutex<VecDeque<Result<Bytes, InvokeError>>>>,
    invoked: mpsc::UnboundedSender<(u64, InProcessEvent)>,
}

impl Scripted {
    pub(crate) fn new(replies: impl IntoIterator<Item = Result<Bytes, InvokeError>>) -> (Arc<Self>, Invoked) {
        let (invoked, events) = mpsc::unbounded_channel();
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        (Arc::new(Self { began: Instant::now(), replies, invoked }), events)
    }
}

impl InProcess for Scripted {
    fn start(&self, _: Caller, _: std::collections::BTreeMap<String, String>) -> Starting<'_> {
        Box::pin(async { Ok(Box::new(self.clone()) as Box<dyn InProcessEnvironment>) })
    }
}

impl InProcessEnvironment for Scripted {
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_> {
        let _ = self.invoked.send((self.began.elapsed().as_secs(), event));
        let reply = self.replies.lock().unwrap().pop_front();
        Box::pin(async { reply.unwrap_or_else(|| Ok(Bytes::from_static(b"null"))) })
    }
}

/// Destination that accepts messages for one queue, and reports each message with its time in seconds.
#[derive(Debug)]
struct Queue(mpsc::UnboundedSender<(u64, String)>, Instant);

impl Destination for Queue {
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination> {
        if arn != QUEUE {
            return Err(NoDestination(arn.to_owned()));
        }
        let _ = self.0.send((self.1.elapsed().as_secs(), message));
        Ok(())
    }
}

fn failure() -> Result<Bytes, InvokeError> {
    Err(function_error("ReportError", "no such format"))
}

pub(crate) struct Stage {
    pub(crate) functions: Functions,
    queue: mpsc::UnboundedReceiver<(u64, String)>,
    faults: Faults,
    log: Arc<CapturedLog>,
}

impl Stage {
    pub(crate) fn new(configs: Vec<FunctionConfig>) -> Self {
        let (sender, queue) = mpsc::unbounded_channel();
        let (faults, log) = (Faults::default(), Arc::new(CapturedLog::new()));
        let options = Options {
            clock: Arc::new(TokioClock::starting_at(START)),
            faults: faults.clone(),
            destination: Some(Arc::new(Queue(sender, Instant::now()))),
            log: log.clone(),
            ..Options::default()
        };
        Self { functions: Functions::new(configs, options).unwrap(), queue, faults, log }
    }

    async fn record(&mut self) -> (u64, Value) {
        let (at, message) = self.queue.recv().await.unwrap();
        (at, serde_json::from_str(&message).unwrap())
    }
}

pub(crate) fn config(name: &str, code: Arc<Scripted>, asynchronous: AsyncSettings) -> FunctionConfig {
    FunctionConfig { asynchronous, ..FunctionConfig::in_process(name, code) }
}

fn to_queue() -> AsyncSettings {
    let queue = Some(QUEUE.to_owned());
    AsyncSettings { on_success: queue.clone(), on_failure: queue, ..AsyncSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn failed_async_invocation_is_retried_after_1_and_2_minutes_with_the_same_request_id() {
    let (code, mut invoked) = Scripted::new([failure(), failure(), failure()]);
    let mut stage = Stage::new(vec![config("f", code, to_queue())]);
    let id = stage.functions.invoke_async("f", Bytes::from_static(b"{\"pages\":30}")).unwrap();
    let (at, record) = stage.record().await;
    assert_eq!(at, 180);
    for expected in [0, 60, 180] {
        let (at, event) = invoked.try_recv().unwrap();
        assert_eq!((at, &event.request_id), (expected, &id));
        assert_eq!(&event.payload[..], b"{\"pages\":30}");
    }
    assert!(invoked.try_recv().is_err(), "the event is retried at most twice");
    let expected = json!({
        "version": "1.0",
        "timestamp": "2026-03-01T00:03:00.000Z",
        "requestContext": {
            "requestId": id,
            "functionArn": format!("{ARN}f:$LATEST"),
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": { "pages": 30 },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "responsePayload": { "errorType": "ReportError", "errorMessage": "no such format" },
    });
    assert_eq!(record, expected);
}

#[tokio::test(start_paused = true)]
async fn successful_async_invocation_sends_a_record_with_the_reply_to_its_destination() {
    let (code, _invoked) = Scripted::new([failure(), Ok(Bytes::from_static(b"{\"done\":true}"))]);
    let mut stage = Stage::new(vec![config("f", code, to_queue())]);
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    let (at, record) = stage.record().await;
    assert_eq!(at, 60);
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(record["responseContext"], json!({ "statusCode": 200, "executedVersion": "$LATEST" }));
    assert_eq!(record["responsePayload"], json!({ "done": true }));
}

#[tokio::test(start_paused = true)]
async fn throttled_async_invocation_backs_off_until_its_event_is_six_hours_old() {
    let (code, mut invoked) = Scripted::new([]);
    let mut stage = Stage::new(vec![config("f", code, to_queue())]);
    let throttled = stage.faults.add(Fault::throttle(Call::invoke("f")));
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    let (at, record) = stage.record().await;
    assert_eq!(at, 6 * 3_600);
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert!(record.get("responseContext").is_none() && record.get("responsePayload").is_none(), "{record}");
    // The first nine delays are 1 + 2 + 4 + … + 256 = 511 s. After that, each delay is 300 s.
    assert_eq!(throttled.hits(), 10 + (6 * 3_600 - 511) / 300);
    assert!(invoked.try_recv().is_err(), "the throttled function never runs");
}

#[tokio::test(start_paused = true)]
async fn throttles_of_an_async_invocation_do_not_count_as_retries() {
    let (code, mut invoked) = Scripted::new([failure()]);
    let stage = Stage::new(vec![config("f", code, AsyncSettings::default())]);
    let _throttled = stage.faults.add(Fault::throttle(Call::invoke("f")).times(3));
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    assert_eq!(invoked.recv().await.unwrap().0, 7);
    assert_eq!(invoked.recv().await.unwrap().0, 67);
}

#[tokio::test(start_paused = true)]
async fn async_retries_and_event_age_are_configurable_and_the_dead_letter_is_the_payload() {
    let (code, _invoked) = Scripted::new([failure(), failure()]);
    let settings = AsyncSettings {
        maximum_retry_attempts: 0,
        dead_letter: Some(QUEUE.to_owned()),
        ..AsyncSettings::default()
    };
    let (late, _) = Scripted::new([failure(), failure()]);
    let aged = AsyncSettings { maximum_event_age: Duration::from_secs(90), ..settings.clone() };
    let aged = AsyncSettings { maximum_retry_attempts: 2, on_failure: Some(QUEUE.to_owned()), ..aged };
    let mut stage = Stage::new(vec![config("f", code, settings), config("late", late, aged)]);
    stage.functions.invoke_async("f", Bytes::from_static(b"not json")).unwrap();
    assert_eq!(stage.queue.recv().await.unwrap(), (0, "not json".to_owned()));
    stage.functions.invoke_async("late", Bytes::from_static(b"{}")).unwrap();
    let (at, record) = stage.record().await;
    assert_eq!(at, 90);
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!(record["responsePayload"]["errorType"], "ReportError");
    assert_eq!(stage.queue.recv().await.unwrap(), (90, "{}".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn async_invocation_with_zero_reserved_concurrency_fails_immediately() {
    let (code, _invoked) = Scripted::new([]);
    let mut config = config("f", code, to_queue());
    config.reserved_concurrency = Some(0);
    let mut stage = Stage::new(vec![config]);
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    let (at, record) = stage.record().await;
    assert_eq!((at, &record["requestContext"]["approximateInvokeCount"]), (0, &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn async_invocation_record_reaches_a_function_and_a_missing_destination_is_logged() {
    let (code, _invoked) = Scripted::new([]);
    let (next, mut next_invoked) = Scripted::new([]);
    let on_success = Some(format!("{ARN}next"));
    let missing = AsyncSettings { on_success: Some(format!("{ARN}gone")), ..AsyncSettings::default() };
    let stage = Stage::new(vec![
        config("f", code, AsyncSettings { on_success, ..AsyncSettings::default() }),
        config("next", next, missing),
    ]);
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    let (_, event) = next_invoked.recv().await.unwrap();
    let record: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(record["requestContext"]["functionArn"], format!("{ARN}f:$LATEST"));
    let line = stage.log.wait_for("next", "DestinationDeliveryFailures").await;
    assert!(line.contains("function:gone"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn async_invocation_above_1_mb_or_of_an_unknown_function_is_rejected() {
    let (code, _invoked) = Scripted::new([]);
    let stage = Stage::new(vec![config("f", code, AsyncSettings::default())]);
    let invoke = |bytes: usize| stage.functions.invoke_async("f", Bytes::from(vec![b'1'; bytes]));
    assert!(invoke(1_048_576).is_ok());
    assert_eq!(invoke(1_048_577), Err(InvokeError::TooLarge(1_048_576)));
    let error = stage.functions.invoke_async("g", Bytes::new());
    assert_eq!(error, Err(InvokeError::NotFound("g".to_owned())));
    stage.functions.shutdown().await;
    assert_eq!(invoke(1), Err(InvokeError::Throttled));
}

#[tokio::test(start_paused = true)]
async fn queued_async_invocation_is_lost_when_the_functions_are_dropped() {
    let (code, mut invoked) = Scripted::new([failure()]);
    let stage = Stage::new(vec![config("f", code, AsyncSettings::default())]);
    stage.functions.invoke_async("f", Bytes::from_static(b"{}")).unwrap();
    invoked.recv().await.unwrap();
    let dropped = Instant::now();
    drop(stage);
    assert!(invoked.recv().await.is_none(), "the failed event is not retried after the drop");
    assert_eq!(dropped.elapsed(), Duration::ZERO, "the wait for a retry keeps no environment alive");
}
