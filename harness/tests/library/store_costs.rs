//! Tests of the DynamoDB cost of each store operation, which is its calls and their capacity units.

use std::sync::atomic::{AtomicU32, Ordering};

use std::fmt::Write as _;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::ids::RequestKey;
use streamer::protocol::Seq;
use streamer::store::dynamodb::{DynamoConnectionStore, DynamoRateLimits, DynamoRequestQueue, QueueSettings};
use streamer::store::{
    ClaimRequests as _, Claimed, Connection, ConnectionStore as _, Delivery, FullAt, Identity, LastReport,
    Lease, NewStatus, PageRequest, Progress, Rate, RateLimits as _, ReadRequests as _, ReclaimVerdict,
    Request, RequestSummary, RunRequests as _, Runner, Status, SubmitRequests as _, SubscribeToRequests as _,
    SweepRequests as _, Taken,
};
use streamer_harness::dynamodb::{DynamoDb, Ledger};

use crate::store::{LEASE, at, delivered_to, ids, last, out_of_paper, past, request};
use crate::world::{CONNECTIONS, REQUESTS, create_tables_of_template};

/// Connection store and request queue on the template's tables, with a bill that lists the DynamoDB calls and costs
/// of each operation.
struct Bill {
    connections: DynamoConnectionStore,
    queue: DynamoRequestQueue,
    /// Ledger of the fake DynamoDB, which records each call and its cost.
    ledger: Ledger,
    /// Text of the bill: the name of each operation, followed by its DynamoDB calls.
    text: String,
}

impl Bill {
    fn new() -> Self {
        let db = DynamoDb::builder().in_memory().unwrap();
        create_tables_of_template(&db);
        Self {
            connections: DynamoConnectionStore::new(db.client(), CONNECTIONS),
            queue: DynamoRequestQueue::new(db.client(), REQUESTS, QueueSettings::default()),
            ledger: db.ledger(),
            text: String::new(),
        }
    }

    /// Adds the DynamoDB calls since the last entry or skip to the bill, under the name `operation`.
    fn enter(&mut self, operation: &str) {
        writeln!(self.text, "{operation}").unwrap();
        for line in self.ledger.take().to_string().lines() {
            writeln!(self.text, "  {line}").unwrap();
        }
    }

    /// Discards the DynamoDB calls since the last entry or skip, so that they do not appear in the bill.
    fn skip(&self) {
        drop(self.ledger.take());
    }

    async fn save(&self, id: &str, user: &str) {
        self.connections.save(&connection(id, user)).await.unwrap();
    }

    async fn enqueue(&self, id: &str, payload: Value) -> RequestKey {
        let request = Request { payload, ..request(id) };
        self.queue.enqueue(&request).await.unwrap();
        request.key()
    }

    /// Returns the summary of the request `key` that the sweeper's query for due items returns. The query does not
    /// appear in the bill.
    async fn seen(&self, key: &RequestKey) -> RequestSummary {
        let due = self.queue.due(at(1_000), PageRequest::default()).await.unwrap().items;
        self.skip();
        due.into_iter().find(|request| request.key() == *key).unwrap()
    }

    /// Claims the request `key` for the worker.
    async fn claim(&self, key: &RequestKey) -> Lease {
        // Each claim has a new owner token. All tokens have the same length, so that the cost does not vary.
        static CLAIMS: AtomicU32 = AtomicU32::new(0);
        let owner = format!("o{:04}", CLAIMS.fetch_add(1, Ordering::Relaxed));
        let claimed = self.queue.claim(key, &owner, Runner::Worker, at(1), at(1) + LEASE).await.unwrap();
        let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
        lease
    }
}

fn connection(id: &str, user: &str) -> Connection {
    Connection {
        id: id.into(),
        identity: Identity {
            user: user.into(),
            tenant: "acme".into(),
            permissions: vec!["reports".to_owned()],
            expires_at: at(3600),
        },
        endpoint: "https://api.example/prod".to_owned(),
        connected_at: at(0),
        last_ping: at(0),
        metadata: [("source_ip".to_owned(), "127.0.0.1".to_owned())].into(),
    }
}

/// Returns the last progress report of the attempt with the epoch `epoch`: 50 %, at the time `at(seconds)`.
fn half(epoch: u64, seconds: u64) -> LastReport {
    let progress = Progress { percentage: 50.0, message: "Half".to_owned(), ..Progress::default() };
    LastReport { progress, ..last(epoch, seconds) }
}

/// Returns a value of 7 KB. The store puts a value of this size in a part item, which is a separate item beside the
/// request's item.
fn big() -> Value {
    json!("x".repeat(7000))
}

#[tokio::test]
async fn each_connection_store_operation_has_a_fixed_dynamodb_cost() {
    let mut bill = Bill::new();
    bill.save("c1", "ann").await;
    bill.enter("save");
    bill.save("c1", "ann").await;
    bill.enter("save the same connection again");
    bill.connections.save(&connection("c1", "bob")).await.unwrap_err();
    bill.enter("save a connection with the same id for another user");
    bill.connections.get(&"c1".into()).await.unwrap();
    bill.enter("get");
    bill.connections.update_last_ping(&"c1".into(), at(60)).await.unwrap();
    bill.enter("update_last_ping");
    bill.connections.update_last_ping(&"c1".into(), at(30)).await.unwrap();
    bill.enter("update_last_ping to an earlier time");
    bill.connections.update_last_ping(&"c9".into(), at(60)).await.unwrap_err();
    bill.enter("update_last_ping of a missing connection");
    for n in 2..=20 {
        bill.save(&format!("c{n}"), if n % 2 == 0 { "ann" } else { "bob" }).await;
    }
    bill.skip();
    bill.connections.list_by_user(&"acme".into(), &"ann".into(), PageRequest::default()).await.unwrap();
    bill.enter("list_by_user, 11 entries");
    bill.connections.list_by_user(&"acme".into(), &"carl".into(), PageRequest::default()).await.unwrap();
    bill.enter("list_by_user, no entries");
    bill.connections.list_by_tenant(&"acme".into(), PageRequest::first(20)).await.unwrap();
    bill.enter("list_by_tenant, 20 entries");
    bill.connections.delete(&"c1".into()).await.unwrap();
    bill.enter("delete");
    bill.connections.delete(&"c1".into()).await.unwrap();
    bill.enter("delete of a missing connection");
    bill.connections.update_last_ping(&"c2".into(), at(60)).await.unwrap();
    for n in 5..=20 {
        bill.connections.delete(&format!("c{n}").as_str().into()).await.unwrap();
    }
    bill.skip();
    assert_eq!(bill.connections.delete_stale(at(30)).await.unwrap(), 2);
    bill.enter("delete_stale, 2 of 3 connections stale");
    assert_snapshot!(bill.text);
}

#[tokio::test]
async fn each_request_queue_operation_has_a_fixed_dynamodb_cost() {
    let mut bill = Bill::new();
    let small = || json!({"format": "pdf"});
    let seq = Seq::start_of(1).next();

    let key = bill.enqueue("r1", small()).await;
    bill.enter("enqueue");
    bill.enqueue("r1", small()).await;
    bill.enter("enqueue the same request again");
    bill.queue.get(&key).await.unwrap();
    bill.enter("get");
    let lease = bill.claim(&key).await;
    bill.enter("claim");
    bill.queue.claim(&key, "other", Runner::Worker, at(1), at(61)).await.unwrap();
    bill.enter("claim of a claimed request");
    bill.queue.renew(&key, &lease, at(90)).await.unwrap();
    bill.enter("renew");
    let progress = Progress { percentage: 50.0, message: "Half".to_owned(), ..Progress::default() };
    bill.queue.progress(&key, &lease, &progress, seq, at(120)).await.unwrap();
    bill.enter("progress");
    bill.queue.cancel(&key, at(3)).await.unwrap();
    bill.enter("cancel of a running request");
    bill.queue.complete(&key, &lease, &small(), &half(1, 4)).await.unwrap();
    bill.enter("complete");
    bill.queue.cancel(&key, at(5)).await.unwrap();
    bill.enter("cancel of a terminal request");
    bill.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    bill.enter("record_delivery");

    let key = bill.enqueue("r2", small()).await;
    let lease = bill.claim(&key).await;
    bill.skip();
    bill.queue
        .retry_later(&key, &lease, &[past(1, 2)], at(30), Runner::Processor, &half(1, 2))
        .await
        .unwrap();
    bill.enter("retry_later");
    bill.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(31)).await.unwrap();
    bill.enter("update_status to PENDING");
    let fenced = bill.queue.progress(&key, &lease, &progress, seq, at(120)).await;
    fenced.unwrap_err();
    bill.enter("progress of a fenced attempt");
    let lease = bill.claim(&key).await;
    bill.skip();
    bill.queue.fail(&key, &lease, &out_of_paper(), &[past(1, 2), past(2, 32)], &half(2, 32)).await.unwrap();
    bill.enter("fail");
    bill.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    bill.enter("unsubscribe of the last subscriber of a failed request");

    let key = bill.enqueue("r3", small()).await;
    bill.skip();
    bill.queue.cancel_unless_subscribed(&key, &"c2".into(), at(2)).await.unwrap();
    bill.enter("cancel_unless_subscribed of a request with a subscriber");
    bill.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    bill.enter("unsubscribe from an open request");
    bill.queue.cancel(&key, at(3)).await.unwrap();
    bill.enter("cancel of a pending request");

    let key = bill.enqueue("r4", small()).await;
    let lease = bill.claim(&key).await;
    bill.skip();
    bill.queue.confirm_cancel(&key, &lease, &half(1, 3)).await.unwrap();
    bill.enter("confirm_cancel");

    bill.enqueue("r5", small()).await;
    bill.skip();
    bill.queue.dequeue("owner", at(1), at(61)).await.unwrap().unwrap();
    bill.enter("dequeue");
    assert!(bill.queue.dequeue("owner", at(1), at(61)).await.unwrap().is_none());
    bill.enter("dequeue without a pending request");
    assert_snapshot!(bill.text);
}

#[tokio::test]
async fn nudge_checkpoint_reclaim_and_subscribe_have_fixed_dynamodb_costs() {
    let mut bill = Bill::new();
    let small = || json!({"format": "pdf"});
    let key = bill.enqueue("r1", small()).await;
    bill.skip();
    let seen = bill.seen(&key).await;
    assert!(bill.queue.nudge(&seen, at(60)).await.unwrap());
    bill.enter("nudge");
    assert!(!bill.queue.nudge(&seen, at(61)).await.unwrap());
    bill.enter("nudge of a request that was nudged since the query");
    bill.queue.subscribe(&key, &"c2".into(), Seq::default(), at(61)).await.unwrap();
    bill.enter("subscribe to an open request");
    let lease = bill.claim(&key).await;
    bill.skip();
    let last = half(1, 2);
    bill.queue.checkpoint(&key, &lease, &json!({"page": 7}), &last.progress, last.seq, at(90)).await.unwrap();
    bill.enter("checkpoint");
    bill.queue.checkpoint(&key, &lease, &big(), &last.progress, last.seq, at(90)).await.unwrap();
    bill.enter("checkpoint of 7 KB");
    bill.queue.continue_later(&key, &lease, &last).await.unwrap();
    bill.enter("continue_later");
    bill.queue.claim(&key, "processor", Runner::Processor, at(3), at(63)).await.unwrap();
    bill.enter("claim by the processor of a request that only the worker may claim");
    let lease = bill.claim(&key).await;
    bill.enter("claim with a checkpoint of 7 KB");
    assert!(bill.queue.postpone(&key, at(71), at(100)).await.unwrap());
    bill.enter("postpone");
    let seen = bill.seen(&key).await;
    assert!(bill.queue.reclaim(&seen, &ReclaimVerdict::Rerun, &[past(1, 71)], at(71)).await.unwrap());
    bill.enter("reclaim for another attempt");
    bill.queue.renew(&key, &lease, at(90)).await.unwrap_err();
    bill.enter("renew by the attempt that lost its lease");
    let lease = bill.claim(&key).await;
    bill.skip();
    bill.queue.fail(&key, &lease, &out_of_paper(), &[past(1, 71), past(2, 80)], &half(3, 80)).await.unwrap();
    bill.enter("fail with a checkpoint of 7 KB");
    let reached = ids(&["c1", "c2"]);
    let sent = Delivery { is_dead_letter_sent: true, part_ttls_set: true, ..delivered_to(&reached, true) };
    bill.queue.record_delivery(&key, lease.epoch, sent).await.unwrap();
    bill.enter("record_delivery after the dead letter was sent");
    bill.queue.subscribe(&key, &"c3".into(), Seq::default(), at(90)).await.unwrap();
    bill.enter("subscribe to a terminal request");
    bill.queue.record_redrive(&key, lease.epoch, &"r2".into()).await.unwrap();
    bill.enter("record_redrive");

    let key = bill.enqueue("r2", small()).await;
    let lease = bill.claim(&key).await;
    bill.queue.complete(&key, &lease, &small(), &half(1, 4)).await.unwrap();
    bill.skip();
    bill.queue.unsubscribe(&key, &"c1".into()).await.unwrap();
    bill.enter("unsubscribe of the last subscriber of a completed request");
    assert_snapshot!(bill.text);
}

#[tokio::test]
async fn big_payloads_and_results_have_fixed_dynamodb_costs() {
    let mut bill = Bill::new();
    let seq = Seq::start_of(1).next();
    let key = bill.enqueue("r1", big()).await;
    bill.enter("enqueue");
    bill.enqueue("r1", big()).await;
    bill.enter("enqueue the same request again");
    let lease = bill.claim(&key).await;
    bill.enter("claim");
    bill.queue.progress(&key, &lease, &Progress::default(), seq, at(120)).await.unwrap();
    bill.enter("progress");
    let ended = bill.queue.complete(&key, &lease, &big(), &half(1, 4)).await.unwrap();
    bill.enter("complete");
    bill.queue
        .record_delivery(
            &key,
            lease.epoch,
            Delivery { part_ttls_set: ended.part_ttls_set, ..delivered_to(&ids(&["c1"]), true) },
        )
        .await
        .unwrap();
    bill.enter("record_delivery");
    bill.queue.get(&key).await.unwrap();
    bill.enter("get");

    let key = bill.enqueue("r2", big()).await;
    let lease = bill.claim(&key).await;
    bill.queue.complete(&key, &lease, &json!(1), &half(1, 4)).await.unwrap();
    bill.skip();
    bill.queue.record_delivery(&key, lease.epoch, delivered_to(&ids(&["c1"]), true)).await.unwrap();
    bill.enter("record_delivery that also sets the TTL of the payload's part item");
    assert_snapshot!(bill.text);
}

/// ADR 0003 lists the sizes and costs that this test checks.
#[tokio::test]
async fn payload_and_result_sizes_determine_the_dynamodb_cost() {
    let mut bill = Bill::new();
    let seq = Seq::start_of(1).next();
    let progress = Progress { percentage: 50.0, message: "Half".to_owned(), ..Progress::default() };
    for bytes in [50, 500, 1024, 1536, 3584] {
        let value = json!("x".repeat(bytes - 2));
        let key = bill.enqueue(&format!("r{bytes}"), value.clone()).await;
        bill.enter(&format!("payload and result of {bytes} bytes: enqueue"));
        let lease = bill.claim(&key).await;
        bill.enter("  claim");
        bill.queue.progress(&key, &lease, &progress, seq, at(120)).await.unwrap();
        bill.enter("  progress");
        let ended = bill.queue.complete(&key, &lease, &value, &half(1, 4)).await.unwrap();
        bill.enter("  complete");
        bill.queue
            .record_delivery(
                &key,
                lease.epoch,
                Delivery { part_ttls_set: ended.part_ttls_set, ..delivered_to(&ids(&["c1"]), true) },
            )
            .await
            .unwrap();
        bill.enter("  record_delivery");
    }
    assert_snapshot!(bill.text);
}

#[tokio::test]
async fn request_list_queries_have_fixed_dynamodb_costs() {
    let mut bill = Bill::new();
    for n in 0..30 {
        bill.enqueue(&format!("r{n}"), json!("x".repeat(3000))).await;
    }
    bill.skip();
    bill.queue.get_by_status(Status::Pending, PageRequest::default()).await.unwrap();
    bill.enter("get_by_status, 25 of 30 entries");
    bill.queue.get_by_status(Status::Failed, PageRequest::default()).await.unwrap();
    bill.enter("get_by_status, no entries");
    bill.queue.get_by_connection(&"c1".into(), PageRequest::first(5)).await.unwrap();
    bill.enter("get_by_connection, 5 of 30 entries");
    bill.queue.due(at(100), PageRequest::first(5)).await.unwrap();
    bill.enter("due, 5 of 30 entries");
    assert_snapshot!(bill.text);
}

#[tokio::test]
async fn shared_rate_limit_costs_one_dynamodb_write_per_take() {
    let db = DynamoDb::builder().in_memory().unwrap();
    create_tables_of_template(&db);
    let limits = DynamoRateLimits::new(db.client(), "streamer-RateLimitsTable");
    let rate = Rate::per_minute(2);
    let ledger = db.ledger();
    let mut bill = String::new();
    let mut known = FullAt::default();
    for operation in [
        "take of the first token",
        "take of the second token",
        "take above the limit",
        "take above the limit, bucket state unknown",
    ] {
        if operation.ends_with("unknown") {
            known = FullAt::default();
        }
        let taken = limits.take("user/acme/ann", rate, at(0), known).await.unwrap();
        let (Taken::Granted(full_at) | Taken::Refused(full_at)) = taken;
        known = full_at;
        writeln!(bill, "{operation}\n  {}", ledger.take().to_string().replace('\n', "\n  ")).unwrap();
    }
    assert_snapshot!(bill);
}
