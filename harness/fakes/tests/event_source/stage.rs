//! Test fixtures: a stream in memory, a function that calls a closure, and a run of an event source mapping with
//! both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use streamer::ports::{Entropy, Timestamp, TokioClock};
use streamer_fakes::event_source::{
    EventSourceMapping, FailureRecord, OnFailure, Ports, Record, RecordSource, Settings, SettingsError,
    Shard, SourceError,
};
use streamer_fakes::faults::Faults;
use streamer_fakes::lambda::{Invocation, Invoke, InvokeError};
use streamer_fakes::watch;
use tokio::time::{Instant, sleep};

pub(crate) const STREAM: &str =
    "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-03-01T00:00:00.000";
pub(crate) const START: Timestamp = Timestamp::from_secs(1_772_323_200);

/// Entropy source that fills each buffer with the next number, so that ids are predictable.
#[derive(Debug)]
struct CountingEntropy(AtomicU8);

impl Entropy for CountingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

/// Stream in memory, with the checkpoints of one event source mapping.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    shards: Mutex<BTreeMap<String, Vec<Record>>>,
    /// Parent of each shard, and whether the shard is closed. A shard without an entry is open and has no parent.
    lineage: Mutex<BTreeMap<String, (Option<String>, bool)>>,
    checkpoints: Mutex<BTreeMap<String, String>>,
    /// If true, every operation of the stream fails.
    pub(crate) broken: AtomicBool,
    /// If true, the stream notifies the mapping of changes.
    pub(crate) reports_changes: AtomicBool,
    changes: watch::Sender<u64>,
    /// Number of calls that read records or list shards.
    pub(crate) polls: AtomicUsize,
    pub(crate) faults: Faults,
}

impl Stream {
    pub(crate) fn put(&self, shard: &str, number: u32, created: Timestamp) {
        self.put_item(shard, number, created, "item");
    }

    pub(crate) fn put_item(&self, shard: &str, number: u32, created: Timestamp, item: &str) {
        let sequence_number = number.to_string();
        let event = json!({
            "eventName": if number.is_multiple_of(2) { "INSERT" } else { "MODIFY" },
            "eventSourceARN": STREAM,
            "dynamodb": { "SequenceNumber": sequence_number, "Keys": { "id": { "S": item } } },
        });
        let record = Record { sequence_number, approximate_creation: created, event };
        self.shards.lock().unwrap().entry(shard.to_owned()).or_default().push(record);
        self.changed();
    }

    /// Adds an empty shard that is a child of `parent`.
    pub(crate) fn add_child(&self, parent: &str, child: &str) {
        self.shards.lock().unwrap().insert(child.to_owned(), Vec::new());
        self.lineage.lock().unwrap().insert(child.to_owned(), (Some(parent.to_owned()), false));
        self.changed();
    }

    /// Marks a shard as closed.
    pub(crate) fn close(&self, shard: &str) {
        self.lineage.lock().unwrap().entry(shard.to_owned()).or_default().1 = true;
        self.changed();
    }

    /// Removes a shard and its records.
    pub(crate) fn trim(&self, shard: &str) {
        self.shards.lock().unwrap().remove(shard);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn count_poll(&self) -> Result<(), SourceError> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.check()
    }

    fn check(&self) -> Result<(), SourceError> {
        if self.broken.load(Ordering::Relaxed) {
            Err(SourceError::new("the test makes every operation of the stream fail"))
        } else {
            Ok(())
        }
    }
}

impl RecordSource for Stream {
    fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.count_poll()?;
        let lineage = self.lineage.lock().unwrap();
        let shard = |id: &String| {
            let (parent, closed) = lineage.get(id).cloned().unwrap_or_default();
            Shard { id: id.clone(), parent, closed }
        };
        Ok(self.shards.lock().unwrap().keys().map(shard).collect())
    }

    fn read(&self, shard: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, SourceError> {
        self.count_poll()?;
        let after: u32 = after.map_or(0, |after| after.parse().unwrap());
        let shards = self.shards.lock().unwrap();
        let records = shards.get(shard).ok_or_else(|| SourceError::new("no such shard"))?;
        let unread = records.iter().filter(|record| record.sequence_number.parse::<u32>().unwrap() > after);
        Ok(unread.take(limit).cloned().collect())
    }

    fn latest(&self, shard: &str) -> Result<Option<String>, SourceError> {
        self.check()?;
        let shards = self.shards.lock().unwrap();
        Ok(shards[shard].last().map(|record| record.sequence_number.clone()))
    }

    fn checkpoint(&self, shard: &str) -> Result<Option<String>, SourceError> {
        self.check()?;
        Ok(self.checkpoints.lock().unwrap().get(shard).cloned())
    }

    fn save_checkpoint(&self, shard: &str, sequence_number: &str) -> Result<(), SourceError> {
        self.check()?;
        self.checkpoints.lock().unwrap().insert(shard.to_owned(), sequence_number.to_owned());
        Ok(())
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.reports_changes.load(Ordering::Relaxed).then(|| self.changes.subscribe())
    }
}

pub(crate) type Reply = Result<Value, InvokeError>;

/// Function that replies with the result of a closure, and records the batches of its invocations.
struct Function<F> {
    start: Instant,
    /// For each invocation: the milliseconds since `start`, and the sequence numbers of the records in the batch.
    calls: Mutex<Vec<(u128, Vec<u32>)>>,
    /// Request id of each invocation, in the order of the invocations.
    ids: Mutex<Vec<String>>,
    /// Duration of each invocation.
    duration: Duration,
    reply: F,
}

impl<F> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl<F: Fn(&[u32], usize) -> Reply + Send + Sync> Invoke for Function<F> {
    fn invoke_as<'a>(&'a self, function: &'a str, request_id: String, payload: Bytes) -> Invocation<'a> {
        self.ids.lock().unwrap().push(request_id);
        self.invoke(function, payload)
    }

    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a> {
        assert_eq!(function, "processor");
        let event: Value = serde_json::from_slice(&payload).unwrap();
        let numbers = event["Records"].as_array().unwrap().iter();
        let numbers: Vec<u32> =
            numbers.map(|r| r["dynamodb"]["SequenceNumber"].as_str().unwrap().parse().unwrap()).collect();
        Box::pin(async move {
            let nth = {
                let mut calls = self.calls.lock().unwrap();
                calls.push((self.start.elapsed().as_millis(), numbers.clone()));
                calls.len()
            };
            sleep(self.duration).await;
            let reply = (self.reply)(&numbers, nth)?;
            Ok(Bytes::from(reply.to_string()))
        })
    }
}

#[derive(Debug, Default)]
struct Failures(Mutex<Vec<FailureRecord>>);

impl OnFailure for Failures {
    fn give_up(&self, record: FailureRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// Invocations and failure records of one run of a mapping.
pub(crate) struct Run {
    /// For each invocation: the milliseconds since the start of the run, and the sequence numbers in the batch.
    pub(crate) calls: Vec<(u128, Vec<u32>)>,
    /// Request id of each invocation, in the order of the invocations.
    pub(crate) ids: Vec<String>,
    pub(crate) failures: Vec<FailureRecord>,
}

impl Run {
    pub(crate) fn batches(&self) -> Vec<Vec<u32>> {
        self.calls.iter().map(|(_, batch)| batch.clone()).collect()
    }

    pub(crate) fn times(&self) -> Vec<u128> {
        self.calls.iter().map(|(at, _)| *at).collect()
    }
}

pub(crate) fn settings() -> Settings {
    Settings::new("uuid", "processor", "arn:processor")
}

/// Creates a stream with one shard, named `shard`, which contains records with the sequence numbers 1 to `last`.
pub(crate) fn stream(last: u32) -> Arc<Stream> {
    let stream = Stream::default();
    stream.shards.lock().unwrap().insert("shard".to_owned(), Vec::new());
    for number in 1..=last {
        stream.put("shard", number, START);
    }
    Arc::new(stream)
}

/// Runs a mapping for `secs` seconds of paused time, with a function that replies immediately.
pub(crate) async fn run<F>(settings: Settings, stream: &Arc<Stream>, secs: u64, reply: F) -> Run
where
    F: Fn(&[u32], usize) -> Reply + Send + Sync + 'static,
{
    run_slow(settings, stream, secs, Duration::ZERO, reply).await
}

/// Runs a mapping for `secs` seconds of paused time, with a function that takes `duration` for each invocation.
pub(crate) async fn run_slow<F>(
    settings: Settings,
    stream: &Arc<Stream>,
    secs: u64,
    duration: Duration,
    reply: F,
) -> Run
where
    F: Fn(&[u32], usize) -> Reply + Send + Sync + 'static,
{
    let start = Instant::now();
    let (calls, ids) = <(Mutex<_>, Mutex<_>)>::default();
    let function = Arc::new(Function { start, calls, ids, duration, reply });
    let failures = Arc::new(Failures::default());
    let ports = ports(stream, function.clone(), failures.clone());
    EventSourceMapping::new(settings, ports).unwrap().run(sleep(Duration::from_secs(secs))).await;
    Run {
        calls: function.calls.lock().unwrap().clone(),
        ids: function.ids.lock().unwrap().clone(),
        failures: failures.0.lock().unwrap().clone(),
    }
}

fn ports(stream: &Arc<Stream>, invoke: Arc<dyn Invoke>, on_failure: Arc<dyn OnFailure>) -> Ports {
    Ports {
        source: stream.clone(),
        invoke,
        on_failure,
        clock: Arc::new(TokioClock::starting_at(START)),
        entropy: Arc::new(CountingEntropy(AtomicU8::new(1))),
        faults: stream.faults.clone(),
    }
}

/// Creates a mapping without running it, to check its settings.
pub(crate) fn mapping(settings: Settings) -> Result<EventSourceMapping, SettingsError> {
    let (calls, ids) = <(Mutex<_>, Mutex<_>)>::default();
    let function = Function { start: Instant::now(), calls, ids, duration: Duration::ZERO, reply: succeed };
    EventSourceMapping::new(settings, ports(&stream(0), Arc::new(function), Arc::new(Failures::default())))
}

pub(crate) fn succeed(_: &[u32], _: usize) -> Reply {
    Ok(json!({}))
}

pub(crate) fn unhandled() -> Reply {
    Err(InvokeError::Function { error_type: "Runtime.ExitError".to_owned(), message: "gone".to_owned() })
}

pub(crate) fn failed_items(numbers: &[u32]) -> Reply {
    let failures: Vec<_> = numbers.iter().map(|n| json!({ "itemIdentifier": n.to_string() })).collect();
    Ok(json!({ "batchItemFailures": failures }))
}

pub(crate) fn checkpoint(stream: &Stream) -> Option<String> {
    stream.checkpoints.lock().unwrap().get("shard").cloned()
}
