//! Benchmark of open WebSockets: the local stage holds 10,000 connections, and the bench prints the time to
//! open them, the memory per connection, and the time of a round trip.
//!
//! Unlike the other benches, this bench runs once, without criterion. The stage is a separate process,
//! `streamer local`, built with the same profile as the bench. Each connection is opened through the real
//! connect function, at a rate that API Gateway allows. With `--test`, the bench opens only 20 connections.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use streamer_harness::stage::Workspace;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Failure = Box<dyn Error + Send + Sync>;

/// Rate of new connections, a little below API Gateway's limit of 500 per second, so that no connection is
/// refused.
const CONNECTIONS_PER_SECOND: u32 = 480;
/// Maximum number of connections that are being opened at the same time. Each occupies one environment of the
/// connect function.
const CONCURRENT_OPENS: usize = 16;
/// Number of connections to open, each of which needs one file descriptor in the bench and one in the stage.
const CONNECTIONS: usize = 10_000;
/// Number of connections to open with `--test`.
const TEST_CONNECTIONS: usize = 20;
/// Approximate number of connections whose round trip is measured.
const SAMPLE: usize = 200;
/// Maximum time for the stage to start, after the build.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Maximum time to open all connections, well below the ten minutes after which API Gateway closes idle
/// connections.
const OPEN_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum wait for one connection to open, for one response, or for the stage to stop.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| !argument.starts_with("--") && !"connections".contains(argument.as_str()))
    {
        // The filter on the command line does not match the name of this bench, so there is nothing to run.
        return ExitCode::SUCCESS;
    }
    let connections =
        if arguments.iter().any(|argument| argument == "--test") { TEST_CONNECTIONS } else { CONNECTIONS };
    match run(connections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("connections: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(connections: usize) -> Result<(), Failure> {
    let program = build()?;
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let stage = Stage::start(&program).await?;
        let measured = measure(&stage, connections).await;
        let stopped = stage.stop().await;
        // If both the measurement and the stop failed, the error of the measurement is reported.
        measured.and(stopped)
    })
}

async fn measure(stage: &Stage, connections: usize) -> Result<(), Failure> {
    // A first connection and request make the stage allocate the memory that does not depend on the number of
    // connections.
    let mut first = open(&stage.url).await?;
    round_trip(&mut first, 0).await?;
    let before = stage.resident_kib();
    let started = Instant::now();
    let mut sockets = timeout(OPEN_TIMEOUT, open_all(&stage.url, connections))
        .await
        .map_err(|_| format!("fewer than {connections} connections were opened within {OPEN_TIMEOUT:?}"))??;
    let took = started.elapsed();
    println!(
        "connections: {} opened in {:.1} s ({:.0} per second)",
        sockets.len(),
        took.as_secs_f64(),
        per_second(sockets.len(), took)
    );
    match before.zip(stage.resident_kib()) {
        Some((before, after)) => println!(
            "connections: the stage's resident memory grew from {before} to {after} KiB ({:.1} KiB per connection)",
            per_connection(after.saturating_sub(before), sockets.len())
        ),
        None => println!("connections: the stage's resident memory cannot be read on this system"),
    }
    let step = (sockets.len() / SAMPLE).max(1);
    let mut trips = Vec::new();
    for (n, socket) in sockets.iter_mut().enumerate().step_by(step) {
        let sent = Instant::now();
        round_trip(socket, n).await?;
        trips.push(sent.elapsed());
    }
    trips.sort_unstable();
    let percentile = |percent: usize| trips[(trips.len() - 1) * percent / 100];
    println!(
        "connections: round trips of {} connections: median {:?}, p95 {:?}, max {:?}",
        trips.len(),
        percentile(50),
        percentile(95),
        percentile(100)
    );
    round_trip(&mut first, connections).await
}

/// Opens connections at `CONNECTIONS_PER_SECOND`, or more slowly if the stage does not keep up.
async fn open_all(url: &str, connections: usize) -> Result<Vec<Socket>, Failure> {
    let mut pace = interval(Duration::from_secs(1) / CONNECTIONS_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let opens = Arc::new(Semaphore::new(CONCURRENT_OPENS));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        pace.tick().await;
        let permit = Arc::clone(&opens).acquire_owned().await?;
        let url = url.to_owned();
        tasks.spawn(async move {
            let socket = open(&url).await;
            drop(permit);
            socket
        });
    }
    let mut sockets = Vec::with_capacity(connections);
    while let Some(socket) = tasks.join_next().await {
        sockets.push(socket??);
    }
    Ok(sockets)
}

async fn open(url: &str) -> Result<Socket, Failure> {
    // The default read buffer of 128 KiB per connection would waste memory, because the frames are small.
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let opened = timeout(STEP_TIMEOUT, connect_async_with_config(url, Some(config), true)).await?;
    match opened {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            Err(format!("WebSocket upgrade refused with HTTP {}", answer.status()).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends one quick request, and checks its response.
async fn round_trip(socket: &mut Socket, n: usize) -> Result<(), Failure> {
    let id = format!("r{n}");
    let request = json!({ "action": "echo", "id": id, "payload": { "message": "hello" } });
    socket.send(Message::text(request.to_string())).await?;
    let frame = timeout(STEP_TIMEOUT, socket.next())
        .await?
        .ok_or("connection closed before the response")??
        .into_text()?;
    let response: Value = serde_json::from_str(&frame)?;
    if response["request_id"] == id.as_str() && response["success"] == true {
        Ok(())
    } else {
        Err(format!("unexpected response to request {id}: {frame}").into())
    }
}

#[expect(clippy::cast_precision_loss, reason = "the result is printed with one decimal place")]
fn per_connection(kibibytes: u64, n: usize) -> f64 {
    kibibytes as f64 / n.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "the result is printed without decimal places")]
fn per_second(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

/// Builds the `streamer` command with the profile of this bench, and returns its path. The functions are built
/// too, so that the stage has nothing to build when it starts.
fn build() -> Result<PathBuf, Failure> {
    let workspace = Workspace::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let built = workspace.build(&["streamer", "connect", "disconnect", "router", "processor"])?;
    Ok(built.path("streamer")?.to_owned())
}

/// A running `streamer local`, as a separate process.
struct Stage {
    process: Child,
    /// WebSocket URL, with a token in its query.
    url: String,
}

impl Stage {
    async fn start(program: &Path) -> Result<Self, Failure> {
        let ready_file =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("connections-{}.json", std::process::id()));
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
        // The stage logs to a file, so that it does not fill the terminal: when it stops, it warns of each
        // `$disconnect` event that it did not deliver.
        let log = ready_file.with_extension("log");
        println!("connections: the stage's log is {}", log.display());
        let process = Command::new(program)
            .args(["local", "--port", "0", "--template"])
            .arg(template)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(log)?)
            .spawn()?;
        let mut stage = Self { process, url: String::new() };
        // Each stage removes its ready file when it stops, so the file exists only while a stage is ready.
        let ready = async {
            while !ready_file.exists() {
                if let Some(status) = stage.process.try_wait()? {
                    return Err(format!("the stage exited with {status}").into());
                }
                sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>(())
        };
        let ready = timeout(START_TIMEOUT, ready)
            .await
            .map_err(|_| format!("the stage was not ready within {START_TIMEOUT:?}"));
        if let Err(error) = ready.map_err(Failure::from).flatten() {
            // If the stop fails too, its error is ignored, because the failed start is the cause.
            let _ = stage.stop().await;
            return Err(error);
        }
        let ready: Value = serde_json::from_slice(&fs::read(&ready_file)?)?;
        let (ws_url, token) = (ready["ws_url"].as_str(), ready["token"].as_str());
        let (ws_url, token) = ws_url.zip(token).ok_or("the ready file lacks ws_url or token")?;
        stage.url = format!("{ws_url}?token={token}");
        Ok(stage)
    }

    /// Returns the stage's resident memory in KiB, or `None` on a system without Linux's `/proc`.
    fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Stops the stage with SIGTERM, so that the stage also stops the processes of its functions.
    async fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        let exited = async {
            while self.process.try_wait()?.is_none() {
                sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>(())
        };
        if let Ok(exited) = timeout(STEP_TIMEOUT, exited).await {
            return exited;
        }
        Err(format!("the stage did not stop within {STEP_TIMEOUT:?}").into())
    }
}

impl Drop for Stage {
    /// Kills the stage's process if it is still running, so that it never outlives the bench.
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
