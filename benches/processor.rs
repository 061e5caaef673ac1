//! Benchmark of the processor: the time from a batch of stream records to completed requests whose terminal
//! frames are delivered.
//!
//! `processor_on_dynamodb` uses the real request queue on the in-process DynamoDB fake, and measures the
//! whole cost of a batch, including the database. `processor_alone` processes the same batches with a stub of
//! the queue that answers immediately, and measures the cost of the processor itself. In both, the handler
//! returns its input and the connections accept every frame immediately, so neither affects the result.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use streamer::ServiceError;
use streamer::app::App;
use streamer::connections::{Connections, SendError};
use streamer::dead_letters::{DeadLetter, DeadLetters};
use streamer::executor::{Executor, ExecutorSettings};
use streamer::handler::{Context, HandlerRuntime, handler_fn};
use streamer::ids::{ConnectionId, RequestId, RequestKey};
use streamer::ports::{Clock as _, SystemClock, SystemEntropy, Timestamp};
use streamer::processor::{BatchResponse, Processor, ProcessorSettings, StreamBatch};
use streamer::protocol::{ErrorBody, Seq};
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer::store::{
    Audience, Cancelled, ClaimRequests, Claimed, Delivery, Enqueued, LastReport, Lease, NewStatus, Page,
    PageRequest, PastAttempt, Progress, ReadRequests, ReclaimVerdict, Request, RequestQueue, RequestSummary,
    RunRequests, Runner, Status, StoreError, SubmitRequests, SubscribeToRequests, Subscribed, Subscriber,
    SweepRequests,
};
use streamer::worker::dispatch::WorkerDispatch;
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::stage::create_tables;
use streamer_harness::template::{Environment, Table, Template};
use tokio::runtime::{Builder, Handle, Runtime};

const BATCH_SIZES: [usize; 3] = [1, 10, 100];

criterion_group!(benches, on_dynamodb, alone);
criterion_main!(benches);

fn on_dynamodb(criterion: &mut Criterion) {
    let runtimes = Runtimes::new();
    let table = requests_table();
    let mut group = criterion.benchmark_group("processor_on_dynamodb");
    for size in BATCH_SIZES {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            // `iter_custom`, because the setup is async. Each sample gets a new database, because a database
            // that fills up would slow the later samples.
            bencher.to_async(&runtimes.processor).iter_custom(async |iterations| {
                let requests = requests(size * count(iterations));
                let database = Database::holding(&table, &requests).await;
                let batches = database.batches(size);
                let queue = database.queue.clone();
                let (took, frames) = process(queue, batches, runtimes.handlers()).await;
                assert_eq!(
                    frames,
                    requests.len(),
                    "exactly one frame, the complete frame, is sent for each request"
                );
                assert_eq!(database.completed(&requests).await, requests.len(), "each request is completed");
                took
            });
        });
    }
    group.finish();
}

fn alone(criterion: &mut Criterion) {
    let runtimes = Runtimes::new();
    let table = requests_table();
    let mut group = criterion.benchmark_group("processor_alone");
    for size in BATCH_SIZES {
        let requests = requests(size);
        // These batches also come from the DynamoDB fake's stream, so that their records are realistic.
        let batches =
            runtimes.processor.block_on(async { Database::holding(&table, &requests).await.batches(size) });
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.to_async(&runtimes.processor).iter_custom(async |iterations| {
                let queue = ImmediateQueue::holding(&requests);
                let completed = Arc::clone(&queue.completed);
                let batches = batches.iter().cycle().take(count(iterations)).cloned().collect();
                let (took, frames) = process(queue, batches, runtimes.handlers()).await;
                let expected = size * count(iterations);
                assert_eq!(
                    frames, expected,
                    "exactly one frame, the complete frame, is sent for each request"
                );
                assert_eq!(completed.load(Ordering::Relaxed), expected, "each request is completed");
                took
            });
        });
    }
    group.finish();
}

/// Processes the batches one after the other, and returns the time and the number of frames sent.
async fn process(queue: impl RequestQueue, batches: Vec<StreamBatch>, handlers: Handle) -> (Duration, usize) {
    let frames = Arc::new(AtomicUsize::new(0));
    let connections = CountingConnections(Arc::clone(&frames));
    let executor = Executor {
        app: app(),
        queue,
        connections,
        dead_letters: Unused,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        handler_runtime: HandlerRuntime::on(handlers),
        settings: ExecutorSettings::default(),
    };
    let processor = Processor::new(executor, Unused, ProcessorSettings::default());
    let deadline = SystemClock.now() + Duration::from_mins(15);
    let mut took = Duration::ZERO;
    for batch in batches {
        let started = Instant::now();
        let answer = processor.process(batch, deadline).await;
        took += started.elapsed();
        assert_eq!(answer, BatchResponse::default(), "the processor reports no failed record");
    }
    (took, frames.load(Ordering::Relaxed))
}

fn app() -> Arc<App> {
    let mut app = App::new();
    app.handle("echo", handler_fn(|input: Value, _: Context| async move { Ok(input) }))
        .expect("`echo` is registered once, and is not a built-in action");
    Arc::new(app)
}

/// Two runtimes, as in the deployed function: one thread for the processor, and other threads for the handlers.
struct Runtimes {
    processor: Runtime,
    handlers: Runtime,
}

impl Runtimes {
    fn new() -> Self {
        Self {
            processor: Builder::new_current_thread().enable_all().build().expect("tokio starts a runtime"),
            handlers: Builder::new_multi_thread().enable_all().build().expect("tokio starts a runtime"),
        }
    }

    fn handlers(&self) -> Handle {
        self.handlers.handle().clone()
    }
}

fn count(iterations: u64) -> usize {
    usize::try_from(iterations).expect("an iteration count fits into usize")
}

fn requests(count: usize) -> Vec<Request> {
    let payload =
        json!({"customer": "c-1042", "lines": [{"article": "a-7", "quantity": 3}], "express": true});
    let request = |number| Request {
        metadata: BTreeMap::from([("client_version".to_owned(), "1.0.0".to_owned())]),
        max_attempts: 3,
        ..Request::new(
            format!("r-{number}").as_str().into(),
            "ann".into(),
            "acme".into(),
            "L0SM9cOFvHcCIhw=".into(),
            "echo",
            payload.clone(),
            SystemClock.now(),
        )
    };
    (0..count).map(request).collect()
}

/// Returns the deployed requests table. Its indexes and its stream are part of the cost of a write.
fn requests_table() -> Table {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
    let mut environment = Environment::default();
    environment.parameters.insert("JwtKey".to_owned(), "not used here".to_owned());
    let tables = Template::load(&template, &environment).expect("the deployed template is valid").tables;
    tables
        .into_iter()
        .find(|table| table.logical_id == "RequestsTable")
        .expect("the template has a RequestsTable")
}

struct Database {
    dynamodb: DynamoDb,
    table: String,
    queue: DynamoRequestQueue,
}

impl Database {
    /// Creates an in-memory database that holds these requests.
    async fn holding(table: &Table, requests: &[Request]) -> Self {
        let dynamodb = DynamoDb::builder().in_memory().expect("the in-memory database opens");
        create_tables(&dynamodb, slice::from_ref(table)).expect("the database creates the template's table");
        let queue = DynamoRequestQueue::new(dynamodb.client(), &table.name, QueueSettings::default());
        for request in requests {
            let enqueued = queue.enqueue(request).await.expect("the database stores the request");
            assert_eq!(enqueued, Enqueued::New);
        }
        Self { dynamodb, table: table.name.clone(), queue }
    }

    /// Returns all records of the table's stream, in batches with the shape of an event source mapping's
    /// events.
    fn batches(&self, size: usize) -> Vec<StreamBatch> {
        let streams = self.dynamodb.streams();
        let stream = streams.latest_stream_arn(&self.table).expect("the table has a stream");
        let shards = streams.shards(&stream).expect("the stream has shards");
        let read = |shard| streams.read(&stream, shard, None, usize::MAX).expect("a shard can be read");
        let records: Vec<Value> =
            shards.iter().flat_map(read).map(|record| record.to_event_record()).collect();
        let batch = |records| {
            serde_json::from_value(json!({ "Records": records }))
                .expect("the records have the shape of a batch")
        };
        records.chunks(size).map(batch).collect()
    }

    /// Returns how many of these requests have the status COMPLETED.
    async fn completed(&self, requests: &[Request]) -> usize {
        let mut completed = 0;
        for request in requests {
            let found = self.queue.get(&request.key()).await.expect("the database answers");
            completed += usize::from(found.is_some_and(|found| found.status == Status::Completed));
        }
        completed
    }
}

/// Stub of the connections port, which accepts every frame immediately and counts the frames.
struct CountingConnections(Arc<AtomicUsize>);

impl Connections for CountingConnections {
    async fn send(&self, _: &ConnectionId, frame: &str) -> Result<(), SendError> {
        assert!(frame.starts_with(r#"{"type":"complete""#), "{frame}");
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Stub of the dead-letter queue and of the dispatch to the worker. Every call panics, because in this bench
/// no request fails, and no request is long.
struct Unused;

impl DeadLetters for Unused {
    async fn send(&self, letter: &DeadLetter) -> Result<(), ServiceError> {
        unreachable!("no request fails in this bench, but a dead letter {} was sent", letter.id)
    }
}

impl WorkerDispatch for Unused {
    async fn dispatch(&self, key: &RequestKey) -> Result<(), ServiceError> {
        unreachable!("no request is dispatched in this bench, but {key} was")
    }
}

/// Stub of the request queue without a database. Every claim and write succeeds immediately, and only
/// completions are counted.
struct ImmediateQueue {
    requests: HashMap<RequestKey, Request>,
    completed: Arc<AtomicUsize>,
}

impl ImmediateQueue {
    fn holding(requests: &[Request]) -> Self {
        let requests = requests.iter().map(|request| (request.key(), request.clone())).collect();
        Self { requests, completed: Arc::default() }
    }

    fn audience(&self, key: &RequestKey) -> Audience {
        let subscribers = self.requests[key].subscribers.iter();
        let subscriber =
            |connection: &ConnectionId| Subscriber { connection: connection.clone(), seen: Seq::default() };
        Audience {
            subscribers: subscribers.map(subscriber).collect(),
            cancel_requested: false,
            part_ttls_set: true,
        }
    }
}

/// Panic message of the queue operations that this bench never calls.
const NOT_CALLED: &str = "the processor does not call this queue operation in this bench";

impl SubmitRequests for ImmediateQueue {
    async fn enqueue(&self, _: &Request) -> Result<Enqueued, StoreError> {
        Ok(Enqueued::New)
    }

    async fn cancel(&self, _: &RequestKey, _: Timestamp) -> Result<Cancelled, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn cancel_unless_subscribed(
        &self,
        _: &RequestKey,
        _: &ConnectionId,
        _: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn record_redrive(&self, _: &RequestKey, _: u64, _: &RequestId) -> Result<(), StoreError> {
        unreachable!("{NOT_CALLED}")
    }
}

impl ClaimRequests for ImmediateQueue {
    async fn claim(
        &self,
        key: &RequestKey,
        owner: &str,
        _: Runner,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Result<Claimed, StoreError> {
        let Some(request) = self.requests.get(key) else { return Ok(Claimed::Missing) };
        let lease = Lease { epoch: 1, owner: owner.to_owned(), expires_at: lease_end };
        let claimed = Request {
            status: Status::Processing,
            attempt: 1,
            epoch: 1,
            lease: Some(lease.clone()),
            started_at: Some(now),
            ..request.clone()
        };
        Ok(Claimed::Won(Box::new(claimed), lease))
    }

    async fn dequeue(&self, _: &str, _: Timestamp, _: Timestamp) -> Result<Option<Claimed>, StoreError> {
        unreachable!("{NOT_CALLED}")
    }
}

impl RunRequests for ImmediateQueue {
    async fn renew(&self, key: &RequestKey, _: &Lease, _: Timestamp) -> Result<Audience, StoreError> {
        Ok(self.audience(key))
    }

    async fn progress(
        &self,
        key: &RequestKey,
        _: &Lease,
        _: &Progress,
        _: Seq,
        _: Timestamp,
    ) -> Result<Audience, StoreError> {
        Ok(self.audience(key))
    }

    async fn checkpoint(
        &self,
        _: &RequestKey,
        _: &Lease,
        _: &Value,
        _: &Progress,
        _: Seq,
        _: Timestamp,
    ) -> Result<Audience, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn complete(
        &self,
        key: &RequestKey,
        _: &Lease,
        _: &Value,
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        self.completed.fetch_add(1, Ordering::Relaxed);
        Ok(self.audience(key))
    }

    async fn fail(
        &self,
        key: &RequestKey,
        _: &Lease,
        _: &ErrorBody,
        _: &[PastAttempt],
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        Ok(self.audience(key))
    }

    async fn confirm_cancel(
        &self,
        key: &RequestKey,
        _: &Lease,
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        Ok(self.audience(key))
    }

    async fn retry_later(
        &self,
        _: &RequestKey,
        _: &Lease,
        _: &[PastAttempt],
        _: Timestamp,
        _: Runner,
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn continue_later(
        &self,
        _: &RequestKey,
        _: &Lease,
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        unreachable!("{NOT_CALLED}")
    }
}

impl SweepRequests for ImmediateQueue {
    async fn nudge(&self, _: &RequestSummary, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn postpone(&self, _: &RequestKey, _: Timestamp, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn reclaim(
        &self,
        _: &RequestSummary,
        _: &ReclaimVerdict,
        _: &[PastAttempt],
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn update_status(
        &self,
        _: &RequestKey,
        _: Status,
        _: NewStatus,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        unreachable!("{NOT_CALLED}")
    }
}

impl SubscribeToRequests for ImmediateQueue {
    async fn subscribe(
        &self,
        _: &RequestKey,
        _: &ConnectionId,
        _: Seq,
        _: Timestamp,
    ) -> Result<Subscribed, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn unsubscribe(&self, _: &RequestKey, _: &ConnectionId) -> Result<(), StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn record_delivery(&self, _: &RequestKey, _: u64, _: Delivery<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl ReadRequests for ImmediateQueue {
    async fn get(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        Ok(self.requests.get(key).cloned())
    }

    async fn get_by_connection(
        &self,
        _: &ConnectionId,
        _: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn get_by_status(&self, _: Status, _: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        unreachable!("{NOT_CALLED}")
    }

    async fn due(&self, _: Timestamp, _: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        unreachable!("{NOT_CALLED}")
    }
}
