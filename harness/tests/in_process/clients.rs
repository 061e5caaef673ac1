use std::time::Duration;

use serde_json::json;
use streamer::protocol::Frame;
use streamer_harness::client::ClientError;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::{ann, stage};

#[tokio::test(start_paused = true)]
async fn token_is_accepted_as_a_subprotocol_and_a_missing_token_is_refused_with_401() {
    let stage = stage().await;
    let token = stage.token(&ann());
    let mut request = stage.ws_url().into_client_request().unwrap();
    let offered = format!("streamer.v1, {token}").parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let mut client = stage.open(request).await.unwrap();
    assert_eq!(client.headers()["sec-websocket-protocol"], "streamer.v1");
    client.request("echo", "r1", json!("hi")).await.unwrap();
    assert_eq!(client.complete("r1").await.unwrap(), "hi");

    let refused = stage.open(stage.ws_url()).await.unwrap_err();
    let ClientError::Refused { status: 401, body } = &refused else { panic!("{refused}") };
    assert!(body.contains("TOKEN_MISSING"), "{body}");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn client_buffers_frames_about_other_requests_for_later_calls() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "slow", json!({"pages": 6})).await.unwrap();
    ann.request("echo", "quick", json!(1)).await.unwrap();
    assert_eq!(ann.complete("slow").await.unwrap()["pages"], 6);
    assert_eq!(
        ann.complete("quick").await.unwrap(),
        1,
        "the quick request's result arrived earlier and was buffered"
    );
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn client_loses_no_frame_if_a_wait_is_cancelled_or_times_out() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "slow", json!({"pages": 6})).await.unwrap();
    ann.request("echo", "quick", json!(1)).await.unwrap();
    let cancelled = timeout(Duration::from_secs(3), ann.complete("slow")).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    assert_eq!(
        ann.complete("quick").await.unwrap(),
        1,
        "the result that arrived during the cancelled wait was buffered"
    );
    let frames = ann.frames_until_terminal("slow").await.unwrap();
    assert!(matches!(frames[0], Frame::Acknowledgment { .. }), "{frames:?}");

    ann.set_patience(Duration::from_secs(1));
    ann.request("echo", "other", json!(2)).await.unwrap();
    assert!(matches!(ann.complete("none").await, Err(ClientError::Silent { .. })));
    assert_eq!(ann.complete("other").await.unwrap(), 2);
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn client_error_lists_the_received_frames() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    ann.request("print", "r1", json!({"pages": "many"})).await.unwrap();
    let failed = ann.complete("r1").await.unwrap_err().to_string();
    assert!(
        failed.starts_with(
            "the request failed, but success was expected; frames about the request:\n  \
         {\"type\":\"error\",\"request_id\":\"r1\""
        ),
        "{failed}"
    );
    assert!(failed.contains("VALIDATION_ERROR"), "{failed}");
    ann.request("echo", "r2", json!(2)).await.unwrap();
    let succeeded = ann.failure("r2").await.unwrap_err().to_string();
    assert!(succeeded.contains("\"request_id\":\"r2\",\"success\":true"), "{succeeded}");
    ann.send_text("no JSON").await.unwrap();
    let unasked = ann.complete("r3").await.unwrap_err();
    let ClientError::Silent { seen, .. } = &unasked else { panic!("{unasked}") };
    assert_eq!(seen.len(), 3, "{unasked}");
    stage.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn stage_shutdown_closes_client_connections_with_1001() {
    let stage = stage().await;
    let mut ann = stage.connect(&ann()).await.unwrap();
    stage.shutdown().await;
    let (code, _) = ann.closed().await.unwrap();
    assert_eq!(code, 1001);
    let closed = ann.request("echo", "r1", json!(1)).await.unwrap_err();
    assert!(matches!(closed, ClientError::Closed { .. }), "{closed}");
}
