//! Tests of functions that run in the test's own process, on virtual time. The rules are the same as for functions
//! in separate processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use streamer::ports::{Timestamp, TokioClock};
use streamer_fakes::faults::{Call, Caller, Fault, Faults};
use streamer_fakes::lambda::{
    FunctionConfig, Functions, InProcess, InProcessEnvironment, InProcessEvent, Invocation, Invoke,
    InvokeError, Options, Starting,
};
use tokio::time::Instant;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_772_323_200);

/// In-process function that executes the commands in its events.
#[derive(Debug, Default)]
pub(crate) struct CommandFunction {
    /// Number of started environments.
    pub(crate) started: AtomicU32,
    /// Behavior of the init phase: `hang`, `panic` or `error`; any other value means success.
    pub(crate) start: &'static str,
}

#[derive(Debug)]
struct Environment {
    number: u32,
    caller: Caller,
    variables: BTreeMap<String, String>,
}

impl InProcess for CommandFunction {
    fn start(&self, caller: Caller, variables: BTreeMap<String, String>) -> Starting<'_> {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            match self.start {
                "hang" => std::future::pending().await,
                "panic" => panic!("no table is configured"),
                "error" => Err(function_error("Function.NoTable", "no table is configured")),
                _ => Ok(Box::new(Environment { number, caller, variables }) as Box<dyn InProcessEnvironment>),
            }
        })
    }
}

impl InProcessEnvironment for Environment {
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_> {
        Box::pin(async move {
            let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
            let reply = match payload["do"].as_str() {
                Some("wait") => {
                    tokio::time::sleep(Duration::from_secs(payload["seconds"].as_u64().unwrap())).await;
                    json!(self.number)
                }
                Some("panic") => panic!("no such format"),
                Some("fail") => return Err(function_error("ReportError", "no such format")),
                Some("kill itself") => {
                    self.caller.kill();
                    std::future::pending().await
                }
                Some("large") => {
                    let bytes = usize::try_from(payload["bytes"].as_u64().unwrap()).unwrap();
                    return Ok(Bytes::from(vec![b'1'; bytes]));
                }
                Some("describe") => json!({
                    "request_id": event.request_id,
                    "deadline": event.deadline.as_millis(),
                    "caller": self.caller.function(),
                    "trace": event.trace_id,
                    "variables": self.variables,
                }),
                _ => json!(self.number),
            };
            Ok(Bytes::from(reply.to_string()))
        })
    }
}

pub(crate) fn function_error(error_type: &str, message: &str) -> InvokeError {
    InvokeError::Function { error_type: error_type.to_owned(), message: message.to_owned() }
}

fn config(start: &'static str) -> FunctionConfig {
    FunctionConfig::in_process("f", Arc::new(CommandFunction { start, ..CommandFunction::default() }))
}

pub(crate) fn functions(config: FunctionConfig, options: Options) -> Functions {
    let options = Options { clock: Arc::new(TokioClock::starting_at(START)), ..options };
    Functions::new(vec![config], options).unwrap()
}

pub(crate) async fn invoke(functions: &Functions, event: Value) -> Result<Value, InvokeError> {
    let reply = functions.invoke_as("f", "r1".to_owned(), Bytes::from(event.to_string())).await?;
    Ok(serde_json::from_slice(&reply).unwrap())
}

fn exited(reason: &str) -> InvokeError {
    function_error("Runtime.ExitError", &format!("RequestId: r1 Error: Runtime exited with error: {reason}"))
}

fn timed_out(seconds: &str) -> InvokeError {
    let message = format!("RequestId: r1 Error: Task timed out after {seconds} seconds");
    function_error("Sandbox.Timedout", &message)
}

#[tokio::test(start_paused = true)]
async fn in_process_function_receives_its_request_id_and_deadline() {
    let functions = functions(config(""), Options::default());
    let reply = invoke(&functions, json!({ "do": "describe" })).await.unwrap();
    assert_eq!(reply["request_id"], "r1");
    assert_eq!(reply["deadline"], 1_772_323_203_000_u64);
    assert_eq!(reply["caller"], "f");
}

#[tokio::test(start_paused = true)]
async fn in_process_function_receives_the_environment_variables_of_aws() {
    let mut config = config("");
    config.environment.insert("TABLE".to_owned(), "requests".to_owned());
    let functions = functions(config, Options::default());
    let reply = invoke(&functions, json!({ "do": "describe" })).await.unwrap();
    let variables = &reply["variables"];
    for (name, expected) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
        ("AWS_REGION", "us-east-1"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("TABLE", "requests"),
    ] {
        assert_eq!(variables[name], expected, "{name}");
    }
    assert_eq!(variables["PATH"], Value::Null);
    assert_eq!(variables["AWS_LAMBDA_RUNTIME_API"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn in_process_environment_is_reused_and_runs_one_invocation_at_a_time() {
    let functions = functions(config(""), Options::default());
    functions.probe("f").await.unwrap();
    for _ in 0..3 {
        assert_eq!(invoke(&functions, json!({})).await, Ok(json!(1)));
    }
    let wait = || invoke(&functions, json!({ "do": "wait", "seconds": 1 }));
    let (one, two) = tokio::join!(wait(), wait());
    assert_eq!([one, two], [Ok(json!(1)), Ok(json!(2))]);
}

#[tokio::test(start_paused = true)]
async fn in_process_init_times_out_after_ten_seconds() {
    let functions = functions(config("hang"), Options::default());
    let began = Instant::now();
    assert_eq!(invoke(&functions, json!({})).await, Err(timed_out("10.00")));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn error_or_panic_during_in_process_init_fails_the_invocation() {
    let error = invoke(&functions(config("error"), Options::default()), json!({})).await;
    assert_eq!(error, Err(function_error("Function.NoTable", "no table is configured")));
    let error = invoke(&functions(config("panic"), Options::default()), json!({})).await;
    assert_eq!(error, Err(exited("exit status 101")));
}

#[tokio::test(start_paused = true)]
async fn in_process_environment_is_replaced_after_a_function_timeout() {
    let functions = functions(config(""), Options::default());
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(1)));
    let began = Instant::now();
    let late = invoke(&functions, json!({ "do": "wait", "seconds": 4 })).await;
    assert_eq!(late, Err(timed_out("3.00")));
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(2)));
}

#[tokio::test(start_paused = true)]
async fn in_process_environment_is_replaced_after_a_panic_or_kill_but_not_an_error() {
    let functions = functions(config(""), Options::default());
    let failed = invoke(&functions, json!({ "do": "fail" })).await;
    assert_eq!(failed, Err(function_error("ReportError", "no such format")));
    assert_eq!(invoke(&functions, json!({ "do": "panic" })).await, Err(exited("exit status 101")));
    assert_eq!(invoke(&functions, json!({ "do": "kill itself" })).await, Err(exited("signal: killed")));
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(3)));
    let running = invoke(&functions, json!({ "do": "wait", "seconds": 2 }));
    let (running, killed) = tokio::join!(running, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        functions.kill("f")
    });
    assert_eq!((running, killed), (Err(exited("signal: killed")), Ok(1)));
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(4)));
}

#[tokio::test(start_paused = true)]
async fn shutdown_terminates_running_in_process_invocations() {
    let functions = functions(config(""), Options::default());
    let running = invoke(&functions, json!({ "do": "wait", "seconds": 2 }));
    let (running, ()) = tokio::join!(running, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        functions.shutdown().await;
    });
    assert_eq!(running, Err(exited("signal: terminated")));
    assert_eq!(invoke(&functions, json!({})).await, Err(InvokeError::Throttled));
}

#[tokio::test(start_paused = true)]
async fn closing_the_functions_terminates_in_process_invocations_without_waiting() {
    let options = Options { idle_timeout: Some(Duration::MAX), ..Options::default() };
    let functions = functions(config(""), options);
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(1)),
        "the longest idle timeout does not overflow"
    );
    let running = invoke(&functions, json!({ "do": "wait", "seconds": 2 }));
    let (running, ()) = tokio::join!(running, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        functions.close();
    });
    assert_eq!(running, Err(exited("signal: terminated")));
}

#[tokio::test(start_paused = true)]
async fn in_process_invocation_above_the_reserved_concurrency_is_throttled() {
    let mut config = config("");
    config.reserved_concurrency = Some(1);
    let functions = functions(config, Options::default());
    let (one, two) = tokio::join!(
        invoke(&functions, json!({ "do": "wait", "seconds": 1 })),
        invoke(&functions, json!({}))
    );
    assert_eq!((one, two), (Ok(json!(1)), Err(InvokeError::Throttled)));
}

#[tokio::test(start_paused = true)]
async fn request_and_response_payloads_of_an_invocation_are_limited_to_6_mb() {
    let functions = functions(config(""), Options::default());
    let payload = |bytes: usize| Bytes::from(format!("{{}}{}", " ".repeat(bytes - 2)));
    assert!(functions.invoke("f", payload(6_291_456)).await.is_ok());
    let error = functions.invoke("f", payload(6_291_457)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "RequestTooLargeException: Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    );
    let reply = functions.invoke("f", Bytes::from(r#"{"do":"large","bytes":6291556}"#)).await;
    assert_eq!(reply.unwrap().len(), 6_291_556);
    let reply = functions.invoke("f", Bytes::from(r#"{"do":"large","bytes":6291557}"#)).await;
    let message = "Response payload size exceeded maximum allowed payload size (6291556 bytes).";
    assert_eq!(reply, Err(function_error("Function.ResponseSizeTooLarge", message)));
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(1)),
        "the environment is reused after a large response"
    );
}

#[tokio::test(start_paused = true)]
async fn invocation_is_throttled_failed_delayed_killed_or_left_unanswered_by_faults() {
    let faults = Faults::default();
    let functions = functions(config(""), Options { faults: faults.clone(), ..Options::default() });
    let call = || Call::invoke("f");
    let throttled = faults.add(Fault::throttle(call()));
    assert_eq!(invoke(&functions, json!({})).await, Err(InvokeError::Throttled));
    assert_eq!(throttled.hits(), 1);
    drop(throttled);
    let failing = faults.add(Fault::fail(call()));
    assert_eq!(invoke(&functions, json!({})).await, Err(exited("exit status 1")));
    drop(failing);
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(1)),
        "a throttled or failed invocation does not start an environment"
    );
    let failing = faults.add(Fault::fail_after_apply(call()));
    assert_eq!(invoke(&functions, json!({ "do": "panic" })).await, Err(InvokeError::Service));
    drop(failing);
    let delayed = faults.add(Fault::delay(call(), Duration::from_secs(5)));
    let began = Instant::now();
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(2)),
        "the panic has ended the first environment"
    );
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(delayed);
    let killed = faults.add(Fault::kill(call()));
    assert_eq!(invoke(&functions, json!({})).await, Err(exited("signal: killed")));
    drop(killed);
    let lost = faults.add(Fault::lose_answer(call()));
    let began = Instant::now();
    assert_eq!(invoke(&functions, json!({ "do": "panic" })).await, Err(InvokeError::Service));
    assert_eq!(
        began.elapsed().as_secs(),
        4,
        "the caller waits for the function's timeout of 3 s and 1 s more"
    );
    drop(lost);
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(4)),
        "the panic has ended the third environment"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_in_process_environment_is_ended_after_ten_minutes() {
    let functions = functions(config(""), Options::default());
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(1)));
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(
        invoke(&functions, json!({})).await,
        Ok(json!(1)),
        "an idle environment is reused before 10 min"
    );
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(functions.kill("f"), Ok(0));
    assert_eq!(invoke(&functions, json!({})).await, Ok(json!(2)));
}
