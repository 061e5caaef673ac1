//! A Lambda runtime for tests, which runs in a child process and executes the commands in its events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, exit};

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};

/// Environment variable that selects how the runtime in a child process starts; unset in the test run itself.
pub(crate) const START: &str = "CHILD_RUNTIME";

/// Main function of a child process. In the test run itself, where the variable [`START`] is not set, this test does
/// nothing.
#[test]
fn lambda_runtime_runs_only_in_a_child_process() {
    let Ok(start) = std::env::var(START) else { return };
    eprintln!("starting: {start}");
    let runtime = Runtime { api: std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap() };
    match &*start {
        "normal" => runtime.run(),
        "lambda_runtime" => run_lambda_runtime(),
        "exit" => {
            eprintln!("no table is configured");
            exit(3);
        }
        "error" => {
            let body = json!({ "errorType": "Function.NoTable", "errorMessage": "no table is configured" });
            let accepted = runtime.post("init/error", body.to_string().as_bytes());
            exit(if accepted == 202 { 1 } else { 99 });
        }
        "hang" => loop {
            std::thread::park();
        },
        other => panic!("unknown start: {other}"),
    }
}

/// Runs a function with the crate `lambda_runtime`, which deployed functions use.
fn run_lambda_runtime() {
    let handle = service_fn(|event: LambdaEvent<Value>| async move {
        match event.payload["fail"].as_str() {
            Some(message) => Err(std::io::Error::other(message.to_owned())),
            None => Ok(json!({
                "pid": std::process::id(),
                "deadline": event.context.deadline,
                "function": event.context.env_config.function_name,
                "echo": event.payload,
            })),
        }
    });
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(lambda_runtime::run(handle)).unwrap();
}

struct Runtime {
    api: String,
}

impl Runtime {
    fn run(&self) {
        let mut statuses = Vec::new();
        loop {
            let next = self.send("GET", "invocation/next", b"");
            let id = next.header("lambda-runtime-aws-request-id");
            let event: Value = serde_json::from_slice(&next.body).unwrap();
            let respond =
                |body: &Value| self.post(&format!("invocation/{id}/response"), body.to_string().as_bytes());
            let port = || u16::try_from(event["port"].as_u64().unwrap()).unwrap();
            let pid = json!(std::process::id());
            match event["do"].as_str().unwrap() {
                "pid" => assert_eq!(respond(&pid), 202),
                "describe" => {
                    let environment: std::collections::BTreeMap<_, _> = std::env::vars().collect();
                    let folder = std::env::current_dir().unwrap();
                    respond(
                        &json!({ "headers": next.headers, "environment": environment, "folder": folder }),
                    );
                }
                "print" => {
                    println!("{}", event["out"].as_str().unwrap());
                    eprintln!("{}", event["err"].as_str().unwrap());
                    respond(&pid);
                }
                "wait" => {
                    connect_and_wait(port());
                    respond(&pid);
                }
                "reply then wait" => {
                    respond(&pid);
                    connect_and_wait(port());
                }
                "tick" => {
                    let mut stream = connect(port());
                    std::thread::spawn(move || {
                        while stream.write_all(b".").is_ok() {
                            std::thread::park_timeout(std::time::Duration::from_millis(1));
                        }
                    });
                    respond(&pid);
                }
                "fail" => {
                    let body = json!({ "errorType": "ReportError", "errorMessage": "no such format", "stackTrace": [] });
                    self.post(&format!("invocation/{id}/error"), body.to_string().as_bytes());
                }
                "send invalid requests" => {
                    statuses.push(self.post("invocation/no-such-id/response", b"{}"));
                    statuses.push(self.post("invocation/no-such-id/error", b"{}"));
                    statuses.push(self.post("init/error", b"{}"));
                    statuses.push(self.send("GET", "nonsense", b"").status);
                    let again = self.send("GET", "invocation/next", b"");
                    assert_eq!(again.header("lambda-runtime-aws-request-id"), id);
                    statuses.push(respond(&pid));
                    statuses.push(respond(&pid));
                }
                "large" => {
                    let length = usize::try_from(event["bytes"].as_u64().unwrap()).unwrap();
                    statuses.push(self.post(&format!("invocation/{id}/response"), &vec![b'1'; length]));
                }
                "statuses" => {
                    respond(&json!(statuses));
                }
                "exit" => exit(i32::try_from(event["status"].as_i64().unwrap()).unwrap()),
                "reply then exit" => {
                    respond(&pid);
                    exit(1);
                }
                "kill itself" => {
                    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
                }
                other => panic!("unknown event: {other}"),
            }
        }
    }

    fn post(&self, path: &str, body: &[u8]) -> u16 {
        self.send("POST", path, body).status
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let Self { api } = self;
        let mut stream = TcpStream::connect(api).unwrap();
        let head = format!(
            "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }
}

/// Connects to the test, sends the process id, and waits until the test closes the connection.
fn connect_and_wait(port: u16) {
    let _ = connect(port).read(&mut [0]);
}

/// Connects to the test and sends the process id.
fn connect(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    writeln!(stream, "{}", std::process::id()).unwrap();
    stream
}

struct Answer {
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> String {
        self.headers[name].clone()
    }
}
