//! Tests of messages on an open connection: route selection, and the frames sent back.

use serde_json::{Value, json};
use streamer_fakes::gateway::Route;
use streamer_fakes::lambda::InvokeError;

use crate::stage::{Gate, Stage, config, echo_body, reply};

fn request_id(event: &Value) -> &str {
    event["requestContext"]["requestId"].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn message_event_has_no_headers() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    stage.clock.set(crate::stage::NOW + std::time::Duration::from_secs(61));
    client.send(r#"{"action":"echo","n":1}"#).await;
    insta::assert_json_snapshot!(stage.event_of("echo").await);
}

#[tokio::test(start_paused = true)]
async fn connection_request_and_message_ids_have_the_form_of_aws_and_are_unique() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    let mut ids = vec![client.id.clone()];
    for _ in 0..3 {
        client.send(r#"{"action":"echo"}"#).await;
        let context = stage.event_of("echo").await["requestContext"].take();
        assert_eq!(context["requestId"], context["extendedRequestId"]);
        ids.extend(["requestId", "messageId"].map(|key| context[key].as_str().unwrap().to_owned()));
    }
    assert!(ids.iter().all(|id| id.len() == 16 && id.ends_with('=')), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn message_selects_the_route_with_an_equal_key_and_otherwise_the_default_route() {
    let mut stage = Stage::in_memory(config(), echo_body);
    let mut client = stage.client().await;
    for (message, function, route) in [
        (r#"{"action":"echo"}"#, "echo", "echo"),
        (r#"{"action":"note"}"#, "note", "note"),
        (r#"{"action":"Echo"}"#, "default", "$default"),
        (r#"{"action":"$connect"}"#, "default", "$default"),
        (r#"{"action":"$disconnect"}"#, "default", "$default"),
        (r#"{"action":"$default"}"#, "default", "$default"),
        (r#"{"other":1}"#, "default", "$default"),
        ("[]", "default", "$default"),
        ("not json", "default", "$default"),
        ("", "default", "$default"),
    ] {
        client.send(message).await;
        let event = stage.event_of(function).await;
        assert_eq!(event["requestContext"]["routeKey"], route, "{message}");
        assert_eq!(event["body"], message);
    }
}

#[tokio::test(start_paused = true)]
async fn message_without_a_route_gets_a_forbidden_frame_and_the_socket_stays_open() {
    let mut config = config();
    config.routes.retain(|route| route.key != "$default");
    let mut stage = Stage::in_memory(config, echo_body);
    let mut client = stage.client().await;
    client.send("not json").await;
    let frame = client.text().await;
    let id = serde_json::from_str::<Value>(&frame).unwrap()["requestId"].take();
    assert_eq!(frame, client.notice("Forbidden", id.as_str().unwrap()));
    stage.no_event().await;
    client.send(r#"{"action":"echo"}"#).await;
    assert_eq!(client.text().await, r#"{"action":"echo"}"#);
}

#[tokio::test(start_paused = true)]
async fn failed_function_yields_an_internal_error_frame_and_the_socket_stays_open() {
    let mut stage = Stage::in_memory(config(), async |_, event: Value| match event["body"].as_str() {
        Some("error") => Err(InvokeError::Function { error_type: "E".into(), message: "no".into() }),
        Some("throttled") => Err(InvokeError::Throttled),
        Some("panic") => panic!("panic that the test injects into the invocation"),
        Some("binary") => reply(json!({ "body": "/w==", "isBase64Encoded": true })),
        Some("large") => reply(json!({ "body": "x".repeat(131_073) })),
        _ => reply(json!({ "statusCode": 200, "body": "fine" })),
    });
    let mut client = stage.client().await;
    for how in ["error", "throttled", "panic", "binary", "large"] {
        client.send(how).await;
        let event = stage.event_of("default").await;
        assert_eq!(client.text().await, client.notice("Internal server error", request_id(&event)), "{how}");
    }
    client.send("ok").await;
    assert_eq!(client.text().await, "fine");
}

#[tokio::test(start_paused = true)]
async fn malformed_proxy_reply_yields_an_internal_server_error_frame() {
    let mut stage = Stage::in_memory(config(), async |function, event: Value| match function.as_str() {
        "default" => Ok(event["body"].as_str().unwrap().to_owned().into()),
        _ => reply(json!({ "statusCode": 200 })),
    });
    let mut client = stage.client().await;
    for malformed in [
        r#"{"statusCode":200,"body":"hi","extra":1}"#,
        r#"{"body":{"not":"text"}}"#,
        "null",
        "[]",
        "not json",
    ] {
        client.send(malformed).await;
        let event = stage.event_of("default").await;
        let expected = client.notice("Internal server error", request_id(&event));
        assert_eq!(client.text().await, expected, "{malformed}");
    }
    let whole =
        r#"{"statusCode":200,"headers":{},"multiValueHeaders":{},"body":"hi","isBase64Encoded":false}"#;
    for well_formed in [whole, r#"{"body":"hi"}"#] {
        client.send(well_formed).await;
        assert_eq!(client.text().await, "hi", "{well_formed}");
    }
}

#[tokio::test(start_paused = true)]
async fn integration_times_out_after_29_s_and_the_socket_stays_open() {
    let mut stage = Stage::in_memory(config(), async |_, event: Value| {
        if event["body"] == "slow" {
            std::future::pending().await
        }
        reply(json!({ "statusCode": 200, "body": "quick" }))
    });
    let mut client = stage.client().await;
    let started = tokio::time::Instant::now();
    client.send("slow").await;
    let event = stage.event_of("default").await;
    assert_eq!(client.text().await, client.notice("Endpoint request timed out", request_id(&event)));
    assert_eq!(started.elapsed().as_secs(), 29);
    client.send("again").await;
    assert_eq!(client.text().await, "quick");
}

#[tokio::test(start_paused = true)]
async fn reply_body_is_sent_only_if_the_route_has_a_route_response() {
    let mut stage = Stage::in_memory(config(), async |function, event: Value| match function.as_str() {
        "default" => {
            reply(json!({ "statusCode": 500, "body": "c3RhdHVzIGlnbm9yZWQ=", "isBase64Encoded": true }))
        }
        "echo" if event["body"] == r#"{"action":"echo","body":""}"# => reply(json!({ "body": "" })),
        "echo" => reply(json!({ "statusCode": 200 })),
        _ => reply(json!({ "statusCode": 200, "body": "never seen" })),
    });
    let mut client = stage.client().await;
    for (message, function) in [
        (r#"{"action":"note"}"#, "note"),
        (r#"{"action":"echo"}"#, "echo"),
        (r#"{"action":"echo","body":""}"#, "echo"),
    ] {
        client.send(message).await;
        stage.event_of(function).await;
        stage.no_event().await;
    }
    client.send("{}").await;
    assert_eq!(client.text().await, "status ignored");
}

#[tokio::test(start_paused = true)]
async fn non_2xx_reply_of_a_one_way_route_sends_an_error_frame_only_if_configured() {
    for frame in [false, true] {
        let mut config = config();
        config.unconfirmed.non_2xx_reply_frame = frame;
        let mut stage = Stage::in_memory(config, async |function, _| match function.as_str() {
            "note" => reply(json!({ "statusCode": 400, "body": "bad" })),
            _ => reply(json!({ "statusCode": 200, "body": "next" })),
        });
        let mut client = stage.client().await;
        client.send(r#"{"action":"note"}"#).await;
        let event = stage.event_of("note").await;
        if frame {
            assert_eq!(client.text().await, client.notice("Internal server error", request_id(&event)));
        }
        stage.no_event().await;
        client.send("{}").await;
        assert_eq!(client.text().await, "next", "with non_2xx_reply_frame = {frame}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_connection_run_concurrently_and_may_end_out_of_order() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let mut stage = Stage::in_memory(config(), move |_, event: Value| {
        let waiting = waiting.clone();
        async move {
            if event["body"] == "first" {
                waiting.wait().await;
            }
            reply(json!({ "statusCode": 200, "body": event["body"] }))
        }
    });
    let mut client = stage.client().await;
    client.send("first").await;
    client.send("second").await;
    assert_eq!(client.text().await, "second");
    gate.open();
    assert_eq!(client.text().await, "first");
}

#[tokio::test(start_paused = true)]
async fn message_above_the_in_flight_limit_waits_until_an_earlier_message_ends() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let mut config = config();
    config.limits.messages_in_flight = 2;
    let mut stage = Stage::in_memory(config, move |function, _| {
        let waiting = waiting.clone();
        async move {
            if function == "default" {
                waiting.wait().await;
            }
            reply(json!({ "statusCode": 200 }))
        }
    });
    let mut client = stage.client().await;
    for n in 0..4 {
        client.send(&n.to_string()).await;
    }
    for n in 0..2 {
        assert_eq!(stage.event_of("default").await["body"], n.to_string());
    }
    stage.no_event().await;
    gate.open();
    assert_eq!(stage.event_of("default").await["body"], "2");
    stage.no_event().await;
}

#[tokio::test(start_paused = true)]
async fn two_routes_may_share_one_function() {
    let mut config = config().route(Route::two_way("also", "echo"));
    config.route_selection_expression = "$request.body.kind.name".to_owned();
    let mut stage = Stage::in_memory(config, echo_body);
    let mut client = stage.client().await;
    client.send(r#"{"kind":{"name":"also"}}"#).await;
    assert_eq!(stage.event_of("echo").await["requestContext"]["routeKey"], "also");
}
