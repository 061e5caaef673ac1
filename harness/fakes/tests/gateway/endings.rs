//! How a connection ends: what the client sees, and what `$disconnect` is told.

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

use crate::stage::{Client, NOW, Stage, config, obey, reply, request};

/// The pair that the next event tells, which must be a `$disconnect`.
async fn told(stage: &mut Stage) -> (u64, String) {
    let event = stage.event_of("disconnect").await;
    let context = &event["requestContext"];
    let reason = context["disconnectReason"].as_str().unwrap().to_owned();
    (context["disconnectStatusCode"].as_u64().unwrap(), reason)
}

/// Sends `text` in frames of `size` bytes.
async fn send_in_frames(client: &mut Client, text: &str, size: usize) {
    let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        let opcode = OpCode::Data(if n == 0 { Data::Text } else { Data::Continue });
        let frame = Frame::message(Bytes::copy_from_slice(chunk), opcode, n + 1 == chunks.len());
        // The gateway may have closed before all is sent.
        if client.socket.send(Message::Frame(frame)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_row_key_for_key() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    stage.clock.set(NOW + Duration::from_millis(1_545));
    client.socket.close(None).await.unwrap();
    insta::assert_json_snapshot!(stage.event_of("disconnect").await);
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_row_tells_the_clients_close() {
    let frame = |code: u16, reason: &'static str| CloseFrame { code: code.into(), reason: reason.into() };
    for (close, expected) in [
        (None, (1005, "Client-side close frame status not set")),
        (Some(frame(1001, "")), (1001, "")),
        (Some(frame(1000, "done")), (1000, "done")),
        (Some(frame(4_000, "bye")), (4_000, "bye")),
    ] {
        let mut stage = Stage::in_memory(config(), obey);
        let mut client = stage.client().await;
        client.socket.close(close).await.unwrap();
        assert_eq!(told(&mut stage).await, (expected.0, expected.1.to_owned()));
        assert!(matches!(client.receive().await, Message::Close(_)), "the closing handshake is completed");
        assert_eq!(stage.gateway.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_row_of_a_client_that_vanishes_is_1006() {
    let mut config = config();
    config.unconfirmed.abnormal_close_reason = "Vanished".to_owned();
    let mut stage = Stage::in_memory(config, obey);
    drop(stage.client().await);
    assert_eq!(told(&mut stage).await, (1006, "Vanished".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_message_sent_right_before_the_close_still_reaches_its_function() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    client.socket.feed(Message::text("last")).await.unwrap();
    client.socket.close(None).await.unwrap();
    drop(client);
    let mut called = [stage.event().await.0, stage.event().await.0];
    called.sort();
    assert_eq!(called, ["default", "disconnect"]);
}

#[tokio::test(start_paused = true)]
async fn a_post_that_waits_for_a_client_that_vanishes_is_410_although_disconnect_still_runs() {
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
    assert_eq!(told(&mut stage).await.0, 1006);
}

#[tokio::test(start_paused = true)]
async fn binary_frame_row_is_closed_with_1003() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    client.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.closed().await.0, 1003);
    assert_eq!(told(&mut stage).await.0, 1003);
}

#[tokio::test(start_paused = true)]
async fn size_row_up_to_the_limits_is_accepted() {
    let mut stage = Stage::in_memory(config(), obey);
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
async fn size_row_a_frame_above_32_kib_is_closed_with_1009() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    client.send(&"x".repeat(32 * 1_024 + 1)).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(told(&mut stage).await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn size_row_a_message_above_128_kib_is_closed_with_1009() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    send_in_frames(&mut client, &"x".repeat(128 * 1_024 + 1), 32 * 1_024).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(told(&mut stage).await.0, 1009);
}

#[tokio::test]
async fn size_row_a_client_that_still_sends_sees_the_close_frame_and_no_reset() {
    let mut stage = Stage::on_a_port(config(), obey).await;
    let mut client = stage.client().await;
    client.send(&"x".repeat(4 * 1_024 * 1_024)).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(told(&mut stage).await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn text_that_is_not_utf_8_is_closed_with_1007_and_an_unmasked_frame_with_1002() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    let text = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    client.socket.send(Message::Frame(text)).await.unwrap();
    assert_eq!(client.closed().await.0, 1007);
    assert_eq!(told(&mut stage).await.0, 1007);

    let mut client = stage.client().await;
    client.socket.get_mut().write_all(&[0x81, 0x01, b'x']).await.unwrap();
    assert_eq!(client.closed().await.0, 1002);
    assert_eq!(told(&mut stage).await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn lifetime_row_idle_10_min_closes_with_1001() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    let started = Instant::now();
    advance(Duration::from_secs(500)).await;
    client.send("hi").await;
    assert_eq!(client.text().await, "hi");
    stage.event_of("default").await;
    assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 500 + 600, "a message counts from its own time");
    assert_eq!(told(&mut stage).await, (1001, "Going away".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn lifetime_row_idle_is_reset_by_a_post_to_the_client() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut client = stage.client().await;
    let started = Instant::now();
    advance(Duration::from_secs(300)).await;
    assert_eq!(stage.post(&client.id, b"news").await.status, 200);
    assert_eq!(client.text().await, "news");
    assert_eq!(client.closed().await.0, 1001);
    assert_eq!(started.elapsed().as_secs(), 300 + 600);
}

#[tokio::test(start_paused = true)]
async fn pings_row_resetting_the_idle_timer_is_an_option() {
    for (resets, expected) in [(false, 600), (true, 300 + 600)] {
        let mut config = config();
        config.unconfirmed.ping_resets_idle = resets;
        let mut stage = Stage::in_memory(config, obey);
        let mut client = stage.client().await;
        let started = Instant::now();
        advance(Duration::from_secs(300)).await;
        client.socket.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        assert_eq!(client.receive().await, Message::Pong(Bytes::from_static(b"?")));
        client.socket.send(Message::Pong(Bytes::new())).await.unwrap();
        assert_eq!(client.closed().await.0, 1001);
        assert_eq!(started.elapsed().as_secs(), expected, "with the option {resets}");
    }
}

#[tokio::test(start_paused = true)]
async fn lifetime_row_connection_2_h_closes_with_1001() {
    let mut config = config();
    config.unconfirmed.lifetime_close_reason = "Too old".to_owned();
    let mut stage = Stage::in_memory(config, obey);
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
    assert_eq!(told(&mut stage).await, (1001, "Too old".to_owned()));
}

#[tokio::test]
async fn a_client_that_closes_sees_the_end_of_its_socket_while_disconnect_still_runs() {
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
async fn a_client_that_does_not_answer_the_close_is_left_after_a_while() {
    let mut stage = Stage::in_memory(config(), obey);
    let _deaf = stage.client().await;
    let started = Instant::now();
    stage.gateway.shutdown().await;
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    assert_eq!(told(&mut stage).await.0, 1001);
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_every_socket_with_1001_and_lets_disconnect_run() {
    let mut stage = Stage::in_memory(config(), obey);
    let mut clients = [stage.client().await, stage.client().await];
    assert_eq!(stage.gateway.connections(), 2);
    let gateway = stage.gateway.clone();
    let shutdown = tokio::spawn(async move { gateway.shutdown().await });
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1001);
        assert!(client.socket.close(None).await.is_err(), "the close has been answered already");
    }
    drop(clients);
    shutdown.await.unwrap();
    assert_eq!(stage.gateway.connections(), 0);
    for _ in 0..2 {
        assert_eq!(told(&mut stage).await, (1001, "Going away".to_owned()));
    }
    assert_eq!(stage.refused(request("/prod")).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn shutdown_is_bounded() {
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
