use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use streamer::protocol::{ErrorCode, Frame, Message, RejectedMessage};
use streamer_harness::client::ClientError;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite;

use crate::{ask, client, stage, token};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_are_refused_and_other_clients_are_not_affected() {
    let stage = stage().await;
    let mut ann = client(&stage, "ann").await;
    ann.request("echo_async", "r1", &json!({"message": "hi", "rounds": 10})).await.unwrap();

    let mut eve = client(&stage, "eve").await;
    let deep = format!(r#"{{"id":"r1","action":"echo","payload":{}"#, "[".repeat(30_000));
    for text in [
        "",
        "null",
        "[1]",
        r#"{"id":"r1"#,
        r#"{"id":"r1","action":"#,
        r#"{"id":"r1","action":7}"#,
        r#"{"id":"r1","action":"echo","payload":"\ud800"}"#,
        "{\"id\":\"r1\",\"action\":\"\u{0}\"}",
        &deep,
    ] {
        eve.send_text(text).await.unwrap();
        let Frame::Error { request_id, error, seq: None, .. } = eve.next_frame().await.unwrap() else {
            panic!("the refused message is answered with an error frame: {text}")
        };
        let RejectedMessage { id, error: expected } = Message::parse(text).unwrap_err();
        assert_eq!((request_id, error), (id, expected));
    }
    let unknown = ask(&mut eve, "fly", "r2", json!(null)).await;
    assert!(
        matches!(&unknown[..], [Frame::Error { error, .. }] if error.code == ErrorCode::InvalidAction),
        "{unknown:?}"
    );
    eve.send_text("x".repeat(40_000)).await.unwrap();
    let closed = eve.next_text().await.unwrap_err();
    assert!(matches!(&closed, ClientError::Closed { code: Some(1009), .. }), "{closed}");

    let url = format!("{}?token={}", stage.ws_url(), token(&stage, "eve"));
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.send(tungstenite::Message::binary(vec![0xc1; 100])).await.unwrap();
    let tungstenite::Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else {
        panic!("the gateway closes the connection after a binary frame")
    };
    assert_eq!(u16::from(close.code), 1003);

    let frames = crate::until_terminal(&mut ann).await;
    assert!(matches!(frames.last(), Some(Frame::Complete { .. })), "{frames:?}");
    stage.shutdown().await;
}
