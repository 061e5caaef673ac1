//! Whether a stream's length shows in what its table costs: a put, and a page of `GetRecords` from the middle, with
//! 1,000 records in the stream and with 100,000. Criterion has the figures; the ratio of the medians is printed first.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use streamer_harness::dynamodb::DynamoDb;

const PUT: &str = "DynamoDB_20120810.PutItem";
const PAGE: usize = 100;

/// A database whose one table has a stream of one shard with so many records.
struct Database {
    db: DynamoDb,
    items: Cell<u64>,
    /// Where the middle of the shard is read from.
    middle: Value,
}

impl Database {
    fn holding(records: u64) -> Self {
        let db = DynamoDb::builder().shards_per_stream(1).in_memory().expect("a database in memory");
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
            database.put(&database.item());
        }
        let streams = database.db.streams();
        let arn = streams.latest_stream_arn("things").expect("the table has a stream");
        let shard = streams.shards(&arn).expect("the stream can be read").remove(0);
        let half = usize::try_from(records / 2).expect("so many records fit");
        let half = streams.read(&arn, &shard, None, half).expect("the shard can be read");
        let last = half.last().expect("there are records").sequence_number.to_string();
        let start = json!({
            "StreamArn": arn, "ShardId": shard.as_str(),
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": last,
        });
        let iterator = call(&database.db, "DynamoDBStreams_20120810.GetShardIterator", &start);
        let middle = json!({ "ShardIterator": iterator["ShardIterator"], "Limit": PAGE });
        Self { middle, ..database }
    }

    /// A put of an item that is not there yet.
    fn item(&self) -> String {
        self.items.set(self.items.get() + 1);
        let item =
            json!({ "pk": { "S": format!("item-{}", self.items.get()) }, "v": { "S": "x".repeat(200) } });
        json!({ "TableName": "things", "Item": item }).to_string()
    }

    fn put(&self, body: &str) {
        assert_eq!(self.db.handle(PUT, body.as_bytes()).status, 200);
    }

    fn read(&self) -> usize {
        let page = call(&self.db, "DynamoDBStreams_20120810.GetRecords", &self.middle);
        page["Records"].as_array().map_or(0, Vec::len)
    }
}

fn call(db: &DynamoDb, target: &str, request: &Value) -> Value {
    let answer = db.handle(target, request.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).expect("DynamoDB answers in JSON")
}

fn median(rounds: usize, mut once: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            once();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

#[expect(clippy::print_stdout, reason = "a bench is there to print its figures")]
fn streams(criterion: &mut Criterion) {
    // To see that it runs, a short stream will do.
    let testing = std::env::args().any(|argument| argument == "--test");
    let sizes = if testing { [200, 2_000] } else { [1_000, 100_000] };
    let databases = sizes.map(|records| (records, Database::holding(records)));
    let rounds = if testing { 20 } else { 1_000 };
    let puts = databases.each_ref().map(|(_, database)| {
        let bodies: Vec<_> = (0..rounds).map(|_| database.item()).collect();
        let mut bodies = bodies.iter();
        median(rounds, || database.put(bodies.next().expect("one for each round")))
    });
    let pages = databases
        .each_ref()
        .map(|(_, database)| median(rounds, || assert_eq!(database.read(), PAGE, "the page is full")));
    for (name, [few, many]) in [("put", puts), ("page", pages)] {
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        let [at_few, at_many] = sizes;
        println!("{name}: {few:?} at {at_few} records, {many:?} at {at_many}: ratio {ratio:.2}");
    }

    let mut group = criterion.benchmark_group("streams");
    for (records, database) in &databases {
        group.bench_with_input(BenchmarkId::new("page", records), database, |bencher, database| {
            bencher.iter(|| black_box(database.read()));
        });
        group.bench_with_input(BenchmarkId::new("put", records), database, |bencher, database| {
            bencher.iter_batched(|| database.item(), |body| database.put(&body), BatchSize::SmallInput);
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
