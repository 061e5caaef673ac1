//! Functions as real processes, and in this one. Each test of a row of AWS-FACTS, section 3, is named after it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

#[path = "lambda/api.rs"]
mod api;
#[path = "lambda/asynchronous.rs"]
mod asynchronous;
#[path = "lambda/in_process.rs"]
mod in_process;
#[path = "lambda/runtime.rs"]
mod runtime;
#[path = "lambda/schedule.rs"]
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use streamer::ports::{Clock, Timestamp};
use streamer_fakes::faults::{Call, Fault, Faults};
use streamer_fakes::lambda::{CapturedLog, FunctionConfig, Functions, Invoke, InvokeError, Options};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_772_323_200)
    }
}

fn function(start: &str) -> FunctionConfig {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lambda/function.sh");
    let mut config = FunctionConfig::new("f", script);
    let executable = std::env::current_exe().unwrap().display().to_string();
    config.environment.insert("TEST_EXECUTABLE".to_owned(), executable);
    config.environment.insert(runtime::START.to_owned(), start.to_owned());
    config.timeout = Duration::from_secs(30);
    config
}

struct Stage {
    functions: Functions,
    log: Arc<CapturedLog>,
}

impl Stage {
    fn new(config: FunctionConfig) -> Self {
        Self::with(config, Options::default())
    }

    fn with(config: FunctionConfig, options: Options) -> Self {
        let log = Arc::new(CapturedLog::new());
        let options = Options { log: log.clone(), clock: Arc::new(FixedClock), ..options };
        Self { functions: Functions::new(vec![config], options).unwrap(), log }
    }

    async fn invoke(&self, event: Value) -> Result<Value, InvokeError> {
        let reply = self.functions.invoke("f", Bytes::from(event.to_string())).await?;
        Ok(serde_json::from_slice(&reply).unwrap())
    }

    async fn pid(&self) -> Value {
        self.invoke(json!({ "do": "pid" })).await.unwrap()
    }

    async fn error(&self, event: Value) -> (String, String) {
        match self.invoke(event).await {
            Err(InvokeError::Function { error_type, message }) => (error_type, without_request_id(&message)),
            other => panic!("not a function error: {other:?}"),
        }
    }
}

/// The message with its request id, which must have the form of one, replaced.
fn without_request_id(message: &str) -> String {
    let Some(rest) = message.strip_prefix("RequestId: ") else { return message.to_owned() };
    let (id, rest) = rest.split_once(' ').unwrap();
    assert_request_id(id);
    format!("RequestId: … {rest}")
}

fn assert_request_id(id: &str) {
    let lengths: Vec<_> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    assert!(id.chars().all(|c| c == '-' || c.is_ascii_hexdigit()) && id.as_bytes()[14] == b'4', "{id}");
}

/// Where functions meet the test: each connection is an invocation that waits until it is dropped.
struct Meeting(TcpListener);

impl Meeting {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn event(&self, what: &str) -> Value {
        json!({ "do": what, "port": self.0.local_addr().unwrap().port() })
    }

    async fn met(&self) -> Met {
        let mut stream = BufReader::new(self.0.accept().await.unwrap().0);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        Met { pid: line.trim().parse().unwrap(), stream }
    }
}

struct Met {
    pid: Value,
    stream: BufReader<TcpStream>,
}

impl Met {
    /// Waits until the process at the other end is gone.
    async fn gone(mut self) {
        assert!(matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_)), "a function has nothing to say");
    }

    /// Waits until the process at the other end, which has said something, is gone.
    async fn gone_at_last(mut self) {
        let mut bytes = [0; 1_024];
        while !matches!(self.stream.read(&mut bytes).await, Ok(0) | Err(_)) {}
    }
}

#[tokio::test]
async fn next_headers_row_what_a_process_is_told() {
    let mut config = function("normal");
    config.timeout = Duration::from_secs(7);
    let stage = Stage::new(config);
    let reply = stage.invoke(json!({ "do": "describe" })).await.unwrap();
    let header = |name: &str| reply["headers"][name].as_str().unwrap().to_owned();
    assert_request_id(&header("lambda-runtime-aws-request-id"));
    assert_eq!(header("lambda-runtime-deadline-ms"), "1772323207000");
    assert_eq!(
        header("lambda-runtime-invoked-function-arn"),
        "arn:aws:lambda:us-east-1:000000000000:function:f"
    );
    let trace = header("lambda-runtime-trace-id");
    assert!(trace.starts_with("Root=1-69a38180-") && trace.contains(";Sampled=0;Lineage="), "{trace}");
}

#[tokio::test]
async fn environment_row_a_function_sees_aws_s_variables_and_none_of_the_stages() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "the stage's own environment has it");
    let stage = Stage::new(function("normal"));
    let reply = stage.invoke(json!({ "do": "describe" })).await.unwrap();
    let environment = &reply["environment"];
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "f");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "128");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_VERSION"], "$LATEST");
    let log_stream = environment["AWS_LAMBDA_LOG_STREAM_NAME"].as_str().unwrap();
    assert!(log_stream.starts_with("2026/03/01/[$LATEST]"), "{log_stream}");
    assert_eq!(environment["CARGO_MANIFEST_DIR"], Value::Null);
    assert_eq!(reply["folder"], environment["LAMBDA_TASK_ROOT"]);
}

#[tokio::test]
async fn replies_row_statuses() {
    let stage = Stage::new(function("normal"));
    stage.invoke(json!({ "do": "misbehave" })).await.unwrap();
    let statuses = stage.invoke(json!({ "do": "statuses" })).await.unwrap();
    assert_eq!(statuses, json!([400, 400, 403, 404, 202, 403]));
}

#[tokio::test]
async fn replies_row_a_response_over_the_limit_is_413_and_the_environment_lives_on() {
    let stage = Stage::new(function("normal"));
    let pid = stage.pid().await;
    let allowed = stage.functions.invoke("f", Bytes::from(r#"{"do":"large","bytes":6291556}"#)).await;
    assert_eq!(allowed.unwrap().len(), 6_291_556);
    let (error_type, message) = stage.error(json!({ "do": "large", "bytes": 6_291_557 })).await;
    assert_eq!(error_type, "Function.ResponseSizeTooLarge");
    assert_eq!(message, "Response payload size exceeded maximum allowed payload size (6291556 bytes).");
    assert_eq!(stage.invoke(json!({ "do": "statuses" })).await.unwrap(), json!([202, 413]));
    assert_eq!(stage.pid().await, pid);
}

#[tokio::test]
async fn an_error_that_the_runtime_reports_is_the_functions() {
    let stage = Stage::new(function("normal"));
    let error = stage.error(json!({ "do": "fail" })).await;
    assert_eq!(error, ("ReportError".to_owned(), "no such format".to_owned()));
}

#[tokio::test]
async fn timeout_row_the_process_is_killed_and_replaced() {
    let mut config = function("normal");
    config.timeout = Duration::from_secs(1);
    let (stage, meeting) = (Stage::new(config), Meeting::new().await);
    let (error, met) = tokio::join!(stage.error(meeting.event("meet")), meeting.met());
    let expected = ("Sandbox.Timedout", "RequestId: … Error: Task timed out after 1.00 seconds");
    assert_eq!((&*error.0, &*error.1), expected);
    assert_ne!(stage.pid().await, met.pid);
    met.gone().await;
}

#[tokio::test]
async fn crash_row_the_end_is_told_and_the_process_is_replaced() {
    let stage = Stage::new(function("normal"));
    for (event, expected) in [
        (
            json!({ "do": "exit", "status": 127 }),
            "RequestId: … Error: Runtime exited with error: exit status 127",
        ),
        (
            json!({ "do": "exit", "status": 0 }),
            "RequestId: … Error: Runtime exited without providing a reason",
        ),
        (json!({ "do": "die" }), "RequestId: … Error: Runtime exited with error: signal: killed"),
    ] {
        let before = stage.pid().await;
        assert_eq!(stage.error(event).await, ("Runtime.ExitError".to_owned(), expected.to_owned()));
        assert_ne!(stage.pid().await, before);
    }
}

#[tokio::test]
async fn a_process_that_ends_between_two_invocations_costs_neither() {
    let stage = Stage::new(function("normal"));
    let first = stage.invoke(json!({ "do": "exit afterwards" })).await.unwrap();
    assert_ne!(stage.pid().await, first);
}

#[tokio::test]
async fn lifecycle_row_a_process_that_dies_at_start_is_told_with_its_output() {
    let stage = Stage::new(function("exit"));
    let Err(InvokeError::Function { error_type, message }) = stage.functions.probe("f").await else {
        panic!("it cannot have started");
    };
    assert_eq!(error_type, "Runtime.ExitError");
    assert_eq!(
        without_request_id(&message),
        "RequestId: … Error: Runtime exited with error: exit status 3\nstarting: exit\nno table is configured"
    );
    assert!(stage.log.lines("f").contains(&"no table is configured".to_owned()));
}

#[tokio::test]
async fn lifecycle_row_an_init_error_is_told_as_the_runtime_words_it() {
    let stage = Stage::new(function("error"));
    let error = stage.error(json!({ "do": "pid" })).await;
    assert_eq!(error, ("Function.NoTable".to_owned(), "no table is configured".to_owned()));
}

#[tokio::test]
async fn lifecycle_row_init_is_bounded() {
    assert_eq!(Options::default().init_timeout, Duration::from_secs(10));
    assert_eq!(Options::default().shutdown, Duration::from_secs(2));
    let options = Options { init_timeout: Duration::from_millis(250), ..Options::default() };
    let stage = Stage::with(function("hang"), options);
    let error = stage.error(json!({ "do": "pid" })).await;
    let expected = ("Sandbox.Timedout", "RequestId: … Error: Task timed out after 0.25 seconds");
    assert_eq!((&*error.0, &*error.1), expected);
    stage.functions.shutdown().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told_by_its_path() {
    let stage = Stage::new(FunctionConfig::new("f", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    let (error_type, message) = stage.error(json!({})).await;
    assert_eq!(error_type, "Runtime.InvalidEntrypoint");
    assert!(message.contains("/Cargo.toml: ") && message.contains("ermission denied"), "{message}");
}

#[tokio::test]
async fn unknown_functions_and_bad_settings_are_refused() {
    let stage = Stage::new(function("normal"));
    let error = stage.functions.invoke("g", Bytes::new()).await.unwrap_err();
    assert_eq!(error, InvokeError::NotFound("g".to_owned()));
    assert_eq!(error.to_string(), "ResourceNotFoundException: Function not found: g");
    assert_eq!(stage.functions.probe("g").await, Err(error));
    let twice = vec![function("normal"), function("normal")];
    let error = Functions::new(twice, Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "function \"f\": another function has the same name");
}

#[tokio::test]
async fn a_probed_environment_serves_the_first_invocation() {
    let stage = Stage::new(function("normal"));
    stage.functions.probe("f").await.unwrap();
    stage.functions.probe("f").await.unwrap();
    stage.pid().await;
    let starts = stage.log.lines("f").iter().filter(|line| line.starts_with("starting")).count();
    assert_eq!(starts, 1);
}

#[tokio::test]
async fn invocations_that_overlap_get_environments_of_their_own_and_the_last_used_is_reused() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    let (event, release) = (meeting.event("meet"), async {
        let (first, second) = (meeting.met().await, meeting.met().await);
        let pids = [first.pid.clone(), second.pid.clone()];
        assert_ne!(pids[0], pids[1]);
        pids
    });
    let (one, two, pids) = tokio::join!(stage.invoke(event.clone()), stage.invoke(event), release);
    assert!(pids.contains(&one.unwrap()) && pids.contains(&two.unwrap()));
    let last_used = stage.pid().await;
    assert!(pids.contains(&last_used));
    assert_eq!(stage.pid().await, last_used);
}

#[tokio::test]
async fn a_runtime_that_is_still_busy_after_its_reply_is_passed_over_until_it_is_back() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    let lingering = stage.invoke(meeting.event("linger")).await.unwrap();
    let met = meeting.met().await;
    assert_eq!(met.pid, lingering);
    let other = stage.pid().await;
    assert_ne!(other, lingering);
    drop(met);
    // It lies below those used since, and comes up again once they are gone.
    while stage.invoke(json!({ "do": "exit afterwards" })).await.unwrap() != lingering {}
}

#[tokio::test]
async fn concurrency_row_reserved_concurrency_throttles() {
    let mut config = function("normal");
    config.reserved_concurrency = Some(1);
    throttles_the_second_of_two(Stage::new(config)).await;
}

#[tokio::test]
async fn concurrency_row_account_concurrency_throttles() {
    assert_eq!(Options::default().account_concurrency, 1_000);
    let options = Options { account_concurrency: 1, ..Options::default() };
    throttles_the_second_of_two(Stage::with(function("normal"), options)).await;
}

async fn throttles_the_second_of_two(stage: Stage) {
    let meeting = Meeting::new().await;
    let second = async {
        let first = meeting.met().await;
        let error = stage.invoke(json!({ "do": "pid" })).await.unwrap_err();
        assert_eq!(error, InvokeError::Throttled);
        first.pid.clone()
    };
    let (first, pid) = tokio::join!(stage.invoke(meeting.event("meet")), second);
    assert_eq!(first.unwrap(), pid);
    assert_eq!(stage.pid().await, pid, "and is free again");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_environment_free() {
    let mut config = function("normal");
    config.reserved_concurrency = Some(1);
    let (stage, meeting) = (Stage::new(config), Meeting::new().await);
    let met = tokio::select! {
        biased;
        met = meeting.met() => met,
        reply = stage.invoke(meeting.event("meet")) => panic!("nobody has released it: {reply:?}"),
    };
    assert_eq!(stage.invoke(json!({ "do": "pid" })).await, Err(InvokeError::Throttled), "it runs on");
    let pid = met.pid.clone();
    drop(met);
    let reused = loop {
        match stage.invoke(json!({ "do": "pid" })).await {
            Err(InvokeError::Throttled) => tokio::task::yield_now().await,
            reply => break reply,
        }
    };
    assert_eq!(reused, Ok(pid));
}

#[tokio::test]
async fn lifecycle_row_shutdown_ends_idle_and_running_processes_in_order() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    let lingering = stage.invoke(meeting.event("linger")).await.unwrap();
    let idle = meeting.met().await;
    assert_eq!(idle.pid, lingering);
    let shutdown = async {
        let running = meeting.met().await;
        stage.functions.shutdown().await;
        running.gone().await;
        idle.gone().await;
    };
    let (error, ()) = tokio::join!(stage.error(meeting.event("meet")), shutdown);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: terminated");
    assert_eq!(stage.invoke(json!({ "do": "pid" })).await, Err(InvokeError::Throttled));
}

#[tokio::test]
async fn lifecycle_row_a_process_that_ignores_sigterm_is_killed() {
    let mut config = function("normal");
    config.environment.insert("IGNORE_TERM".to_owned(), "1".to_owned());
    let options = Options { shutdown: Duration::from_millis(200), ..Options::default() };
    let (stage, meeting) = (Stage::with(config, options), Meeting::new().await);
    let shutdown = async {
        let running = meeting.met().await;
        stage.functions.shutdown().await;
        running.gone().await;
    };
    let (error, ()) = tokio::join!(stage.error(meeting.event("meet")), shutdown);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
}

#[tokio::test]
async fn functions_that_are_dropped_leave_no_process() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    stage.invoke(meeting.event("linger")).await.unwrap();
    let met = meeting.met().await;
    drop(stage);
    met.gone().await;
}

#[tokio::test]
async fn a_function_of_the_real_lambda_runtime_cannot_tell_the_difference() {
    let stage = Stage::new(function("lambda_runtime"));
    let first = stage.invoke(json!({ "text": "x".repeat(200_000) })).await.unwrap();
    assert_eq!(first["function"], "f");
    assert_eq!(first["deadline"], 1_772_323_230_000_u64);
    assert_eq!(first["echo"]["text"].as_str().unwrap().len(), 200_000);
    let (error_type, message) = stage.error(json!({ "fail": "no such format" })).await;
    assert!(error_type.contains("Error"), "{error_type}");
    assert_eq!(message, "no such format");
    assert_eq!(stage.invoke(json!({})).await.unwrap()["pid"], first["pid"]);
    stage.functions.shutdown().await;
}

#[tokio::test]
async fn both_outputs_reach_the_log_under_the_functions_name() {
    let stage = Stage::new(function("normal"));
    stage.invoke(json!({ "do": "say", "out": "to the output", "err": "to the error" })).await.unwrap();
    assert_eq!(stage.log.wait_for("f", "to the output").await, "to the output");
    assert_eq!(stage.log.wait_for("f", "to the error").await, "to the error");
}

#[tokio::test]
async fn functions_are_killed_on_request_idle_and_running_ones() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    stage.invoke(meeting.event("linger")).await.unwrap();
    let idle = meeting.met().await;
    let kill = async {
        let running = meeting.met().await;
        assert_eq!(stage.functions.kill("f"), Ok(2));
        running.gone().await;
        idle.gone().await;
    };
    let (error, ()) = tokio::join!(stage.error(meeting.event("meet")), kill);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
    assert_eq!(stage.functions.kill("f"), Ok(0));
    assert_eq!(stage.functions.kill("g"), Err(InvokeError::NotFound("g".to_owned())));
    stage.pid().await;
}

#[tokio::test]
async fn a_process_that_a_fault_kills_is_replaced() {
    let faults = Faults::default();
    let options = Options { faults: faults.clone(), ..Options::default() };
    let stage = Stage::with(function("normal"), options);
    let before = stage.pid().await;
    let _killed = faults.add(Fault::kill(Call::invoke("f")).times(1));
    let meeting = Meeting::new().await;
    let error = stage.error(meeting.event("meet")).await;
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
    assert_ne!(stage.pid().await, before);
}

/// Reads what comes until nothing comes for a while.
async fn falls_silent(stream: &mut BufReader<TcpStream>) {
    let mut bytes = [0; 1_024];
    let silence = async {
        while let Ok(read) = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut bytes)).await {
            assert_ne!(read.unwrap(), 0, "it is frozen, not gone");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), silence).await.expect("it is frozen in the end");
}

#[tokio::test]
async fn lifecycle_row_what_a_function_leaves_running_is_frozen_until_its_next_event() {
    let (stage, meeting) = (Stage::new(function("normal")), Meeting::new().await);
    let pid = stage.invoke(meeting.event("tick")).await.unwrap();
    let mut met = meeting.met().await;
    falls_silent(&mut met.stream).await;
    let (reply, ticked) = tokio::join!(stage.invoke(meeting.event("meet")), async {
        let again = meeting.met().await;
        let ticked = met.stream.read(&mut [0]).await.unwrap();
        drop(again);
        ticked
    });
    assert_eq!((reply.unwrap(), ticked), (pid, 1), "the same process, and its task goes on");
    falls_silent(&mut met.stream).await;
    stage.functions.shutdown().await;
    met.gone_at_last().await;
}

#[tokio::test]
async fn lifecycle_row_a_debugger_can_have_functions_run_on() {
    let options = Options { freeze: false, ..Options::default() };
    let (stage, meeting) = (Stage::with(function("normal"), options), Meeting::new().await);
    stage.invoke(meeting.event("tick")).await.unwrap();
    let mut met = meeting.met().await;
    let mut ticks = vec![0; 1_000];
    met.stream.read_exact(&mut ticks).await.unwrap();
}

#[tokio::test]
async fn lifecycle_row_an_environment_that_nobody_needs_is_ended() {
    assert_eq!(Options::default().idle_timeout, Some(Duration::from_mins(10)));
    let options = Options { idle_timeout: Some(Duration::from_millis(100)), ..Options::default() };
    let (stage, meeting) = (Stage::with(function("normal"), options), Meeting::new().await);
    stage.invoke(meeting.event("tick")).await.unwrap();
    meeting.met().await.gone_at_last().await;
    assert_eq!(stage.functions.kill("f"), Ok(0));
}
