use std::sync::Arc;

use serde_json::json;
use streamer::protocol::Frame;
use streamer_harness::lambda::CapturedLog;

use crate::{ann, bob, builder, stage};

#[tokio::test(start_paused = true)]
async fn a_quick_request_is_answered() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("echo", "r1", json!({"message": "hi"})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), json!({"message": "hi"}));
    assert!(stage.items("RequestsTable").await.unwrap().is_empty(), "it keeps no record");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_is_queued_reported_on_and_completed() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    let asked = stage.now();
    ann.request("print", "r1", json!({"pages": 30})).await.unwrap();
    let frames = ann.frames_until_terminal("r1").await.unwrap();
    let Some(Frame::Acknowledgment { status, .. }) = frames.first() else { panic!("{frames:?}") };
    assert_eq!(status, "queued");
    let Some(Frame::Complete { result, .. }) = frames.last() else { panic!("{frames:?}") };
    assert_eq!(*result, json!({"pages": 30, "for_user": "ann"}));
    let reports = frames.iter().filter(|frame| matches!(frame, Frame::Progress { .. })).count();
    assert!(reports >= 28, "a report a second: {frames:?}");
    let took = stage.now().since(asked).as_secs();
    assert!((30..35).contains(&took), "it took {took} s on the stage's clock");

    let items = stage.items("RequestsTable").await.unwrap();
    let statuses: Vec<_> = items.iter().filter_map(|item| item["status"].as_str()).collect();
    assert_eq!(statuses, ["COMPLETED"], "{items:?}");
    stage.shutdown().await;
}

/// Above the limit of what runs beside others: the processor hands it over through Lambda's API.
#[tokio::test(start_paused = true)]
async fn a_long_request_is_run_by_the_worker() {
    let log = Arc::new(CapturedLog::new());
    let stage = builder().log(log.clone()).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "r1", json!({"pages": 31})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap()["pages"], 31);
    let claimed = log.wait_for("streamer-WorkerFunction", r#""claimed""#).await;
    assert!(claimed.contains("ann"), "{claimed}");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_may_not_is_told_and_who_may_is_served_beside() {
    let stage = stage().await;
    let mut eve = stage.connect(&streamer_harness::signing_key::TokenFor::new("eve", "acme")).await.unwrap();
    let mut bob = stage.connect(&bob()).await.unwrap();
    eve.request("print", "r1", json!({"pages": 6})).await.unwrap();
    bob.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert_eq!(eve.failure("r1").await.unwrap().code.as_str(), "FORBIDDEN");
    assert_eq!(bob.complete("r1").await.unwrap()["for_user"], "bob");
    stage.shutdown().await;
}

/// As two stages of one test binary would be, each in a test of its own.
#[tokio::test(start_paused = true)]
async fn two_stages_side_by_side_do_not_meet() {
    let (one, other) = (stage().await, stage().await);
    let (mut here, mut there) = (one.connect(&ann()).await.unwrap(), other.connect(&ann()).await.unwrap());
    here.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert_eq!(here.complete("r1").await.unwrap()["pages"], 6);
    assert!(other.items("RequestsTable").await.unwrap().is_empty());
    there.request("print", "r1", json!({"pages": 7})).await.unwrap();
    assert_eq!(there.complete("r1").await.unwrap()["pages"], 7, "the same id is another request there");
    let stranger = one.open(format!("{}?token={}", one.ws_url(), other.token(&ann()))).await.unwrap_err();
    assert!(stranger.to_string().contains("HTTP 401"), "each has a key of its own: {stranger}");
    one.shutdown().await;
    other.shutdown().await;
}
