//! Tests of the end of a connection: the client's close frame, and the `$disconnect` event.

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use streamer_fakes::gateway::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::stage::{Client, NOW, Stage, config, echo_body, reply, request};

/// Returns the close code and reason of the next event, which must be a `$disconnect`.
async fn disconnect_status(stage: &mut Stage) -> (u64, String) {
    let event = stage.event_of("disconnect").await;
    let context = &event["requestContext"];
    let reason = context["disconnectReason"].as_str().unwrap().to_owned();
    (context["disconnectStatusCode"].as_u64().unwrap(), reason)
}

/// Sends `text` as one message in frames of `size` bytes.
async fn send_in_frames(client: &mut Client, text: &str, size: usize) {
    let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        let opcode = OpCode::Data(if n == 0 { Data::Text } else { Data::Continue });
        let frame = Frame::message(Bytes::copy_from_slice(chunk), opcode, n + 1 == chunks.len());
        // The gateway may close the connection before all frames are sent.
        if client.socket.send(Message::Frame(frame)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_has_the_same_keys_as_on_aws() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    stage.clock.set(NOW + Duration::from_millis(1_545));
    client.socket.close(None).await.unwrap();
    insta::assert_json_snapshot!(stage.event_of("disconnect").await);
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_reports_the_close_code_and_reason_of_the_client() {
    let frame = |code: u16, reason: &'static str| CloseFrame { code: code.into(), reason: reason.into() };
    for (close, expected) in [
        (None, (1005, "Client-side close frame status not set")),
        (Some(frame(1001, "")), (1001, "")),
        (Some(frame(1000, "done")), (1000, "done")),
        (Some(frame(4_000, "bye")), (4_000, "bye")),
    ] {
        let mut stage = Stage::in_memory(config(), echo_body);
        let mut client = stage.client().await;
        client.socket.close(close).await.unwrap();
        assert_eq!(disconnect_status(&mut stage).await, (expected.0, expected.1.to_owned()));
        assert!(
            matches!(client.receive().await, Message::Close(_)),
            "the gateway answers the client's close frame"
        );
        assert_eq!(stage.gateway.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_of_a_client_without_a_close_frame_has_code_1006() {
    let mut config = config();
    config.unconfirmed.abnormal_close_reason = "Vanished".to_owned();
    let mut stage = Stage::in_memory(config, echo_body);
    drop(stage.client().await);
    assert_eq!(disconnect_status(&mut stage).await, (1006, "Vanished".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn message_sent_right_before_a_close_frame_still_reaches_its_function() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    client.socket.feed(Message::text("last")).await.unwrap();
    client.socket.close(None).await.unwrap();
    drop(client);
    let mut called = [stage.event().await.0, stage.event().await.0];
    called.sort();
    assert_eq!(called, ["default", "disconnect"]);
}

#[tokio::test(start_paused = true)]
async fn pending_post_is_410_when_the_client_vanishes_even_while_disconnect_runs() {
    let mut config = config();
    config.limits.frames_waiting = 1;
    let mut stage = Stage::in_memory(config, async |function, _| {
        if function == "disconnect" {
            std::future::pending().await
        }
        reply(json!({ "statusCode": 200 }))
    });
    let client = stage.client().await;
    let (id, frame) = (client.id.clone(), vec![b'x'; 100_000]);
    for _ in 0..2 {
        assert_eq!(stage.post(&id, &frame).await.status, 200);
    }
    let leave = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(client);
    };
    assert_eq!(tokio::join!(stage.post(&id, &frame), leave).0.status, 410);
    assert_eq!(disconnect_status(&mut stage).await.0, 1006);
}

#[tokio::test(start_paused = true)]
async fn binary_frame_closes_the_connection_with_1003() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    client.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.closed().await.0, 1003);
    assert_eq!(disconnect_status(&mut stage).await.0, 1003);
}

#[tokio::test(start_paused = true)]
async fn frame_of_32_kib_and_message_of_128_kib_are_accepted() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let frame = "x".repeat(32 * 1_024);
    client.send(&frame).await;
    assert_eq!(stage.event_of("default").await["body"].as_str().map(str::len), Some(32 * 1_024));
    assert_eq!(client.text().await.len(), 32 * 1_024);
    send_in_frames(&mut client, &frame.repeat(4), 32 * 1_024).await;
    assert_eq!(stage.event_of("default").await["body"].as_str().map(str::len), Some(128 * 1_024));
    assert_eq!(client.text().await.len(), 128 * 1_024);
}

#[tokio::test(start_paused = true)]
async fn frame_above_32_kib_closes_the_connection_with_1009() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    client.send(&"x".repeat(32 * 1_024 + 1)).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(disconnect_status(&mut stage).await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn message_above_128_kib_closes_the_connection_with_1009() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    send_in_frames(&mut client, &"x".repeat(128 * 1_024 + 1), 32 * 1_024).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(disconnect_status(&mut stage).await.0, 1009);
}

#[tokio::test]
async fn client_that_is_still_sending_receives_the_close_frame_without_a_tcp_reset() {
    let mut stage = Stage::on_a_port(config(), echo_body).await;
    let mut client = stage.client().await;
    client.send(&"x".repeat(4 * 1_024 * 1_024)).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(disconnect_status(&mut stage).await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn invalid_utf_8_text_closes_with_1007_and_an_unmasked_frame_with_1002() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let text = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    client.socket.send(Message::Frame(text)).await.unwrap();
    assert_eq!(client.closed().await.0, 1007);
    assert_eq!(disconnect_status(&mut stage).await.0, 1007);

    let mut client = stage.client().await;
    client.socket.get_mut().write_all(&[0x81, 0x01, b'x']).await.unwrap();
    assert_eq!(client.closed().await.0, 1002);
    assert_eq!(disconnect_status(&mut stage).await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn connection_idle_for_10_minutes_is_closed_with_1001() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let started = Instant::now();
    advance(Duration::from_secs(500)).await;
    client.send("hi").await;
    assert_eq!(client.text().await, "hi");
    stage.event_of("default").await;
    assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 500 + 600, "a message restarts the idle timeout");
    assert_eq!(disconnect_status(&mut stage).await, (1001, "Going away".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn post_to_a_client_restarts_its_idle_timeout() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let started = Instant::now();
    advance(Duration::from_secs(300)).await;
    assert_eq!(stage.post(&client.id, b"news").await.status, 200);
    assert_eq!(client.text().await, "news");
    assert_eq!(client.closed().await.0, 1001);
    assert_eq!(started.elapsed().as_secs(), 300 + 600);
}

#[tokio::test(start_paused = true)]
async fn client_ping_restarts_the_idle_timeout_only_if_ping_resets_idle_is_on() {
    for (resets, expected) in [(false, 600), (true, 300 + 600)] {
        let mut config = config();
        config.unconfirmed.ping_resets_idle = resets;
        let mut stage = Stage::in_memory(config, echo_body);
        let mut client = stage.client().await;
        let started = Instant::now();
        advance(Duration::from_secs(300)).await;
        client.socket.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        assert_eq!(client.receive().await, Message::Pong(Bytes::from_static(b"?")));
        client.socket.send(Message::Pong(Bytes::new())).await.unwrap();
        assert_eq!(client.closed().await.0, 1001);
        assert_eq!(started.elapsed().as_secs(), expected, "with ping_resets_idle = {resets}");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_is_closed_with_1001_after_2_hours() {
    let mut config = config();
    config.unconfirmed.lifetime_close_reason = "Too old".to_owned();
    let mut stage = Stage::in_memory(config, echo_body);
    let mut client = stage.client().await;
    let started = Instant::now();
    for _ in 0..14 {
        advance(Duration::from_secs(500)).await;
        client.send("hi").await;
        assert_eq!(client.text().await, "hi");
        stage.event_of("default").await;
    }
    assert_eq!(client.closed().await, (1001, "Too old".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 7_200);
    assert_eq!(disconnect_status(&mut stage).await, (1001, "Too old".to_owned()));
}

#[tokio::test]
async fn socket_of_a_closing_client_ends_while_the_disconnect_function_still_runs() {
    let mut stage = Stage::on_a_port(config(), async |function, _| {
        if function == "disconnect" {
            std::future::pending().await
        }
        reply(json!({ "statusCode": 200 }))
    })
    .await;
    let mut client = stage.client().await;
    client.socket.close(None).await.unwrap();
    assert!(matches!(client.receive().await, Message::Close(_)));
    let end = tokio::time::timeout(Duration::from_secs(20), client.socket.get_mut().read(&mut [0])).await;
    assert_eq!(end.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_answer_the_close_frame_is_dropped_after_1_s() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let _silent_client = stage.client().await;
    let started = Instant::now();
    stage.gateway.shutdown().await;
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    assert_eq!(disconnect_status(&mut stage).await.0, 1001);
}

#[tokio::test(start_paused = true)]
async fn gateway_shutdown_closes_every_socket_with_1001_and_runs_disconnect() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut clients = [stage.client().await, stage.client().await];
    assert_eq!(stage.gateway.connections(), 2);
    let gateway = stage.gateway.clone();
    let shutdown = tokio::spawn(async move { gateway.shutdown().await });
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1001);
        assert!(
            client.socket.close(None).await.is_err(),
            "a second close fails, because the client has already answered the close frame"
        );
    }
    drop(clients);
    shutdown.await.unwrap();
    assert_eq!(stage.gateway.connections(), 0);
    for _ in 0..2 {
        assert_eq!(disconnect_status(&mut stage).await, (1001, "Going away".to_owned()));
    }
    assert_eq!(stage.refused(request("/prod")).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn gateway_shutdown_stops_waiting_for_disconnect_after_the_shutdown_timeout() {
    let functions = async |function: String, _: Value| {
        if function == "disconnect" {
            std::future::pending().await
        }
        reply(json!({ "statusCode": 200 }))
    };
    let mut config: ApiConfig = config();
    config.limits.shutdown_timeout = Duration::from_secs(3);
    let mut stage = Stage::in_memory(config, functions);
    let _client = stage.client().await;
    let started = Instant::now();
    stage.gateway.shutdown().await;
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}
