//! Tests of the handshake: events, accepted and rejected connections.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use streamer_fakes::lambda::InvokeError;

use crate::stage::{Gate, Stage, config, echo_body, reply, request, request_with};

/// Returns the event with a placeholder for the client's random `Sec-WebSocket-Key`.
fn without_key(mut event: Value) -> Value {
    for (map, value) in [("headers", json!("[key]")), ("multiValueHeaders", json!(["[key]"]))] {
        let key = event[map].get_mut("Sec-WebSocket-Key").expect("a handshake has a `Sec-WebSocket-Key`");
        *key = value;
    }
    event
}

#[tokio::test(start_paused = true)]
async fn connect_event_has_the_same_keys_as_on_aws() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let request = request_with(
        "/prod?token=a.b.c&x=1&x=%C3%A9",
        &[("user-agent", "test/1"), ("x-tag", "a"), ("x-tag", "b"), ("x-forwarded-for", "10.0.0.7")],
    );
    let _client = stage.connect(request).await.unwrap();
    insta::assert_json_snapshot!(without_key(stage.event_of("connect").await));
}

#[tokio::test(start_paused = true)]
async fn connect_event_without_query_has_no_query_parameters() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut open = Vec::new();
    for path in ["/prod", "/prod/", "/prod?"] {
        open.push(stage.connect(request(path)).await.unwrap());
        let event = stage.event_of("connect").await;
        let keys: BTreeSet<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            BTreeSet::from(["headers", "isBase64Encoded", "multiValueHeaders", "requestContext"]),
            "{path}"
        );
        assert_eq!(
            event["requestContext"]["identity"],
            json!({ "sourceIp": "192.0.2.1" }),
            "identity has no userAgent if the client sent none"
        );
    }
}

#[tokio::test]
async fn connect_event_source_ip_is_the_address_of_the_peer() {
    let mut stage = Stage::on_a_port(config(), echo_body).await;
    let (mut client, _) = stage.connect(request("/prod")).await.unwrap();
    assert_eq!(stage.event_of("connect").await["requestContext"]["identity"]["sourceIp"], "127.0.0.1");
    client.send(r#"{"action":"echo"}"#).await;
    assert_eq!(client.text().await, r#"{"action":"echo"}"#);
}

#[tokio::test(start_paused = true)]
async fn connect_reply_with_a_2xx_status_accepts_the_handshake_with_101() {
    let stage = Stage::in_memory(config(), async |_, _| reply(json!({ "statusCode": 204 })));
    let (_client, response) = stage.connect(request("/prod")).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(stage.gateway.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn status_and_body_of_a_connect_reply_other_than_2xx_reach_the_client() {
    let stage = Stage::in_memory(config(), async |_, event: Value| {
        let status = event["queryStringParameters"]["status"].as_str().unwrap();
        reply(json!({
            "statusCode": status,
            "headers": { "Location": "https://example.com", "Content-Length": "7", "Upgrade": "x" },
            "body": r#"{"code":"EXPIRED"}"#,
        }))
    });
    for status in [301, 401, 403, 500] {
        let refused = stage.refused(request(&format!("/prod?status={status}"))).await;
        assert_eq!((refused.status, refused.body.as_str()), (status, r#"{"code":"EXPIRED"}"#));
        assert_eq!(refused.headers["location"], "https://example.com");
        assert_eq!(refused.headers["content-length"], "18");
        assert_eq!(refused.headers["content-type"], "application/json");
        assert!(!refused.headers.contains_key("upgrade"));
    }
    assert_eq!(stage.gateway.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn body_of_a_refused_connect_is_withheld_if_connect_refusal_body_is_off() {
    let mut config = config();
    config.unconfirmed.connect_refusal_body = false;
    let stage = Stage::in_memory(config, async |_, _| {
        reply(json!({ "statusCode": 401, "headers": { "x-a": "1" }, "body": "secret" }))
    });
    let refused = stage.refused(request("/prod")).await;
    assert_eq!((refused.status, refused.body.as_str()), (401, ""));
    assert!(!refused.headers.contains_key("x-a"));
}

#[tokio::test(start_paused = true)]
async fn failed_connect_function_rejects_the_handshake_with_502() {
    let mut stage = Stage::in_memory(config(), async |_, event: Value| {
        match event["queryStringParameters"]["how"].as_str() {
            Some("error") => {
                Err(InvokeError::Function { error_type: "Runtime.ExitError".into(), message: "gone".into() })
            }
            Some("missing") => Err(InvokeError::NotFound("connect".into())),
            Some("panic") => panic!("panic that the test injects into the invocation"),
            _ => reply(json!("malformed")),
        }
    });
    for how in ["error", "missing", "panic", "malformed"] {
        let refused = stage.refused(request(&format!("/prod?how={how}"))).await;
        let context = &stage.event_of("connect").await["requestContext"];
        let (connection, request) = (context["connectionId"].as_str(), context["requestId"].as_str());
        let expected = format!(
            r#"{{"message": "Internal server error", "connectionId":"{}", "requestId":"{}"}}"#,
            connection.unwrap(),
            request.unwrap()
        );
        assert_eq!((refused.status, refused.body), (502, expected), "{how}");
    }
    stage.no_event().await;
}

#[tokio::test(start_paused = true)]
async fn connect_reply_without_status_code_is_502_unless_configured_as_success() {
    for accepted in [false, true] {
        let mut config = config();
        config.unconfirmed.connect_without_status = accepted;
        let stage = Stage::in_memory(config, async |_, _| reply(json!({ "body": "hi" })));
        if accepted {
            stage.connect(request("/prod")).await.unwrap();
        } else {
            let refused = stage.refused(request("/prod")).await;
            assert_eq!(refused.status, 502);
            assert!(refused.body.starts_with(r#"{"message": "Internal server error""#), "{}", refused.body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_after_29_s_is_answered_with_the_configured_status() {
    for status in [504, 408] {
        let mut config = config();
        config.unconfirmed.connect_timeout_status = status;
        let stage = Stage::in_memory(config, async |_, _| std::future::pending().await);
        let started = tokio::time::Instant::now();
        let refused = stage.refused(request("/prod")).await;
        assert_eq!(refused.status, status);
        assert!(refused.body.starts_with(r#"{"message": "Endpoint request timed out", "connectionId":""#));
        assert_eq!(started.elapsed().as_secs(), 29);
    }
}

#[tokio::test(start_paused = true)]
async fn subprotocol_returned_by_the_connect_function_is_selected() {
    let stage = Stage::in_memory(config(), async |_, _| {
        reply(json!({ "statusCode": 200, "headers": { "sec-websocket-protocol": "v2" } }))
    });
    let request = request_with("/prod", &[("sec-websocket-protocol", "v1, v2")]);
    let (_client, response) = stage.connect(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v2");
}

#[tokio::test(start_paused = true)]
async fn first_offered_subprotocol_is_selected_only_if_accept_first_subprotocol_is_on() {
    let offer = || request_with("/prod", &[("sec-websocket-protocol", "v1, v2")]);
    let stage = Stage::in_memory(config(), echo_body);
    let error = stage.connect(offer()).await.unwrap_err();
    assert_eq!(error.to_string(), "WebSocket protocol error: SubProtocol error: Server sent no subprotocol");

    let mut config = config();
    config.unconfirmed.accept_first_subprotocol = true;
    let stage = Stage::in_memory(config, echo_body);
    let (_client, response) = stage.connect(offer()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v1");
}

#[tokio::test(start_paused = true)]
async fn functions_receive_the_custom_domain_name_that_the_client_used() {
    let mut config = config();
    let own = config.domain_name.clone();
    config.custom_domains = vec!["ws.example.com".to_owned(), "live.example.com".to_owned()];
    let mut stage = Stage::in_memory(config, echo_body);
    for (host, expected) in [
        ("live.example.com", "live.example.com"),
        ("WS.example.com:8443", "ws.example.com"),
        ("other.example.com", own.as_str()),
        ("localhost:8080", own.as_str()),
    ] {
        let mut request = request("/prod");
        request.headers_mut().insert("host", host.parse().unwrap());
        let (mut client, _) = stage.connect(request).await.unwrap();
        let event = stage.event_of("connect").await;
        assert_eq!(event["requestContext"]["domainName"], expected);
        assert_eq!(event["headers"]["Host"], host);
        client.send("hi").await;
        assert_eq!(stage.event_of("default").await["requestContext"]["domainName"], expected);
        assert_eq!(client.text().await, "hi");
        drop(client);
        let event = stage.event_of("disconnect").await;
        assert_eq!(event["requestContext"]["domainName"], expected);
        assert_eq!(event["headers"]["Host"], expected);
        // A custom domain name does not change the path of the management API.
        let path = event["requestContext"]["stage"].as_str().unwrap();
        assert_eq!(stage.in_process("GET", &format!("/{path}/@connections/R1kmxc2VNjMCFIA=")).await.0, 410);
    }
}

#[tokio::test(start_paused = true)]
async fn plain_get_request_is_426_and_a_handshake_without_key_is_400() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let plain = stage.http("GET", "/prod", b"").await;
    assert_eq!((plain.status, plain.body.as_str()), (426, r#"{"message":"Upgrade Required"}"#));
    assert_eq!(plain.headers["upgrade"], "websocket");

    let mut old = request("/prod");
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let refused = stage.refused(old).await;
    assert_eq!((refused.status, refused.headers["sec-websocket-version"].as_str()), (426, "13"));

    let keyless = stage.http_with(
        "GET",
        "/prod",
        "connection: close, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13",
        b"",
    );
    let keyless = keyless.await;
    assert_eq!((keyless.status, keyless.body.as_str()), (400, r#"{"message":"Bad Request"}"#));
    stage.no_event().await;
}

#[tokio::test(start_paused = true)]
async fn handshake_url_above_4096_characters_is_414() {
    let stage = Stage::in_memory(config(), echo_body);
    let path = format!("/prod?{}", "x".repeat(4_096 - 6));
    stage.connect(request(&path)).await.unwrap();
    let refused = stage.refused(request(&format!("{path}x"))).await;
    assert_eq!((refused.status, refused.body.as_str()), (414, r#"{"message":"Request-URI Too Long"}"#));
}

#[tokio::test(start_paused = true)]
async fn management_call_while_the_connect_function_runs_is_410() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let mut stage = Stage::in_memory(config(), move |_, _| {
        let waiting = waiting.clone();
        async move {
            waiting.wait().await;
            reply(json!({ "statusCode": 200 }))
        }
    });
    let pipe = stage.open().await;
    let handshake = tokio::spawn(async { tokio_tungstenite::client_async(request("/prod"), pipe).await });
    let event = stage.event_of("connect").await;
    let path = format!("/prod/@connections/{}", event["requestContext"]["connectionId"].as_str().unwrap());
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(stage.http(method, &path, b"").await.status, 410, "{method}");
    }
    assert!(!handshake.is_finished(), "the handshake waits until the $connect function has replied");
    gate.open();
    let _socket = handshake.await.unwrap().unwrap();
    assert_eq!(stage.http("POST", &path, b"hi").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_during_connect_triggers_disconnect_after_connect_ends() {
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
    let pipe = stage.open().await;
    let handshake = tokio::spawn(async { tokio_tungstenite::client_async(request("/prod"), pipe).await });
    let connected = stage.event_of("connect").await;
    handshake.abort();
    stage.no_event().await;
    gate.open();
    let disconnected = stage.event_of("disconnect").await;
    let id = |event: &Value| event["requestContext"]["connectionId"].clone();
    assert_eq!(id(&disconnected), id(&connected));
    assert_eq!(disconnected["requestContext"]["disconnectStatusCode"], 1006);
    assert_eq!(stage.gateway.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn api_without_a_connect_route_accepts_every_client() {
    let mut config = config();
    config.routes.retain(|route| !route.key.starts_with("$connect") && route.key != "$disconnect");
    let mut stage = Stage::in_memory(config, echo_body);
    let (mut client, _) = stage.connect(request("/prod")).await.unwrap();
    client.send("hi").await;
    assert_eq!(client.text().await, "hi");
    drop(client);
    stage.event_of("default").await;
    stage.no_event().await;
    assert_eq!(stage.gateway.connections(), 0);
}
