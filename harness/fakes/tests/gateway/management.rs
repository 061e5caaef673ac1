//! Tests of the management API, `/{stage}/@connections/{connection_id}`.

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use streamer_fakes::lambda::InvokeError;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::stage::{Answer, NOW, Stage, config, echo_body, reply, request_with};

const UNKNOWN: &str = "/prod/@connections/R1kmxc2VNjMCFIA=";

fn assert_gone(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str(), answer.error_type()), (410, "", "GoneException"));
}

#[tokio::test(start_paused = true)]
async fn post_to_a_connection_is_200_with_an_empty_body() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let answer = stage.post(&client.id, "{\"a\":\"é\"}".as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-amzn-requestid"].len(), 36);
    assert_eq!(answer.headers["x-amz-apigw-id"].len(), 16);
    assert_eq!(client.text().await, r#"{"a":"é"}"#);
}

#[tokio::test(start_paused = true)]
async fn post_to_a_percent_encoded_connection_id_reaches_the_client() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let id = client.id.replace('=', "%3D");
    for at in ["@", "%40"] {
        assert_eq!(
            stage.http("POST", &format!("/prod/{at}connections/{id}"), at.as_bytes()).await.status,
            200
        );
        assert_eq!(client.text().await, at);
    }
}

#[tokio::test(start_paused = true)]
async fn management_call_for_a_gone_connection_is_410_with_an_empty_body() {
    let mut stage = Stage::in_memory(config(), echo_body);
    for method in ["POST", "GET", "DELETE"] {
        assert_gone(&stage.http(method, UNKNOWN, b"").await);
    }
    let mut client = stage.client().await;
    client.socket.close(None).await.unwrap();
    stage.event_of("disconnect").await;
    assert_gone(&stage.post(&client.id, b"late").await);
}

#[tokio::test(start_paused = true)]
async fn management_call_with_a_malformed_connection_id_is_400() {
    let stage = Stage::in_memory(config(), echo_body);
    for method in ["POST", "GET", "DELETE"] {
        let answer = stage.http(method, "/prod/@connections/no%22id", b"").await;
        assert_eq!((answer.status, answer.error_type()), (400, "BadRequestException"));
        assert_eq!(answer.body, r#"{"message":"Invalid connectionId: no\"id"}"#);
    }
}

#[tokio::test(start_paused = true)]
async fn management_call_with_the_path_of_an_unknown_stage_is_403() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let client = stage.client().await;
    for method in ["POST", "GET", "DELETE"] {
        let answer = stage.http(method, &format!("/dev/@connections/{}", client.id), b"").await;
        assert_eq!((answer.status, answer.error_type()), (403, "ForbiddenException"));
        assert_eq!(answer.body, r#"{"message":"Forbidden"}"#);
    }
    assert_eq!(stage.gateway.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn post_above_131072_bytes_is_413() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let (body, id) = (vec![b'x'; 131_073], client.id.clone());
    let answer = stage.post(&client.id, &body).await;
    assert_eq!((answer.status, answer.error_type()), (413, "PayloadTooLargeException"));
    let (answer, frame) = tokio::join!(stage.post(&id, &body[1..]), client.receive());
    assert_eq!((answer.status, frame.len()), (200, 131_072));
}

#[tokio::test(start_paused = true)]
async fn post_of_bytes_that_are_not_utf_8_is_400() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let client = stage.client().await;
    let answer = stage.post(&client.id, b"\xff").await;
    assert_eq!((answer.status, answer.error_type()), (400, "BadRequestException"));
    assert_eq!(answer.body, r#"{"message":"the body is not UTF-8"}"#);
}

#[tokio::test(start_paused = true)]
async fn post_to_a_client_that_does_not_read_is_429_and_is_410_after_a_delete() {
    let mut config = config();
    config.limits.frames_waiting = 1;
    let mut stage = Stage::in_memory(config, echo_body);
    let client = stage.client().await;
    let frame = vec![b'x'; 100_000];
    // The socket is sending one frame, and one frame waits in the queue.
    for _ in 0..2 {
        assert_eq!(stage.post(&client.id, &frame).await.status, 200);
    }
    let started = tokio::time::Instant::now();
    let answer = stage.post(&client.id, &frame).await;
    assert_eq!((answer.status, answer.error_type()), (429, "LimitExceededException"));
    assert_eq!(started.elapsed(), Duration::from_secs(1));

    let late = stage.post(&client.id, &frame);
    let id = client.id.clone();
    let leave = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        stage.http("DELETE", &format!("/prod/@connections/{id}"), b"").await
    };
    let (late, deleted) = tokio::join!(late, leave);
    assert_gone(&late);
    assert_eq!(deleted.status, 204);
}

#[tokio::test(start_paused = true)]
async fn get_connection_returns_iso_8601_times_under_lower_camel_case_keys() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let (mut client, _) = stage.connect(request_with("/prod", &[("user-agent", "test/1")])).await.unwrap();
    client.id =
        stage.event_of("connect").await["requestContext"]["connectionId"].as_str().unwrap().to_owned();
    let path = format!("/prod/@connections/{}", client.id);

    stage.clock.set(NOW + Duration::from_secs(30));
    client.socket.send(Message::Ping(Bytes::new())).await.unwrap();
    client.receive().await;
    let answer = stage.http("GET", &path, b"").await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    assert_eq!(
        answer.body,
        r#"{"identity":{"sourceIp":"192.0.2.1","userAgent":"test/1"},"connectedAt":"2024-02-09T18:23:28.941Z","lastActiveAt":"2024-02-09T18:23:28.941Z"}"#
    );

    client.send("hi").await;
    client.text().await;
    let body: Value = serde_json::from_str(&stage.http("GET", &path, b"").await.body).unwrap();
    assert_eq!(body["lastActiveAt"], "2024-02-09T18:23:58.941Z");
    assert_eq!(body["connectedAt"], "2024-02-09T18:23:28.941Z");
}

#[tokio::test(start_paused = true)]
async fn delete_connection_is_204_and_triggers_disconnect() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    assert_eq!(stage.post(&client.id, b"last frame").await.status, 200);
    let path = format!("/prod/@connections/{}", client.id);
    let answer = stage.http("DELETE", &path, b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_gone(&stage.http("DELETE", &path, b"").await);
    assert_eq!(
        client.text().await,
        "last frame",
        "a frame accepted before the DELETE is sent before the close"
    );
    assert_eq!(client.closed().await, (1000, "Connection Closed Normally".to_owned()));
    let event = stage.event_of("disconnect").await;
    assert_eq!(event["requestContext"]["disconnectStatusCode"], 1000);
    assert_eq!(stage.gateway.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn close_code_after_delete_is_configurable_and_a_failed_disconnect_has_no_effect() {
    let mut config = config();
    config.unconfirmed.delete_close = (4_001, "evicted".to_owned());
    let mut stage = Stage::in_memory(config, async |function, _| match function.as_str() {
        "disconnect" => Err(InvokeError::Throttled),
        _ => reply(json!({ "statusCode": 200 })),
    });
    let mut client = stage.client().await;
    stage.http("DELETE", &format!("/prod/@connections/{}", client.id), b"").await;
    assert_eq!(client.closed().await, (4_001, "evicted".to_owned()));
    stage.event_of("disconnect").await;
    stage.client().await;
}
