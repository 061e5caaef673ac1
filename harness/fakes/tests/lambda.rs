//! Tests of the Lambda fake, with functions in separate processes and in the test's own process. `docs/fidelity.md`
//! names the tests of each documented behavior of AWS.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

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
            other => panic!("expected a function error, got {other:?}"),
        }
    }
}

/// Checks the format of the request id in an error message, and replaces the id with `…`.
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

/// Listener to which functions in child processes connect. An invocation that has connected waits until the test
/// drops the connection.
struct Rendezvous(TcpListener);

impl Rendezvous {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Builds an event with a command for the function, and with the port of this listener.
    fn event(&self, command: &str) -> Value {
        json!({ "do": command, "port": self.0.local_addr().unwrap().port() })
    }

    async fn accept(&self) -> ConnectedProcess {
        let mut stream = BufReader::new(self.0.accept().await.unwrap().0);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        ConnectedProcess { pid: line.trim().parse().unwrap(), stream }
    }
}

/// Connection from a function's process.
struct ConnectedProcess {
    pid: Value,
    stream: BufReader<TcpStream>,
}

impl ConnectedProcess {
    /// Waits until the process has ended. The process must not send anything before its end.
    async fn wait_for_exit(mut self) {
        assert!(
            matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_)),
            "the process ends without sending data"
        );
    }

    /// Discards the bytes that the process sends, until the process has ended.
    async fn discard_until_exit(mut self) {
        let mut bytes = [0; 1_024];
        while !matches!(self.stream.read(&mut bytes).await, Ok(0) | Err(_)) {}
    }
}

#[tokio::test]
async fn event_from_the_runtime_api_has_request_id_deadline_function_and_trace_headers() {
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
async fn function_process_has_the_variables_of_aws_and_no_cargo_variables_of_the_stage() {
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "the test process has the variable CARGO_MANIFEST_DIR"
    );
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
async fn runtime_api_answers_invalid_requests_with_the_statuses_of_aws() {
    let stage = Stage::new(function("normal"));
    stage.invoke(json!({ "do": "send invalid requests" })).await.unwrap();
    let statuses = stage.invoke(json!({ "do": "statuses" })).await.unwrap();
    assert_eq!(statuses, json!([400, 400, 403, 404, 202, 403]));
}

#[tokio::test]
async fn response_above_the_size_limit_is_413_and_its_environment_is_reused() {
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
async fn error_reported_by_the_runtime_is_the_error_of_the_invocation() {
    let stage = Stage::new(function("normal"));
    let error = stage.error(json!({ "do": "fail" })).await;
    assert_eq!(error, ("ReportError".to_owned(), "no such format".to_owned()));
}

#[tokio::test]
async fn process_that_exceeds_the_function_timeout_is_killed_and_replaced() {
    let mut config = function("normal");
    config.timeout = Duration::from_secs(1);
    let (stage, rendezvous) = (Stage::new(config), Rendezvous::new().await);
    let (error, process) = tokio::join!(stage.error(rendezvous.event("wait")), rendezvous.accept());
    let expected = ("Sandbox.Timedout", "RequestId: … Error: Task timed out after 1.00 seconds");
    assert_eq!((&*error.0, &*error.1), expected);
    assert_ne!(stage.pid().await, process.pid);
    process.wait_for_exit().await;
}

#[tokio::test]
async fn process_crash_is_reported_with_its_cause_and_the_process_is_replaced() {
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
        (json!({ "do": "kill itself" }), "RequestId: … Error: Runtime exited with error: signal: killed"),
    ] {
        let before = stage.pid().await;
        assert_eq!(stage.error(event).await, ("Runtime.ExitError".to_owned(), expected.to_owned()));
        assert_ne!(stage.pid().await, before);
    }
}

#[tokio::test]
async fn process_exit_between_two_invocations_does_not_fail_either_invocation() {
    let stage = Stage::new(function("normal"));
    let first = stage.invoke(json!({ "do": "reply then exit" })).await.unwrap();
    assert_ne!(stage.pid().await, first);
}

#[tokio::test]
async fn process_exit_during_init_is_reported_with_the_last_output_of_the_process() {
    let stage = Stage::new(function("exit"));
    let Err(InvokeError::Function { error_type, message }) = stage.functions.probe("f").await else {
        panic!("expected a function error from a process that exits during init");
    };
    assert_eq!(error_type, "Runtime.ExitError");
    assert_eq!(
        without_request_id(&message),
        "RequestId: … Error: Runtime exited with error: exit status 3\nstarting: exit\nno table is configured"
    );
    assert!(stage.log.lines("f").contains(&"no table is configured".to_owned()));
}

#[tokio::test]
async fn init_error_is_reported_with_the_type_and_message_of_the_runtime() {
    let stage = Stage::new(function("error"));
    let error = stage.error(json!({ "do": "pid" })).await;
    assert_eq!(error, ("Function.NoTable".to_owned(), "no table is configured".to_owned()));
}

#[tokio::test]
async fn process_that_exceeds_the_init_timeout_fails_its_invocation() {
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
async fn program_that_cannot_be_executed_is_reported_with_its_path() {
    let stage = Stage::new(FunctionConfig::new("f", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    let (error_type, message) = stage.error(json!({})).await;
    assert_eq!(error_type, "Runtime.InvalidEntrypoint");
    assert!(message.contains("/Cargo.toml: ") && message.contains("ermission denied"), "{message}");
}

#[tokio::test]
async fn unknown_functions_and_duplicate_function_names_are_rejected() {
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
async fn first_invocation_after_a_probe_reuses_the_probed_environment() {
    let stage = Stage::new(function("normal"));
    stage.functions.probe("f").await.unwrap();
    stage.functions.probe("f").await.unwrap();
    stage.pid().await;
    let starts = stage.log.lines("f").iter().filter(|line| line.starts_with("starting")).count();
    assert_eq!(starts, 1);
}

#[tokio::test]
async fn concurrent_invocations_use_separate_environments_and_the_last_used_one_is_reused() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    let (event, release) = (rendezvous.event("wait"), async {
        let (first, second) = (rendezvous.accept().await, rendezvous.accept().await);
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
async fn busy_environment_is_not_reused_until_it_asks_for_the_next_event() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    let lingering = stage.invoke(rendezvous.event("reply then wait")).await.unwrap();
    let process = rendezvous.accept().await;
    assert_eq!(process.pid, lingering);
    let other = stage.pid().await;
    assert_ne!(other, lingering);
    drop(process);
    // The lingering environment is now at the bottom of the stack of idle environments. Each invocation ends
    // the environment at the top, until the lingering environment is reused.
    while stage.invoke(json!({ "do": "reply then exit" })).await.unwrap() != lingering {}
}

#[tokio::test]
async fn invocation_above_the_reserved_concurrency_is_throttled() {
    let mut config = function("normal");
    config.reserved_concurrency = Some(1);
    assert_second_concurrent_invocation_is_throttled(Stage::new(config)).await;
}

#[tokio::test]
async fn invocation_above_the_account_concurrency_is_throttled() {
    assert_eq!(Options::default().account_concurrency, 1_000);
    let options = Options { account_concurrency: 1, ..Options::default() };
    assert_second_concurrent_invocation_is_throttled(Stage::with(function("normal"), options)).await;
}

async fn assert_second_concurrent_invocation_is_throttled(stage: Stage) {
    let rendezvous = Rendezvous::new().await;
    let second = async {
        let first = rendezvous.accept().await;
        let error = stage.invoke(json!({ "do": "pid" })).await.unwrap_err();
        assert_eq!(error, InvokeError::Throttled);
        first.pid.clone()
    };
    let (first, pid) = tokio::join!(stage.invoke(rendezvous.event("wait")), second);
    assert_eq!(first.unwrap(), pid);
    assert_eq!(stage.pid().await, pid, "the environment is free after the first invocation");
}

#[tokio::test]
async fn abandoned_invocation_runs_to_its_end_and_then_frees_its_environment() {
    let mut config = function("normal");
    config.reserved_concurrency = Some(1);
    let (stage, rendezvous) = (Stage::new(config), Rendezvous::new().await);
    let process = tokio::select! {
        biased;
        process = rendezvous.accept() => process,
        reply = stage.invoke(rendezvous.event("wait")) => panic!("invocation ended before its release: {reply:?}"),
    };
    assert_eq!(
        stage.invoke(json!({ "do": "pid" })).await,
        Err(InvokeError::Throttled),
        "the abandoned invocation still occupies the reserved concurrency"
    );
    let pid = process.pid.clone();
    drop(process);
    let reused = loop {
        match stage.invoke(json!({ "do": "pid" })).await {
            Err(InvokeError::Throttled) => tokio::task::yield_now().await,
            reply => break reply,
        }
    };
    assert_eq!(reused, Ok(pid));
}

#[tokio::test]
async fn shutdown_terminates_idle_and_running_function_processes() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    let lingering = stage.invoke(rendezvous.event("reply then wait")).await.unwrap();
    let idle = rendezvous.accept().await;
    assert_eq!(idle.pid, lingering);
    let shutdown = async {
        let running = rendezvous.accept().await;
        stage.functions.shutdown().await;
        running.wait_for_exit().await;
        idle.wait_for_exit().await;
    };
    let (error, ()) = tokio::join!(stage.error(rendezvous.event("wait")), shutdown);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: terminated");
    assert_eq!(stage.invoke(json!({ "do": "pid" })).await, Err(InvokeError::Throttled));
}

#[tokio::test]
async fn process_that_ignores_sigterm_is_killed_at_shutdown() {
    let mut config = function("normal");
    config.environment.insert("IGNORE_TERM".to_owned(), "1".to_owned());
    let options = Options { shutdown: Duration::from_millis(200), ..Options::default() };
    let (stage, rendezvous) = (Stage::with(config, options), Rendezvous::new().await);
    let shutdown = async {
        let running = rendezvous.accept().await;
        stage.functions.shutdown().await;
        running.wait_for_exit().await;
    };
    let (error, ()) = tokio::join!(stage.error(rendezvous.event("wait")), shutdown);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
}

#[tokio::test]
async fn dropping_the_functions_ends_their_processes() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    stage.invoke(rendezvous.event("reply then wait")).await.unwrap();
    let process = rendezvous.accept().await;
    drop(stage);
    process.wait_for_exit().await;
}

#[tokio::test]
async fn function_built_with_the_lambda_runtime_crate_runs_in_the_fake() {
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
async fn stdout_and_stderr_of_a_function_reach_the_log_under_its_name() {
    let stage = Stage::new(function("normal"));
    stage.invoke(json!({ "do": "print", "out": "to the output", "err": "to the error" })).await.unwrap();
    assert_eq!(stage.log.wait_for("f", "to the output").await, "to the output");
    assert_eq!(stage.log.wait_for("f", "to the error").await, "to the error");
}

#[tokio::test]
async fn kill_ends_the_idle_and_the_running_processes_of_a_function() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    stage.invoke(rendezvous.event("reply then wait")).await.unwrap();
    let idle = rendezvous.accept().await;
    let kill = async {
        let running = rendezvous.accept().await;
        assert_eq!(stage.functions.kill("f"), Ok(2));
        running.wait_for_exit().await;
        idle.wait_for_exit().await;
    };
    let (error, ()) = tokio::join!(stage.error(rendezvous.event("wait")), kill);
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
    assert_eq!(stage.functions.kill("f"), Ok(0));
    assert_eq!(stage.functions.kill("g"), Err(InvokeError::NotFound("g".to_owned())));
    stage.pid().await;
}

#[tokio::test]
async fn process_killed_by_a_fault_is_replaced() {
    let faults = Faults::default();
    let options = Options { faults: faults.clone(), ..Options::default() };
    let stage = Stage::with(function("normal"), options);
    let before = stage.pid().await;
    let _killed = faults.add(Fault::kill(Call::invoke("f")).times(1));
    let rendezvous = Rendezvous::new().await;
    let error = stage.error(rendezvous.event("wait")).await;
    assert_eq!(error.1, "RequestId: … Error: Runtime exited with error: signal: killed");
    assert_ne!(stage.pid().await, before);
}

/// Reads from a process that sends bytes periodically, until no byte arrives for 300 ms, which means that the
/// process is frozen.
async fn wait_for_freeze(stream: &mut BufReader<TcpStream>) {
    let mut bytes = [0; 1_024];
    let silence = async {
        while let Ok(read) = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut bytes)).await {
            assert_ne!(read.unwrap(), 0, "the process does not close its connection");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), silence).await.expect("the process is frozen within 20 s");
}

#[tokio::test]
async fn background_task_of_a_function_is_frozen_until_the_next_event() {
    let (stage, rendezvous) = (Stage::new(function("normal")), Rendezvous::new().await);
    let pid = stage.invoke(rendezvous.event("tick")).await.unwrap();
    let mut process = rendezvous.accept().await;
    wait_for_freeze(&mut process.stream).await;
    let (reply, ticked) = tokio::join!(stage.invoke(rendezvous.event("wait")), async {
        let again = rendezvous.accept().await;
        let ticked = process.stream.read(&mut [0]).await.unwrap();
        drop(again);
        ticked
    });
    assert_eq!(
        (reply.unwrap(), ticked),
        (pid, 1),
        "the next event resumes the process and its background task"
    );
    wait_for_freeze(&mut process.stream).await;
    stage.functions.shutdown().await;
    process.discard_until_exit().await;
}

#[tokio::test]
async fn background_task_of_a_function_continues_between_events_if_freeze_is_off() {
    let options = Options { freeze: false, ..Options::default() };
    let (stage, rendezvous) = (Stage::with(function("normal"), options), Rendezvous::new().await);
    stage.invoke(rendezvous.event("tick")).await.unwrap();
    let mut process = rendezvous.accept().await;
    let mut ticks = vec![0; 1_000];
    process.stream.read_exact(&mut ticks).await.unwrap();
}

#[tokio::test]
async fn idle_process_is_ended_after_the_idle_timeout() {
    assert_eq!(Options::default().idle_timeout, Some(Duration::from_mins(10)));
    let options = Options { idle_timeout: Some(Duration::from_millis(100)), ..Options::default() };
    let (stage, rendezvous) = (Stage::with(function("normal"), options), Rendezvous::new().await);
    stage.invoke(rendezvous.event("tick")).await.unwrap();
    rendezvous.accept().await.discard_until_exit().await;
    assert_eq!(stage.functions.kill("f"), Ok(0));
}
