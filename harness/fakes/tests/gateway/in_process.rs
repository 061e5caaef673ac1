//! Tests of the gateway without network sockets, as used by a stage that runs in one process.

use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_apigatewaymanagement::Client as Management;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::timeout::TimeoutConfig;
use aws_sdk_apigatewaymanagement::config::{
    Credentials, IdentityCache, Region, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_apigatewaymanagement::primitives::Blob;
use axum::extract::ConnectInfo;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use streamer_fakes::gateway::Gateway;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::stage::{Gate, Stage, config, echo_body, reply, request, request_with};

/// Returns an SDK client of the management API without retries and timeouts, which would need timers.
pub(crate) fn management(client: SharedHttpClient) -> Management {
    let config = aws_sdk_apigatewaymanagement::Config::builder()
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url("http://gateway.localhost/prod")
        .http_client(client)
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Management::from_conf(config)
}

async fn open(gateway: &Gateway, path: &str) -> WebSocketStream<DuplexStream> {
    let opened = gateway.connect(request(path)).await.unwrap();
    WebSocketStream::from_raw_socket(opened.stream, Role::Client, None).await
}

fn id(event: &Value) -> String {
    event["requestContext"]["connectionId"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn websocket_over_an_in_memory_pipe_runs_on_virtual_time() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let started = Instant::now();
    let mut request = request_with("/prod/?token=t", &[("user-agent", "test/1")]);
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 9], 1))));
    let opened = stage.gateway.connect(request).await.unwrap();
    assert_eq!(opened.headers["upgrade"], "websocket");
    let event = stage.event_of("connect").await;
    assert_eq!(event["queryStringParameters"], json!({ "token": "t" }));
    assert_eq!(
        event["requestContext"]["identity"],
        json!({ "userAgent": "test/1", "sourceIp": "192.0.2.9" })
    );

    let mut socket = WebSocketStream::from_raw_socket(opened.stream, Role::Client, None).await;
    // The text is larger than the capacity of the pipe.
    let text = "x".repeat(30_000);
    socket.send(Message::text(&*text)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), text);
    stage.event_of("default").await;
    let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
        panic!("expected the close frame of the idle timeout");
    };
    assert_eq!((u16::from(frame.code), started.elapsed().as_secs()), (1001, 600));
    assert_eq!(id(&stage.event_of("disconnect").await), id(&event));
    assert_eq!(stage.gateway.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn rejected_in_process_handshake_returns_the_response_as_an_error() {
    let stage = Stage::in_memory(config(), async |_, _| reply(json!({ "statusCode": 401, "body": "no" })));
    let refused = stage.gateway.connect(request("/prod")).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.body().as_ref()), (401, b"no".as_slice()));
    for path in ["/", "/other", "/prod/more", "//prod"] {
        let refused = stage.gateway.connect(request(path)).await.unwrap_err();
        let body = br#"{"message":"Forbidden"}"#;
        assert_eq!((refused.status().as_u16(), refused.body().as_ref()), (403, body.as_slice()), "{path}");
    }
    let mut keyless = request("/prod");
    keyless.headers_mut().remove("sec-websocket-key");
    assert_eq!(stage.gateway.connect(keyless).await.unwrap_err().status(), 400);
}

#[tokio::test(start_paused = true)]
async fn aborted_in_process_connect_triggers_disconnect_after_connect_ends() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let mut stage = Stage::in_memory(config(), move |function, _| {
        let waiting = waiting.clone();
        async move {
            if function == "connect" {
                waiting.wait().await;
            }
            reply(json!({ "statusCode": 200 }))
        }
    });
    let gateway = stage.gateway.clone();
    let connecting = tokio::spawn(async move { gateway.connect(request("/prod")).await });
    let connected = stage.event_of("connect").await;
    connecting.abort();
    stage.no_event().await;
    gate.open();
    let disconnected = stage.event_of("disconnect").await;
    assert_eq!(id(&disconnected), id(&connected));
    assert_eq!(disconnected["requestContext"]["disconnectStatusCode"], 1006);
}

#[tokio::test(start_paused = true)]
async fn aws_sdk_posts_to_gets_and_deletes_a_connection_in_process() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut socket = open(&stage.gateway, "/prod").await;
    let connection = id(&stage.event_of("connect").await);
    let sdk = management(stage.gateway.http_client());

    sdk.post_to_connection().connection_id(&connection).data(Blob::new("news")).send().await.unwrap();
    let frame = socket.next().await.unwrap().unwrap();
    assert_eq!(frame, Message::Text(Utf8Bytes::from_static("news")));
    let found = sdk.get_connection().connection_id(&connection).send().await.unwrap();
    assert_eq!(found.identity().unwrap().source_ip(), Some("127.0.0.1"));
    assert_eq!(found.connected_at().unwrap().to_millis().unwrap(), 1_707_503_008_941);
    sdk.delete_connection().connection_id(&connection).send().await.unwrap();
    assert!(matches!(socket.next().await.unwrap().unwrap(), Message::Close(Some(_))));
    stage.event_of("disconnect").await;

    let post = sdk.post_to_connection().connection_id(&connection).data(Blob::new("late"));
    let error = post.send().await.unwrap_err().into_service_error();
    assert!(error.is_gone_exception(), "{error:?}");
    let post = sdk.post_to_connection().connection_id("not an id").data(Blob::new("late"));
    let error = post.send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("BadRequestException"));
    let large = sdk.post_to_connection().connection_id(&connection).data(Blob::new(vec![b'x'; 131_073]));
    let error = large.send().await.unwrap_err().into_service_error();
    assert!(error.is_payload_too_large_exception(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn in_process_post_to_a_client_that_does_not_read_is_429_after_1_s() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let _socket = open(&stage.gateway, "/prod").await;
    let connection = id(&stage.event_of("connect").await);
    let sdk = management(stage.gateway.http_client());
    let post = || sdk.post_to_connection().connection_id(&connection).data(Blob::new(vec![b'x'; 30_000]));
    let started = Instant::now();
    let mut sent = 0;
    let error = loop {
        match post().send().await {
            Ok(_) => sent += 1,
            Err(error) => break error.into_service_error(),
        }
    };
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    assert_eq!(
        (sent, started.elapsed()),
        (17, Duration::from_secs(1)),
        "17 posts succeed (16 frames in the queue, one being sent) and the next fails after 1 s"
    );
}
