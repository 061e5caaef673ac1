//! Tests of the rate limits for connections, requests and routes.

use std::time::Duration;

use serde_json::json;
use streamer_fakes::gateway::{Limits, Route, Throttle};
use tokio::time::advance;

use crate::stage::{Stage, config, echo_body, reply, request};

fn statuses(all: &[Result<u16, u16>], status: Result<u16, u16>) -> usize {
    all.iter().filter(|one| **one == status).count()
}

/// Connects `n` times without a pause, and drops each opened connection. Returns the status of each
/// handshake.
async fn connect(stage: &Stage, n: usize) -> Vec<Result<u16, u16>> {
    let mut all = Vec::new();
    for _ in 0..n {
        let answer = stage.gateway.connect(request("/prod")).await;
        all.push(answer.map(|_| 101).map_err(|refused| refused.status().as_u16()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn new_connections_above_500_a_second_are_refused_with_429() {
    let stage = Stage::in_memory(config(), async |_, _| reply(json!({ "statusCode": 200 })));
    let all = connect(&stage, 502).await;
    assert_eq!((statuses(&all, Ok(101)), statuses(&all[500..], Err(429))), (500, 2));
    advance(Duration::from_millis(20)).await;
    let all = connect(&stage, 12).await;
    assert_eq!((statuses(&all, Ok(101)), statuses(&all, Err(429))), (10, 2));
}

#[tokio::test(start_paused = true)]
async fn requests_above_10000_a_second_with_a_burst_of_5000_are_throttled() {
    let defaults = Limits::default();
    assert_eq!(defaults.requests, Throttle::per_second(10_000.0, 5_000));
    assert_eq!(defaults.connections, Throttle::per_second(500.0, 500));

    // The handshake takes one token, and calls of the management API take tokens from the same bucket.
    let mut stage = Stage::in_memory(config(), echo_body);
    let client = stage.client().await;
    let path = format!("/prod/@connections/{}", client.id);
    for _ in 0..4_999 {
        assert_eq!(stage.in_process("GET", &path).await.0, 200);
    }
    for method in ["GET", "POST", "DELETE"] {
        let throttled = stage.in_process(method, &path).await;
        assert_eq!(throttled, (429, "LimitExceededException".to_owned()), "{method}");
    }
    assert_eq!(connect(&stage, 1).await, [Err(429)]);
    advance(Duration::from_millis(1)).await;
    for _ in 0..10 {
        assert_eq!(stage.in_process("GET", &path).await.0, 200);
    }
    assert_eq!(stage.in_process("GET", &path).await.0, 429);
}

#[tokio::test(start_paused = true)]
async fn throttled_handshake_is_refused_with_429_and_invokes_no_connect_function() {
    let mut config = config();
    config.limits.requests = Throttle::per_second(1.0, 1);
    let mut stage = Stage::in_memory(config, echo_body);
    let _client = stage.client().await;
    let refused = stage.refused(request("/prod")).await;
    assert_eq!(refused.status, 429);
    assert!(
        refused.body.starts_with(r#"{"message": "Too Many Requests", "connectionId":""#),
        "{}",
        refused.body
    );
    stage.no_event().await;
    advance(Duration::from_secs(1)).await;
    stage.client().await;
}

#[tokio::test(start_paused = true)]
async fn throttled_message_yields_an_error_frame_unless_disabled_by_configuration() {
    for frame in [true, false] {
        let mut config = config();
        config.limits.requests = Throttle::per_second(1.0, 1);
        config.unconfirmed.throttled_message_frame = frame;
        let mut stage = Stage::in_memory(config, echo_body);
        let mut client = stage.client().await;
        client.send("too early").await;
        if frame {
            let text = client.text().await;
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(text, client.notice("Too Many Requests", frame["requestId"].as_str().unwrap()));
        }
        stage.no_event().await;
        advance(Duration::from_secs(1)).await;
        client.send("in time").await;
        assert_eq!(client.text().await, "in time", "the socket stays open after a throttled message");
    }
}

#[tokio::test(start_paused = true)]
async fn throttle_of_a_route_does_not_limit_other_routes() {
    let mut config = config();
    config.routes.retain(|route| route.key != "note");
    // Exactly enough tokens for the handshake, two notes, one echo, and one GET of the connection.
    config.limits.requests = Throttle::per_second(1.0, 5);
    let config = config
        .route(Route::two_way("note", "note").throttle(Throttle::per_second(0.5, 2)))
        .route(Route::two_way("never", "never").throttle(Throttle::per_second(1.0, 0)));
    let mut stage = Stage::in_memory(config, echo_body);
    let mut client = stage.client().await;
    let note = r#"{"action":"note"}"#;
    for _ in 0..2 {
        client.send(note).await;
        assert_eq!(client.text().await, note);
    }
    for message in [note, r#"{"action":"never"}"#] {
        client.send(message).await;
        assert!(client.text().await.starts_with(r#"{"message": "Too Many Requests""#), "{message}");
    }
    client.send(r#"{"action":"echo"}"#).await;
    assert_eq!(client.text().await, r#"{"action":"echo"}"#, "messages of other routes are not throttled");
    let path = format!("/prod/@connections/{}", client.id);
    assert_eq!(
        stage.in_process("GET", &path).await.0,
        200,
        "a message rejected by its route's throttle takes no token from the API's bucket"
    );
    advance(Duration::from_secs(2)).await;
    client.send(note).await;
    assert_eq!(client.text().await, note);
}
