//! Tests of the store. The tables are in the embedded database, or in the DynamoDB implementation at the URL
//! in the environment variable `STREAMER_TEST_DYNAMODB_URL`.
//!
//! Each test creates its own tables and passes explicit times to the store instead of reading a clock, so
//! that the tests run on any implementation of DynamoDB.

mod big_values;
mod checkpoints;
mod connections;
mod leases;
mod listeners;
mod lists;
mod overdue;
mod unclaimed;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use streamer::aws::{AwsEnvironment, http_client};
use streamer::config::Environment as Variables;
use streamer::ids::{ConnectionId, RequestKey};
use streamer::ports::Timestamp;
use streamer::protocol::{ErrorBody, ErrorCode, Seq};
use streamer::store::dynamodb::{
    DynamoConnectionStore, DynamoRequestQueue, Item, QueueSettings, connection_item, part_item, request_item,
};
use streamer::store::{
    AttemptOutcome, ClaimRequests as _, Claimed, Delivery, Enqueued, LastReport, Lease, PastAttempt,
    ReadRequests as _, Request, RequestSummary, Runner, SubmitRequests as _,
};
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::tables::Tables;
use streamer_harness::template::{Environment, Template};

/// Start time of each store test. [`at`] returns times relative to this start.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Duration of each lease in the store's tests.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Returns the time `seconds` seconds after [`NOW`].
pub(super) fn at(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

/// A connection store and a request queue on two newly created tables.
pub(super) struct Store {
    /// DynamoDB client that reads and edits the tables directly.
    pub(super) client: Client,
    /// Connection store under test.
    pub(super) connections: DynamoConnectionStore,
    /// Request queue under test.
    pub(super) queue: DynamoRequestQueue,
    /// Name of the connections table.
    pub(super) connections_table: String,
    /// Name of the requests table.
    pub(super) requests_table: String,
}

impl Store {
    /// Creates a connections table and a requests table with unique names.
    pub(super) async fn new() -> Self {
        static TABLES: AtomicU32 = AtomicU32::new(0);
        let client = client();
        let prefix = format!("t{}-{}-", std::process::id(), TABLES.fetch_add(1, Ordering::Relaxed));
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
        let parameters = [("JwtKey".to_owned(), "unused".to_owned())].into();
        let environment = Environment { parameters, ..Environment::default() };
        let tables = Template::load(&template, &environment).unwrap().tables;
        let create = async |logical_id: &str| {
            let table = tables.iter().find(|table| table.logical_id == logical_id).unwrap();
            let name = format!("{prefix}{logical_id}");
            Tables::new(client.clone(), "the database").create(&name, &table.layout).await.unwrap();
            name
        };
        let connections_table = create("ConnectionsTable").await;
        let requests_table = create("RequestsTable").await;
        Self {
            connections: DynamoConnectionStore::new(client.clone(), connections_table.as_str()),
            queue: DynamoRequestQueue::new(client.clone(), requests_table.as_str(), QueueSettings::default()),
            client,
            connections_table,
            requests_table,
        }
    }

    /// Enqueues ann's request with the given id and a creation time `seconds` after [`NOW`].
    /// Returns the request's key.
    pub(super) async fn enqueue(&self, id: &str, seconds: u64) -> RequestKey {
        let request = Request { created_at: at(seconds), ..request(id) };
        assert_eq!(self.queue.enqueue(&request).await.unwrap(), Enqueued::New);
        request.key()
    }

    /// Enqueues ann's request with the given id at [`NOW`], and claims the request 1 s later.
    pub(super) async fn claimed(&self, id: &str) -> (RequestKey, Lease) {
        let key = self.enqueue(id, 0).await;
        let lease = self.claim(&key, "first", 1).await;
        (key, lease)
    }

    /// Claims the request for the worker with the owner token `owner`, and panics if the claim fails.
    pub(super) async fn claim(&self, key: &RequestKey, owner: &str, seconds: u64) -> Lease {
        let claimed = self.try_claim(key, owner, Runner::Worker, seconds).await;
        let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
        lease
    }

    /// Tries to claim the request for `runner`, with a lease of the duration [`LEASE`].
    pub(super) async fn try_claim(
        &self,
        key: &RequestKey,
        owner: &str,
        runner: Runner,
        seconds: u64,
    ) -> Claimed {
        self.queue.claim(key, owner, runner, at(seconds), at(seconds) + LEASE).await.unwrap()
    }

    /// Returns the current summary of the request, which has the fields that the sweeper reads of a due item.
    pub(super) async fn seen(&self, key: &RequestKey) -> RequestSummary {
        request_item::decode_summary(&self.item(key).await).unwrap()
    }

    /// Returns the stored request, and panics if the request does not exist.
    pub(super) async fn get(&self, key: &RequestKey) -> Request {
        self.queue.get(key).await.unwrap().unwrap()
    }

    /// Returns the raw DynamoDB item of the request, and panics if the item does not exist.
    pub(super) async fn item(&self, key: &RequestKey) -> Item {
        self.part(key, request_item::REQUEST_PART).await.unwrap()
    }

    /// Returns the raw DynamoDB item with the sort key `part` of the request; `None` if there is no such item.
    pub(super) async fn part(&self, key: &RequestKey, part: &str) -> Option<Item> {
        let get = self.client.get_item().table_name(&self.requests_table).consistent_read(true);
        get.set_key(Some(part_item::key(key, part))).send().await.unwrap().item
    }

    /// Changes a request's item directly in the table by an update expression, in which `:value` is `value`.
    pub(super) async fn edit(&self, key: &RequestKey, expression: &str, value: AttributeValue) {
        let update = self.client.update_item().table_name(&self.requests_table);
        let update = update.set_key(Some(request_item::key(key))).update_expression(expression);
        update.expression_attribute_values(":value", value).send().await.unwrap();
    }

    /// Changes a connection's item directly in the table by an update expression, in which `:value` is `value`.
    pub(super) async fn edit_connection(&self, id: &str, expression: &str, value: AttributeValue) {
        let update = self.client.update_item().table_name(&self.connections_table);
        let update = update.key(connection_item::KEY, connection_item::key(&id.into()));
        let update = update.update_expression(expression).expression_attribute_values(":value", value);
        update.send().await.unwrap();
    }

    /// Returns true if the request is in the timer index, from which the sweeper reads due items.
    pub(super) async fn is_in_timers(&self, key: &RequestKey) -> bool {
        let item = self.item(key).await;
        assert_eq!(
            item.contains_key("timer_at"),
            item.contains_key("timer_shard"),
            "timer_at and timer_shard are set and removed together"
        );
        item.contains_key("timer_at")
    }
}

/// Returns ann's pending request with the given id, created at [`NOW`].
pub(super) fn request(id: &str) -> Request {
    let (payload, connection) = (json!({"format": "pdf"}), "c1".into());
    Request {
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        max_attempts: 3,
        ..Request::new(id.into(), "ann".into(), "acme".into(), connection, "report", payload, NOW)
    }
}

/// Returns the last report of an attempt, written `seconds` after [`NOW`]. The report has no progress, and
/// the first sequence number of `epoch`.
pub(super) fn last(epoch: u64, seconds: u64) -> LastReport {
    LastReport { seq: Seq::start_of(epoch).next(), at: at(seconds), ..LastReport::default() }
}

/// Returns a handler's error with the code `OUT_OF_PAPER`.
pub(super) fn out_of_paper() -> ErrorBody {
    ErrorBody::new(ErrorCode::from("OUT_OF_PAPER"), "The printer is out of paper")
}

/// Returns the history entry of an attempt that failed `seconds` after [`NOW`]. The epoch of the attempt's
/// claim equals its number `attempt`.
pub(super) fn past(attempt: u32, seconds: u64) -> PastAttempt {
    PastAttempt {
        attempt,
        epoch: attempt.into(),
        started_at: Some(at(1)),
        ended_at: at(seconds),
        outcome: AttemptOutcome::Failed,
        error: out_of_paper(),
    }
}

/// Returns the result of a delivery that sent the terminal frame to the connections `delivered`, and no dead letter.
/// `is_complete` is true if the request had no other subscribers. The result does not say whether the part items
/// have an expiry time.
pub(super) fn delivered_to(delivered: &[ConnectionId], is_complete: bool) -> Delivery<'_> {
    Delivery { delivered, is_complete, is_dead_letter_sent: false, part_ttls_set: false }
}

/// Converts strings to connection ids.
pub(super) fn ids(names: &[&str]) -> Vec<ConnectionId> {
    names.iter().map(|name| ConnectionId::from(*name)).collect()
}

/// Returns a string attribute (`S`).
pub(super) fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Returns a number attribute (`N`).
pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Returns a client of the database under test.
fn client() -> Client {
    let Ok(url) = std::env::var("STREAMER_TEST_DYNAMODB_URL") else {
        return DynamoDb::builder().in_memory().unwrap().client();
    };
    let lookup = |name: &str| match name {
        "AWS_ENDPOINT_URL" => Some(url.clone()),
        "AWS_REGION" => Some("us-east-1".to_owned()),
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("test".to_owned()),
        _ => None,
    };
    AwsEnvironment::from_env(&mut Variables::new(lookup), http_client()).dynamodb()
}
