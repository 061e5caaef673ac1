//! Open WebSockets: how many the real stage holds, and what each costs it.
//!
//! Unlike the other benches this one measures a whole process once: `streamer local`, built as this bench is, holds
//! connections whose other ends are here. Each is opened through the real `$connect` function, no faster than API
//! Gateway lets it. With `--test` there are few.

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

/// API Gateway's rate is 500 new connections a second: a little below, so that none is refused.
const CONNECTIONS_PER_SECOND: u32 = 480;
/// How many are being opened at once. Each keeps one environment of the `$connect` function busy.
const OPENING: usize = 16;
/// In all; a process may have 20,000 files open on the machine that this was written on.
const CONNECTIONS: usize = 10_000;
const CONNECTIONS_OF_A_TEST: usize = 20;
/// How many of them make a round trip in the end.
const SAMPLE: usize = 200;
/// How long the stage may take to start, once it is built.
const START: Duration = Duration::from_secs(120);
/// How long opening all connections may take: well below the ten minutes after which idle ones are closed.
const OPEN: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| !argument.starts_with("--") && !"connections".contains(argument.as_str()))
    {
        // Someone wants to run a bench of another name.
        return ExitCode::SUCCESS;
    }
    let connections = if arguments.iter().any(|argument| argument == "--test") {
        CONNECTIONS_OF_A_TEST
    } else {
        CONNECTIONS
    };
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
        let ended = stage.end().await;
        // What went wrong first is what is to be told.
        measured.and(ended)
    })
}

async fn measure(stage: &Stage, connections: usize) -> Result<(), Failure> {
    // What is allocated once, and not for each connection, is there from now on.
    let mut first = open(&stage.url).await?;
    round_trip(&mut first, 0).await?;
    let before = stage.resident();
    let started = Instant::now();
    let mut sockets = timeout(OPEN, open_all(&stage.url, connections))
        .await
        .map_err(|_| format!("{connections} connections were not open within {OPEN:?}"))??;
    let took = started.elapsed();
    println!(
        "connections: {} open after {:.1} s ({:.0} a second)",
        sockets.len(),
        took.as_secs_f64(),
        per_second(sockets.len(), took)
    );
    match before.zip(stage.resident()) {
        Some((before, after)) => println!(
            "connections: the stage's memory went from {before} to {after} KiB: {:.1} KiB a connection",
            per_one(after.saturating_sub(before), sockets.len())
        ),
        None => println!("connections: the stage's memory cannot be read on this system"),
    }
    let step = (sockets.len() / SAMPLE).max(1);
    let mut trips = Vec::new();
    for (n, socket) in sockets.iter_mut().enumerate().step_by(step) {
        let sent = Instant::now();
        round_trip(socket, n).await?;
        trips.push(sent.elapsed());
    }
    trips.sort_unstable();
    let at = |percent: usize| trips[(trips.len() - 1) * percent / 100];
    println!(
        "connections: a round trip through each of {}: {:?} in the middle, {:?} at 95 %, {:?} at most",
        trips.len(),
        at(50),
        at(95),
        at(100)
    );
    round_trip(&mut first, connections).await
}

/// Opens connections at the rate at which API Gateway takes them, if the stage keeps up.
async fn open_all(url: &str, connections: usize) -> Result<Vec<Socket>, Failure> {
    let mut pace = interval(Duration::from_secs(1) / CONNECTIONS_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        pace.tick().await;
        let permit = Arc::clone(&opening).acquire_owned().await?;
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
    // Of its default of 128 KiB most would lie idle here.
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let opened = timeout(PATIENCE, connect_async_with_config(url, Some(config), true)).await?;
    match opened {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            Err(format!("a handshake was answered with {}", answer.status()).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// One quick request and its response.
async fn round_trip(socket: &mut Socket, n: usize) -> Result<(), Failure> {
    let id = format!("r{n}");
    let request = json!({ "action": "echo", "id": id, "payload": { "message": "hello" } });
    socket.send(Message::text(request.to_string())).await?;
    let frame = timeout(PATIENCE, socket.next()).await?.ok_or("a connection was closed")??.into_text()?;
    let response: Value = serde_json::from_str(&frame)?;
    if response["request_id"] == id.as_str() && response["success"] == true {
        Ok(())
    } else {
        Err(format!("the response to {id} is {frame}").into())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a figure with one digit behind the point")]
fn per_one(kibibytes: u64, n: usize) -> f64 {
    kibibytes as f64 / n.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "for a figure without digits behind the point")]
fn per_second(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

/// Builds the `streamer` command, optimised if this bench is, and tells where it is. The functions are built with it, so
/// that the stage has nothing left to build when it starts.
fn build() -> Result<PathBuf, Failure> {
    let workspace = Workspace::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let built = workspace.build(&["streamer", "connect", "disconnect", "router", "processor"])?;
    Ok(built.path("streamer")?.to_owned())
}

/// `streamer local` in a process of its own.
struct Stage {
    process: Child,
    url: String,
}

impl Stage {
    async fn start(program: &Path) -> Result<Self, Failure> {
        let ready_file =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("connections-{}.json", std::process::id()));
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
        // When it ends, it warns of each `$disconnect` that it did not wait for.
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
        // It removes the file itself when it ends.
        let ready = async {
            while !ready_file.exists() {
                if let Some(status) = stage.process.try_wait()? {
                    return Err(format!("the stage ended with {status}").into());
                }
                sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>(())
        };
        let ready =
            timeout(START, ready).await.map_err(|_| format!("the stage was not ready within {START:?}"));
        if let Err(error) = ready.map_err(Failure::from).flatten() {
            // What kept it from starting says more than how it ends.
            let _ = stage.end().await;
            return Err(error);
        }
        let ready: Value = serde_json::from_slice(&fs::read(&ready_file)?)?;
        let (ws_url, token) = (ready["ws_url"].as_str(), ready["token"].as_str());
        let (ws_url, token) = ws_url.zip(token).ok_or("the ready file names no URL and token")?;
        stage.url = format!("{ws_url}?token={token}");
        Ok(stage)
    }

    /// The memory that is resident, in KiB, where the system tells it as Linux does.
    fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Has the stage end in order, which ends its functions' processes as well.
    async fn end(mut self) -> Result<(), Failure> {
        Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        let ended = async {
            while self.process.try_wait()?.is_none() {
                sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>(())
        };
        if let Ok(ended) = timeout(PATIENCE, ended).await {
            return ended;
        }
        Err(format!("the stage did not end within {PATIENCE:?}").into())
    }
}

impl Drop for Stage {
    /// Whatever went wrong, the stage's process does not outlive the bench; one that has ended is left alone.
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
