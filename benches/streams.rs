//! Benchmark of the DynamoDB fake: compares streams of 1,000 and of 100,000 records. Measured are a put, and
//! a page of `GetRecords` from the middle of the stream. The ratio of the medians is printed before
//! criterion's figures.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use streamer_harness::dynamodb::DynamoDb;

const PUT: &str = "DynamoDB_20120810.PutItem";
const PAGE: usize = 100;

/// A database with one table, whose stream has one shard.
struct Database {
    db: DynamoDb,
    /// Number of items created so far, which makes each item's key unique.
    items: Cell<u64>,
    /// Body of the `GetRecords` call that reads a page from the middle of the shard.
    middle: Value,
}

impl Database {
    /// Creates a database whose stream holds this many records.
    fn holding(records: u64) -> Self {
        let db = DynamoDb::builder().shards_per_stream(1).in_memory().expect("the in-memory database opens");
        let table = json!({
            "TableName": "things",
            "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES" },
        });
        call(&db, "DynamoDB_20120810.CreateTable", &table);
        let database = Self { db, items: Cell::new(0), middle: Value::Null };
        for _ in 0..records {
            database.put(&database.put_body());
        }
        let streams = database.db.streams();
        let arn = streams.latest_stream_arn("things").expect("the table has a stream");
        let shard = streams.shards(&arn).expect("the stream can be read").remove(0);
        let half = usize::try_from(records / 2).expect("the number of records fits into usize");
        let half = streams.read(&arn, &shard, None, half).expect("the shard can be read");
        let last = half.last().expect("the first half of the shard has records").sequence_number.to_string();
        let start = json!({
            "StreamArn": arn, "ShardId": shard.as_str(),
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": last,
        });
        let iterator = call(&database.db, "DynamoDBStreams_20120810.GetShardIterator", &start);
        let middle = json!({ "ShardIterator": iterator["ShardIterator"], "Limit": PAGE });
        Self { middle, ..database }
    }

    /// Returns the body of a `PutItem` call for a new item.
    fn put_body(&self) -> String {
        self.items.set(self.items.get() + 1);
        let item =
            json!({ "pk": { "S": format!("item-{}", self.items.get()) }, "v": { "S": "x".repeat(200) } });
        json!({ "TableName": "things", "Item": item }).to_string()
    }

    fn put(&self, body: &str) {
        assert_eq!(self.db.handle(PUT, body.as_bytes()).status, 200);
    }

    fn read_page(&self) -> usize {
        let page = call(&self.db, "DynamoDBStreams_20120810.GetRecords", &self.middle);
        page["Records"].as_array().map_or(0, Vec::len)
    }
}

fn call(db: &DynamoDb, target: &str, request: &Value) -> Value {
    let answer = db.handle(target, request.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).expect("the answer is JSON")
}

fn median(rounds: usize, mut operation: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            operation();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

#[expect(clippy::print_stdout, reason = "the purpose of a bench is to print figures")]
fn streams(criterion: &mut Criterion) {
    // With `--test` the bench only has to run, so short streams suffice.
    let testing = std::env::args().any(|argument| argument == "--test");
    let sizes = if testing { [200, 2_000] } else { [1_000, 100_000] };
    let databases = sizes.map(|records| (records, Database::holding(records)));
    let rounds = if testing { 20 } else { 1_000 };
    let puts = databases.each_ref().map(|(_, database)| {
        let bodies: Vec<_> = (0..rounds).map(|_| database.put_body()).collect();
        let mut bodies = bodies.iter();
        median(rounds, || database.put(bodies.next().expect("there is one body for each round")))
    });
    let pages = databases.each_ref().map(|(_, database)| {
        median(rounds, || {
            assert_eq!(database.read_page(), PAGE, "each page has the requested number of records")
        })
    });
    for (name, [few, many]) in [("put", puts), ("page", pages)] {
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        let [at_few, at_many] = sizes;
        println!("{name}: {few:?} with {at_few} records, {many:?} with {at_many} records, ratio {ratio:.2}");
    }

    let mut group = criterion.benchmark_group("streams");
    for (records, database) in &databases {
        group.bench_with_input(BenchmarkId::new("page", records), database, |bencher, database| {
            bencher.iter(|| black_box(database.read_page()));
        });
        group.bench_with_input(BenchmarkId::new("put", records), database, |bencher, database| {
            bencher.iter_batched(|| database.put_body(), |body| database.put(&body), BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = streams
}
criterion_main!(benches);
