use std::sync::Arc;

use serde_json::json;
use streamer::protocol::Frame;
use streamer_harness::lambda::CapturedLog;

use crate::{ann, bob, builder, stage};

#[tokio::test(start_paused = true)]
async fn quick_request_is_answered_and_not_stored() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("echo", "r1", json!({"message": "hi"})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap(), json!({"message": "hi"}));
    assert!(stage.items("RequestsTable").await.unwrap().is_empty(), "a quick request is not stored");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn slow_request_is_queued_reports_progress_and_completes() {
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
    assert!(reports >= 28, "progress is pushed about once a second: {frames:?}");
    let took = stage.now().since(asked).as_secs();
    assert!((30..35).contains(&took), "30 pages take 30 to 35 s of the stage's time, not {took} s");

    let items = stage.items("RequestsTable").await.unwrap();
    let statuses: Vec<_> = items.iter().filter_map(|item| item["status"].as_str()).collect();
    assert_eq!(statuses, ["COMPLETED"], "{items:?}");
    stage.shutdown().await;
}

/// A request above the inline limit: the processor dispatches it to the worker through Lambda's API.
#[tokio::test(start_paused = true)]
async fn request_above_the_inline_limit_is_run_by_the_worker() {
    let log = Arc::new(CapturedLog::new());
    let stage = builder().log(log.clone()).start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "r1", json!({"pages": 31})).await.unwrap();
    assert_eq!(ann.complete("r1").await.unwrap()["pages"], 31);
    let claimed = log.wait_for("streamer-WorkerFunction", r#""request claimed""#).await;
    assert!(claimed.contains("ann"), "{claimed}");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn user_without_permission_is_forbidden_while_a_permitted_user_is_served() {
    let stage = stage().await;
    let mut eve = stage.connect(&streamer_harness::signing_key::TokenFor::new("eve", "acme")).await.unwrap();
    let mut bob = stage.connect(&bob()).await.unwrap();
    eve.request("print", "r1", json!({"pages": 6})).await.unwrap();
    bob.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert_eq!(eve.failure("r1").await.unwrap().code.as_str(), "FORBIDDEN");
    assert_eq!(bob.complete("r1").await.unwrap()["for_user"], "bob");
    stage.shutdown().await;
}

/// Two stages in one process, as in two tests of one test binary.
#[tokio::test(start_paused = true)]
async fn two_stages_in_one_process_share_no_state() {
    let (one, other) = (stage().await, stage().await);
    let (mut here, mut there) = (one.connect(&ann()).await.unwrap(), other.connect(&ann()).await.unwrap());
    here.request("print", "r1", json!({"pages": 6})).await.unwrap();
    assert_eq!(here.complete("r1").await.unwrap()["pages"], 6);
    assert!(other.items("RequestsTable").await.unwrap().is_empty());
    there.request("print", "r1", json!({"pages": 7})).await.unwrap();
    assert_eq!(
        there.complete("r1").await.unwrap()["pages"],
        7,
        "the same request id is a separate request on another stage"
    );
    let refused = one.open(format!("{}?token={}", one.ws_url(), other.token(&ann()))).await.unwrap_err();
    assert!(
        refused.to_string().contains("HTTP 401"),
        "a stage refuses tokens signed by another stage's key: {refused}"
    );
    one.shutdown().await;
    other.shutdown().await;
}
