use std::time::Duration;

use serde_json::json;
use streamer::ports::Timestamp;

use crate::{ann, builder, stage};

#[tokio::test(start_paused = true)]
async fn stage_clock_starts_at_the_given_time_and_advances_by_the_given_duration() {
    let noon = Timestamp::from_secs(1_767_268_800);
    let stage = builder().starts_at(noon).start().await.unwrap();
    assert!(
        stage.now().since(noon) < Duration::from_secs(1),
        "the start of a stage takes less than a second of its clock"
    );
    let before = stage.now();
    stage.advance(Duration::from_mins(30)).await;
    assert_eq!(stage.now().since(before), Duration::from_mins(30));
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn idle_client_connection_is_closed_after_ten_minutes() {
    let stage = stage().await;
    let mut client = stage.connect(&ann()).await.unwrap();
    stage.advance(Duration::from_secs(590)).await;
    assert_eq!(stage.gateway().connections(), 1);
    let (code, _) = client.closed().await.unwrap();
    assert_eq!(code, 1001);
    stage.advance(Duration::from_secs(5)).await;
    assert!(
        stage.items("ConnectionsTable").await.unwrap().is_empty(),
        "the disconnect function deletes the connection's record"
    );
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn terminal_request_is_deleted_after_its_time_to_live() {
    let stage = builder().variable("REQUEST_TTL_S", "3600").start().await.unwrap();
    let mut client = stage.connect(&ann()).await.unwrap();
    client.request("print", "r1", json!({"pages": 6})).await.unwrap();
    client.complete("r1").await.unwrap();
    stage.advance(Duration::from_mins(50)).await;
    assert_eq!(stage.items("RequestsTable").await.unwrap().len(), 1);
    stage.advance(Duration::from_mins(11)).await;
    assert!(stage.items("RequestsTable").await.unwrap().is_empty());
    stage.shutdown().await;
}

/// The sweeper runs once a minute and queries each of the eight timer shards every five seconds; an idle
/// stage makes no other call.
#[tokio::test(start_paused = true)]
async fn idle_stage_makes_no_dynamodb_call_except_timer_queries() {
    let stage = stage().await;
    let ledger = stage.dynamodb().ledger();
    stage.advance(Duration::from_hours(1)).await;
    let calls = ledger.take();
    assert!(calls.iter().all(|call| call.operation == "Query"), "{calls:?}");
    let most = 60 * 12 * 8;
    assert!((1..=most).contains(&calls.iter().count()), "{} calls", calls.iter().count());
    stage.shutdown().await;
}
