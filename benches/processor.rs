//! The processor's batch path: from the records of a stream to requests that have ended and been told.
//!
//! `processor_on_dynamodb` runs it over the real queue on the harness's DynamoDB, in process: what a batch costs
//! all told, database included. `processor_alone` runs the same batches over a queue that answers at once: the
//! part of it that is the processor's own. In both the handler returns its input and the client takes every
//! frame, so that neither is what is measured.

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
    Abandoned, Audience, Cancelled, ClaimRequests, Claimed, Delivery, Enqueued, LastReport, Lease, NewStatus,
    Page, PageRequest, PastAttempt, Progress, ReadRequests, Request, RequestQueue, RequestSummary,
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
            // Custom, since the setup awaits; each sample has a database of its own, or later ones would be slower.
            bencher.to_async(&runtimes.processor).iter_custom(async |iterations| {
                let requests = requests(size * count(iterations));
                let database = Database::holding(&table, &requests).await;
                let batches = database.batches(size);
                let queue = database.queue.clone();
                let (took, frames) = process(queue, batches, runtimes.handlers()).await;
                assert_eq!(frames, requests.len(), "each request has one frame: its end");
                assert_eq!(database.completed(&requests).await, requests.len(), "each request has completed");
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
        // The records are real ones here too, as DynamoDB's stream shows the same requests.
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
                assert_eq!(frames, expected, "each request has one frame: its end");
                assert_eq!(completed.load(Ordering::Relaxed), expected, "each request has completed");
                took
            });
        });
    }
    group.finish();
}

/// Processes the batches one after the other, and returns how long that took and how many frames were sent.
async fn process(queue: impl RequestQueue, batches: Vec<StreamBatch>, handlers: Handle) -> (Duration, usize) {
    let frames = Arc::new(AtomicUsize::new(0));
    let connections = Listeners(Arc::clone(&frames));
    let executor = Executor {
        app: app(),
        queue,
        connections,
        dead_letters: Nowhere,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        handler_runtime: HandlerRuntime::on(handlers),
        settings: ExecutorSettings::default(),
    };
    let processor = Processor::new(executor, Nowhere, ProcessorSettings::default());
    let deadline = SystemClock.now() + Duration::from_mins(15);
    let mut took = Duration::ZERO;
    for batch in batches {
        let started = Instant::now();
        let answer = processor.process(batch, deadline).await;
        took += started.elapsed();
        assert_eq!(answer, BatchResponse::default(), "no record comes again");
    }
    (took, frames.load(Ordering::Relaxed))
}

fn app() -> Arc<App> {
    let mut app = App::new();
    app.handle("echo", handler_fn(|input: Value, _: Context| async move { Ok(input) }))
        .expect("`echo` is no built-in action, and is registered once");
    Arc::new(app)
}

/// As in the function: the processor on one thread, its handlers on others.
struct Runtimes {
    processor: Runtime,
    handlers: Runtime,
}

impl Runtimes {
    fn new() -> Self {
        Self {
            processor: Builder::new_current_thread().enable_all().build().expect("a runtime"),
            handlers: Builder::new_multi_thread().enable_all().build().expect("a runtime"),
        }
    }

    fn handlers(&self) -> Handle {
        self.handlers.handle().clone()
    }
}

fn count(iterations: u64) -> usize {
    usize::try_from(iterations).expect("an iteration count fits into memory")
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

/// The table as it is deployed: its indexes and its stream are part of what a write costs.
fn requests_table() -> Table {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
    let mut environment = Environment::default();
    environment.parameters.insert("JwtKey".to_owned(), "not used here".to_owned());
    let tables = Template::load(&template, &environment).expect("the template that deploys").tables;
    tables.into_iter().find(|table| table.logical_id == "RequestsTable").expect("a table of requests")
}

struct Database {
    dynamodb: DynamoDb,
    table: String,
    queue: DynamoRequestQueue,
}

impl Database {
    async fn holding(table: &Table, requests: &[Request]) -> Self {
        let dynamodb = DynamoDb::builder().in_memory().expect("a database in memory");
        create_tables(&dynamodb, slice::from_ref(table)).expect("the template's table");
        let queue = DynamoRequestQueue::new(dynamodb.client(), &table.name, QueueSettings::default());
        for request in requests {
            let enqueued = queue.enqueue(request).await.expect("the database takes a request");
            assert_eq!(enqueued, Enqueued::New);
        }
        Self { dynamodb, table: table.name.clone(), queue }
    }

    /// All records of the table's stream, in batches as the event source mapping hands them over.
    fn batches(&self, size: usize) -> Vec<StreamBatch> {
        let streams = self.dynamodb.streams();
        let stream = streams.latest_stream_arn(&self.table).expect("the table has a stream");
        let shards = streams.shards(&stream).expect("the stream has shards");
        let read = |shard| streams.read(&stream, shard, None, usize::MAX).expect("a shard can be read");
        let records: Vec<Value> =
            shards.iter().flat_map(read).map(|record| record.to_event_record()).collect();
        let batch = |records| serde_json::from_value(json!({ "Records": records })).expect("a batch");
        records.chunks(size).map(batch).collect()
    }

    async fn completed(&self, requests: &[Request]) -> usize {
        let mut completed = 0;
        for request in requests {
            let found = self.queue.get(&request.key()).await.expect("the database answers");
            completed += usize::from(found.is_some_and(|found| found.status == Status::Completed));
        }
        completed
    }
}

/// Clients that take every frame at once.
struct Listeners(Arc<AtomicUsize>);

impl Connections for Listeners {
    async fn send(&self, _: &ConnectionId, frame: &str) -> Result<(), SendError> {
        assert!(frame.starts_with(r#"{"type":"complete""#), "{frame}");
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Neither dead letters nor a worker: nothing here fails, or takes long.
struct Nowhere;

impl DeadLetters for Nowhere {
    async fn send(&self, letter: &DeadLetter) -> Result<(), ServiceError> {
        unreachable!("{} has failed", letter.id)
    }
}

impl WorkerDispatch for Nowhere {
    async fn dispatch(&self, key: &RequestKey) -> Result<(), ServiceError> {
        unreachable!("{key} is handed over")
    }
}

/// A queue that grants everything at once, and remembers nothing but how many requests it saw complete.
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
        let listens =
            |connection: &ConnectionId| Subscriber { connection: connection.clone(), seen: Seq::default() };
        Audience {
            subscribers: subscribers.map(listens).collect(),
            cancel_requested: false,
            parts_released: true,
        }
    }
}

const NOT_ASKED_FOR: &str = "the processor asks a queue for no more than its attempts need";

impl SubmitRequests for ImmediateQueue {
    async fn enqueue(&self, _: &Request) -> Result<Enqueued, StoreError> {
        Ok(Enqueued::New)
    }

    async fn cancel(&self, _: &RequestKey, _: Timestamp) -> Result<Cancelled, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn cancel_unless_subscribed(
        &self,
        _: &RequestKey,
        _: &ConnectionId,
        _: Timestamp,
    ) -> Result<Cancelled, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn record_redrive(&self, _: &RequestKey, _: u64, _: &RequestId) -> Result<(), StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
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
        unreachable!("{NOT_ASKED_FOR}")
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
        unreachable!("{NOT_ASKED_FOR}")
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
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn continue_later(
        &self,
        _: &RequestKey,
        _: &Lease,
        _: &LastReport,
    ) -> Result<Audience, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }
}

impl SweepRequests for ImmediateQueue {
    async fn nudge(&self, _: &RequestSummary, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn postpone(&self, _: &RequestKey, _: Timestamp, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn take_back(
        &self,
        _: &RequestSummary,
        _: &Abandoned,
        _: &[PastAttempt],
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn update_status(
        &self,
        _: &RequestKey,
        _: Status,
        _: NewStatus,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
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
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn unsubscribe(&self, _: &RequestKey, _: &ConnectionId) -> Result<(), StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
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
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn get_by_status(&self, _: Status, _: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }

    async fn due(&self, _: Timestamp, _: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        unreachable!("{NOT_ASKED_FOR}")
    }
}
