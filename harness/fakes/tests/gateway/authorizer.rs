//! Tests of the Lambda authorizer of the `$connect` route.

use aws_lambda_events::event::apigw::ApiGatewayCustomAuthorizerRequestTypeRequest;
use serde_json::{Value, json};
use streamer_fakes::gateway::{ApiConfig, Authorizer, Route};
use streamer_fakes::lambda::InvokeError;

use crate::stage::{Stage, config, echo_body, reply, request, request_with};

fn guarded(authorizer: Authorizer) -> ApiConfig {
    let mut config = config();
    config.region = "eu-west-1".to_owned();
    config.account_id = "123456789012".to_owned();
    config.routes.retain(|route| route.key != "$connect");
    config.route(Route::one_way("$connect", "connect").authorizer(authorizer))
}

fn policy(effect: &str, resource: &Value) -> Value {
    json!({
        "principalId": "ann",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{ "Action": "execute-api:Invoke", "Effect": effect, "Resource": resource }],
        },
        "context": { "tenant": "acme", "level": 3 },
    })
}

#[tokio::test(start_paused = true)]
async fn authorizer_context_is_part_of_every_later_event_of_the_connection() {
    let mut stage = Stage::in_memory(guarded(Authorizer::new("auth")), async |function, event: Value| {
        if function == "auth" {
            reply(policy("Allow", &event["methodArn"]))
        } else {
            echo_body(function, event).await
        }
    });
    let request = request_with("/prod?token=t", &[("user-agent", "test/1")]);
    let (mut client, _) = stage.connect(request).await.unwrap();
    let (function, mut authorizer_event) = stage.event().await;
    assert_eq!(function, "auth");
    serde_json::from_value::<ApiGatewayCustomAuthorizerRequestTypeRequest>(authorizer_event.clone()).unwrap();
    for (map, key) in [("headers", json!("[key]")), ("multiValueHeaders", json!(["[key]"]))] {
        authorizer_event[map]["Sec-WebSocket-Key"] = key;
    }
    insta::assert_json_snapshot!(authorizer_event);

    let later = json!({ "principalId": "ann", "tenant": "acme", "level": "3" });
    let mut in_connect = later.clone();
    in_connect["integrationLatency"] = 0.into();
    assert_eq!(stage.event_of("connect").await["requestContext"]["authorizer"], in_connect);
    client.send("hi").await;
    assert_eq!(stage.event_of("default").await["requestContext"]["authorizer"], later);
    assert_eq!(client.text().await, "hi");
    drop(client);
    assert_eq!(stage.event_of("disconnect").await["requestContext"]["authorizer"], later);
}

#[tokio::test(start_paused = true)]
async fn handshake_without_an_identity_source_is_401_and_invokes_no_authorizer() {
    let authorizer = Authorizer::new("auth")
        .identity_source("route.request.header.X-Auth")
        .identity_source("route.request.querystring.token");
    let mut stage = Stage::in_memory(guarded(authorizer), async |function, event: Value| {
        if function == "auth" {
            reply(policy("Allow", &json!("*")))
        } else {
            echo_body(function, event).await
        }
    });
    for (path, headers) in [
        ("/prod", &[("x-auth", "1")][..]),
        ("/prod?token=", &[("x-auth", "1")]),
        ("/prod?Token=1", &[("x-auth", "1")]),
        ("/prod?token=1", &[]),
        ("/prod?token=1", &[("x-auth", "")]),
    ] {
        let refused = stage.refused(request_with(path, headers)).await;
        assert_eq!(refused.status, 401, "{path} {headers:?}");
        assert!(
            refused.body.starts_with(r#"{"message": "Unauthorized", "connectionId":""#),
            "{}",
            refused.body
        );
    }
    stage.no_event().await;
    stage.connect(request_with("/prod?token=1", &[("x-auth", "1")])).await.unwrap();
    assert_eq!(stage.event().await.0, "auth");
}

#[tokio::test(start_paused = true)]
async fn authorizer_denial_is_403_and_an_unusable_authorizer_result_is_500() {
    let mut stage = Stage::in_memory(guarded(Authorizer::new("auth")), async |_, event: Value| {
        let failure =
            |message: &str| InvokeError::Function { error_type: "Error".into(), message: message.into() };
        match event["queryStringParameters"]["how"].as_str().unwrap() {
            "deny" => reply(policy("Deny", &json!("*"))),
            "elsewhere" => {
                reply(policy("Allow", &json!("arn:aws:execute-api:eu-west-1:1:other/prod/$connect")))
            }
            "unauthorized" => Err(failure("Unauthorized")),
            "failure" => Err(failure("unauthorized, somehow")),
            "throttled" => Err(InvokeError::Throttled),
            "panic" => panic!("panic that the test injects into the invocation"),
            "slow" => std::future::pending().await,
            _ => reply(json!({ "isAuthorized": true })),
        }
    });
    let denied = "User is not authorized to access this resource";
    for (how, status, message) in [
        ("deny", 403, "User is not authorized to access this resource with an explicit deny"),
        ("elsewhere", 403, denied),
        ("unauthorized", 401, "Unauthorized"),
        ("failure", 500, "Internal server error"),
        ("throttled", 500, "Internal server error"),
        ("panic", 500, "Internal server error"),
        ("slow", 500, "Internal server error"),
        ("malformed", 500, "Internal server error"),
    ] {
        let refused = stage.refused(request(&format!("/prod?how={how}"))).await;
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status, body["message"].as_str()), (status, Some(message)), "{how}");
        assert_eq!(stage.event().await.0, "auth");
        stage.no_event().await;
    }
    assert_eq!(stage.gateway.connections(), 0);
}
