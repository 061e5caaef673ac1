use std::time::Duration;

use serde_json::json;
use streamer::ports::Timestamp;

use crate::{ann, builder, stage};

#[tokio::test(start_paused = true)]
async fn the_clock_starts_where_it_is_set_and_moves_as_the_test_says() {
    let noon = Timestamp::from_secs(1_767_268_800);
    let stage = builder().starts_at(noon).start().await.unwrap();
    assert!(stage.now().since(noon) < Duration::from_secs(1), "a start takes no time");
    let before = stage.now();
    stage.advance(Duration::from_mins(30)).await;
    assert_eq!(stage.now().since(before), Duration::from_mins(30));
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_ten_minutes() {
    let stage = stage().await;
    let mut client = stage.connect(&ann()).await.unwrap();
    stage.advance(Duration::from_secs(590)).await;
    assert_eq!(stage.gateway().connections(), 1);
    let (code, _) = client.closed().await.unwrap();
    assert_eq!(code, 1001);
    stage.advance(Duration::from_secs(5)).await;
    assert!(stage.items("ConnectionsTable").await.unwrap().is_empty(), "and its $disconnect has run");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_request_is_deleted_by_its_time_to_live() {
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

/// The sweeper runs each minute, and looks at each shard of the timers every five seconds, at nothing else.
#[tokio::test(start_paused = true)]
async fn an_idle_hour_costs_looks_at_the_timers_alone() {
    let stage = stage().await;
    let ledger = stage.dynamodb().ledger();
    stage.advance(Duration::from_hours(1)).await;
    let calls = ledger.take();
    assert!(calls.iter().all(|call| call.operation == "Query"), "{calls:?}");
    let most = 60 * 12 * 8;
    assert!((1..=most).contains(&calls.iter().count()), "{} calls", calls.iter().count());
    stage.shutdown().await;
}
