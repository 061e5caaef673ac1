use std::sync::{LazyLock, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::StatusCode;
use serde_json::Value;

use super::*;
use crate::auth::Algorithm;
use crate::auth::test_keys::TestKey;
use crate::functions::test_world::{At, unresponsive_dynamodb};
use crate::store::dynamodb::{DynamoConnectionStore, Item, connection_item};

const NOW: Timestamp = Timestamp::from_millis(1_707_503_009_250);
const DEADLINE: Timestamp = Timestamp::from_millis(NOW.as_millis() + 10_000);
static KEY: LazyLock<TestKey> = LazyLock::new(|| TestKey::new(Algorithm::EdDsa));

fn token_of(user: &str) -> String {
    KEY.sign(&json!({"sub": user, "tenant_id": "acme", "exp": 1_707_506_609, "permissions": ["reports"]}))
}

/// Returns the gateway's `$connect` event for a client with this query and these additional headers.
fn event(query: &Value, headers: &Value) -> ApiGatewayWebsocketProxyRequest {
    let mut event = json!({
        "headers": {
            "Host": "abcde12345.execute-api.eu-west-1.amazonaws.com",
            "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
            "User-Agent": "client/1",
            "X-Amzn-Trace-Id": "Root=1-65c66da0-3a2b1c0d4e5f60718293a4b5",
            "X-Forwarded-For": "192.0.2.1",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Proto": "https",
        },
        "requestContext": {
            "routeKey": "$connect",
            "eventType": "CONNECT",
            "extendedRequestId": "R1kmxc2VNjMCFIA=",
            "requestTime": "09/Feb/2024:18:23:28 +0000",
            "messageDirection": "IN",
            "stage": "prod",
            "connectedAt": 1_707_503_008_941_u64,
            "requestTimeEpoch": 1_707_503_008_941_u64,
            "identity": {"userAgent": "client/1", "sourceIp": "192.0.2.1"},
            "requestId": "R1kmxc2VNjMCFIA=",
            "domainName": "abcde12345.execute-api.eu-west-1.amazonaws.com",
            "connectionId": "R1kmxcLQtjMCFxw=",
            "apiId": "abcde12345",
        },
        "isBase64Encoded": false,
    });
    for (name, value) in headers.as_object().unwrap() {
        event["headers"][name] = value.clone();
    }
    let multi = |map: &Value| -> Value {
        map.as_object().unwrap().iter().map(|(name, value)| (name.clone(), json!([value]))).collect()
    };
    event["multiValueHeaders"] = multi(&event["headers"]);
    if query.as_object().is_some_and(|query| !query.is_empty()) {
        event["queryStringParameters"] = query.clone();
        event["multiValueQueryStringParameters"] = multi(query);
    }
    serde_json::from_value(event).unwrap()
}

/// Returns a mock of the connections table that accepts every `PutItem` call, and the list of the stored items.
fn table() -> (Rule, Arc<Mutex<Vec<Item>>>) {
    let items = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&items);
    let rule = mock!(Client::put_item).then_compute_output(move |put: &PutItemInput| {
        assert_eq!(put.table_name(), Some("connections"));
        recorded.lock().unwrap().push(put.item().unwrap().clone());
        PutItemOutput::builder().build()
    });
    (rule, items)
}

fn connect(rule: &Rule) -> Connect<DynamoConnectionStore> {
    let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [rule]);
    Connect::new(KEY.verifier(), DynamoConnectionStore::new(client, "connections"), Arc::new(At(NOW)))
}

/// Handles a connect event with this query and these headers. Returns the reply, and the user of the stored
/// connection; `None` if no connection was stored.
async fn outcome(query: &Value, headers: &Value) -> (ApiGatewayProxyResponse, Option<String>) {
    let (rule, items) = table();
    let reply = connect(&rule).answer(&event(query, headers), DEADLINE).await;
    let items = items.lock().unwrap();
    assert_eq!(
        reply.status_code == 200,
        items.len() == 1,
        "a connection is stored if and only if the reply is 200"
    );
    let user = items.first().map(|item| connection_item::decode(item).unwrap().identity.user.to_string());
    (reply, user)
}

fn code(reply: &ApiGatewayProxyResponse) -> String {
    let Some(aws_lambda_events::encodings::Body::Text(body)) = &reply.body else {
        panic!("expected a reply with a text body, found {reply:?}");
    };
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn token_is_accepted_from_the_query_the_header_or_a_subprotocol() {
    let token = token_of("ann");
    for (query, headers) in [
        (json!({"Authorization": token}), json!({})),
        (json!({"Authorization": format!("Bearer {token}")}), json!({})),
        (json!({"token": token}), json!({})),
        (json!({"token": format!("bearer {token}"), "x": "1"}), json!({})),
        (json!({}), json!({"Authorization": format!("Bearer {token}")})),
        (json!({}), json!({"authorization": format!("BEARER  {token} ")})),
        (json!({}), json!({"Authorization": token})),
        (json!({}), json!({"Sec-WebSocket-Protocol": token})),
        (json!({}), json!({"sec-websocket-protocol": format!("chat,{token}")})),
        (json!({}), json!({"Sec-WebSocket-Protocol": format!("{token}, chat")})),
        // A subprotocol name that contains two dots, as a token does.
        (json!({}), json!({"Sec-WebSocket-Protocol": format!("wamp.2.json, {token}")})),
    ] {
        let (reply, user) = outcome(&query, &headers).await;
        assert_eq!((reply.status_code, user.as_deref()), (200, Some("ann")), "{query} {headers}");
    }
}

#[tokio::test]
async fn token_in_the_query_takes_precedence_over_header_and_subprotocol() {
    let [first, second, third, fourth] = ["first", "second", "third", "fourth"].map(token_of);
    let bearer = format!("Bearer {third}");
    let headers = json!({"Authorization": bearer, "Sec-WebSocket-Protocol": fourth});
    let protocol = json!({"Sec-WebSocket-Protocol": fourth});
    for (query, headers, expected) in [
        (json!({"token": second, "Authorization": first}), &headers, "first"),
        (json!({"token": second}), &headers, "second"),
        (json!({}), &headers, "third"),
        (json!({}), &protocol, "fourth"),
        // An empty value counts as absent.
        (json!({"Authorization": "", "token": second}), &headers, "second"),
        (json!({"Authorization": "Bearer ", "token": " "}), &headers, "third"),
    ] {
        let (_, user) = outcome(&query, headers).await;
        assert_eq!(user.as_deref(), Some(expected), "{query} {headers}");
    }
}

#[tokio::test]
async fn malformed_token_is_refused_despite_a_valid_token_of_lower_precedence() {
    let good = token_of("ann");
    for (query, headers) in [
        (json!({"Authorization": "bad", "token": good}), json!({})),
        (json!({"token": "bad"}), json!({"Authorization": good})),
        (json!({}), json!({"Authorization": "Basic YW5uOng=", "Sec-WebSocket-Protocol": good})),
    ] {
        let (reply, _) = outcome(&query, &headers).await;
        assert_eq!(reply.status_code, 401);
        assert_eq!(code(&reply), "TOKEN_MALFORMED", "{query} {headers}");
    }
}

#[tokio::test]
async fn refused_token_is_answered_with_401_and_a_code_for_the_reason() {
    let expired = KEY.sign(&json!({"sub": "ann", "tenant_id": "acme", "exp": 1_707_503_009}));
    let early = KEY.sign(&json!({"sub": "ann", "tenant_id": "acme", "exp": 2e9, "nbf": 1_707_503_100}));
    let forged = TestKey::new(Algorithm::EdDsa).sign(&json!({"sub": "ann"}));
    let without_sub = KEY.sign(&json!({"tenant_id": "acme", "exp": 2e9}));
    for (query, headers, expected) in [
        (json!({}), json!({}), "TOKEN_MISSING"),
        (json!({"token": ""}), json!({}), "TOKEN_MISSING"),
        (json!({"Token": token_of("ann")}), json!({}), "TOKEN_MISSING"),
        (json!({}), json!({"Sec-WebSocket-Protocol": "chat, v2.chat.example"}), "TOKEN_MISSING"),
        (json!({"token": "x"}), json!({}), "TOKEN_MALFORMED"),
        (json!({"token": forged}), json!({}), "TOKEN_SIGNATURE_INVALID"),
        (json!({"token": expired}), json!({}), "TOKEN_EXPIRED"),
        (json!({"token": early}), json!({}), "TOKEN_NOT_YET_VALID"),
        (json!({"token": without_sub}), json!({}), "TOKEN_CLAIMS_INVALID"),
    ] {
        let (reply, _) = outcome(&query, &headers).await;
        assert_eq!((reply.status_code, code(&reply).as_str()), (401, expected));
    }
}

#[tokio::test]
async fn connect_reply_selects_one_of_the_offered_subprotocols() {
    let token = token_of("ann");
    let query = json!({"token": token});
    let wamp = format!("wamp.2.json, {token}");
    let chat_second = format!("{token} , chat, superchat");
    for (query, offered, selected) in [
        (&json!({}), token.as_str(), Some(token.as_str())),
        (&json!({}), &wamp, Some("wamp.2.json")),
        (&json!({}), &chat_second, Some("chat")),
        (&query, "chat, superchat", Some("chat")),
        (&query, " , ", None),
    ] {
        let (reply, _) = outcome(query, &json!({"Sec-WebSocket-Protocol": offered})).await;
        let header = reply.headers.get(header::SEC_WEBSOCKET_PROTOCOL);
        assert_eq!(header.map(|value| value.to_str().unwrap()), selected, "{offered}");
    }
    let (reply, _) = outcome(&query, &json!({})).await;
    assert_eq!(reply.headers.len(), 0, "the reply selects no subprotocol if the client offers none");
}

#[tokio::test]
async fn connect_stores_the_connection_with_its_identity_and_endpoint() {
    let (rule, items) = table();
    let reply = connect(&rule).answer(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
    assert_eq!(reply.status_code, 200);
    let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
    insta::assert_debug_snapshot!(saved);
}

#[tokio::test]
async fn client_without_a_user_agent_is_accepted() {
    let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
    event.request_context.identity.user_agent = None;
    let (rule, items) = table();
    assert_eq!(connect(&rule).answer(&event, DEADLINE).await.status_code, 200);
    let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
    assert_eq!(saved.metadata, [("source_ip".to_owned(), "192.0.2.1".to_owned())].into());
}

#[tokio::test]
async fn long_user_agent_is_stored_truncated_at_a_character_boundary() {
    let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
    event.request_context.identity.user_agent = Some(format!("{}🦀{}", "x".repeat(254), "y".repeat(8_000)));
    let (rule, items) = table();
    assert_eq!(connect(&rule).answer(&event, DEADLINE).await.status_code, 200);
    let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
    assert_eq!(saved.metadata["user_agent"], "x".repeat(254));
}

#[tokio::test(start_paused = true)]
async fn connect_answers_500_before_the_deadline_if_the_table_does_not_respond() {
    let store = DynamoConnectionStore::new(unresponsive_dynamodb(), "connections");
    let connect = Connect::new(KEY.verifier(), store, Arc::new(At(NOW)));
    let started = tokio::time::Instant::now();
    let reply = connect.answer(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
    assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
    assert_eq!(started.elapsed(), std::time::Duration::from_millis(9_500));
}

#[tokio::test]
async fn client_of_a_disallowed_tenant_is_refused_with_code_tenant_not_allowed() {
    let (rule, items) = table();
    let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&rule]);
    let verifier = KEY.verifier().with_tenants(["other".into()]);
    let connect =
        Connect::new(verifier, DynamoConnectionStore::new(client, "connections"), Arc::new(At(NOW)));
    let reply = connect.answer(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
    assert_eq!((reply.status_code, code(&reply).as_str()), (401, "TENANT_NOT_ALLOWED"));
    assert!(items.lock().unwrap().is_empty());
}

#[tokio::test]
async fn connect_replies_to_refused_tokens_differ_only_in_code_and_message() {
    let refusal = async |token: &str| outcome(&json!({"token": token}), &json!({})).await.0;
    let malformed = refusal("x").await;
    for token in ["", &KEY.sign(&json!({"sub": "ann"})), &TestKey::new(Algorithm::EdDsa).sign(&json!({}))] {
        let other = refusal(token).await;
        assert_ne!(code(&other), code(&malformed));
        assert_eq!((other.status_code, &other.headers), (malformed.status_code, &malformed.headers));
        let keys = |reply: &ApiGatewayProxyResponse| -> Vec<String> {
            let Some(aws_lambda_events::encodings::Body::Text(body)) = &reply.body else {
                panic!("expected a reply with a text body, found {reply:?}")
            };
            serde_json::from_str::<serde_json::Map<String, Value>>(body).unwrap().keys().cloned().collect()
        };
        assert_eq!((keys(&other), other.headers.len()), (vec!["code".into(), "message".into()], 1));
    }
}

#[tokio::test]
async fn connection_that_cannot_be_stored_is_refused_with_500() {
    let refusing = mock!(Client::put_item).then_http_response(|| {
        let error =
            r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no table"}"#;
        HttpResponse::new(StatusCode::try_from(400).unwrap(), error.into())
    });
    let reply =
        connect(&refusing).answer(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
    assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
    assert_eq!(refusing.num_calls(), 1);
}

#[tokio::test]
async fn connect_event_without_a_connection_id_is_refused_with_500() {
    let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
    event.request_context.connection_id = None;
    let (rule, items) = table();
    let reply = connect(&rule).answer(&event, DEADLINE).await;
    assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
    assert!(items.lock().unwrap().is_empty());
}

/// The gateway treats a reply with an unknown key as a failure of the function.
#[tokio::test]
async fn connect_replies_serialize_to_the_format_that_the_gateway_expects() {
    let token = token_of("ann");
    let (accepted, _) = outcome(&json!({"token": token}), &json!({})).await;
    let (with_subprotocol, _) =
        outcome(&json!({"token": token}), &json!({"Sec-WebSocket-Protocol": "chat"})).await;
    let (refused, _) = outcome(&json!({}), &json!({})).await;
    let failed = internal_error();
    let lines =
        [accepted, with_subprotocol, refused, failed].map(|reply| serde_json::to_string(&reply).unwrap());
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"statusCode":200,"headers":{},"multiValueHeaders":{},"isBase64Encoded":false}
    {"statusCode":200,"headers":{"sec-websocket-protocol":"chat"},"multiValueHeaders":{},"isBase64Encoded":false}
    {"statusCode":401,"headers":{"content-type":"application/json"},"multiValueHeaders":{},"body":"{\"code\":\"TOKEN_MISSING\",\"message\":\"A token is required, in the query (Authorization or token) or in a header\"}","isBase64Encoded":false}
    {"statusCode":500,"headers":{"content-type":"application/json"},"multiValueHeaders":{},"body":"{\"code\":\"INTERNAL_ERROR\",\"message\":\"Internal server error; try again\"}","isBase64Encoded":false}
    "#);
}
