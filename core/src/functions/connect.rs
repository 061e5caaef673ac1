use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::{in_time, reply};
use crate::auth::{TokenRefused, TokenVerifier};
use crate::ids::ConnectionId;
use crate::ports::{Clock, Timestamp};
use crate::store::{Connection, ConnectionStore};
use crate::telemetry::Causes;

/// `$connect`: lets in whoever has a valid token, and keeps whose connection it is.
#[derive(Debug)]
pub struct Connect<C> {
    verifier: TokenVerifier,
    connections: C,
    clock: Arc<dyn Clock>,
}

/// The most that is kept of what a client says of itself, in bytes: its headers may have 8 KiB.
const MAX_METADATA_BYTES: usize = 256;

/// The token that a client brought, and the subprotocol that it expects to be answered with.
struct Credentials<'a> {
    token: Option<&'a str>,
    subprotocol: Option<&'a str>,
}

impl<C: ConnectionStore> Connect<C> {
    /// Lets in whom `verifier` trusts.
    #[must_use]
    pub fn new(verifier: TokenVerifier, connections: C, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, connections, clock }
    }

    /// 200 opens the connection, 401 refuses it with a body that says why in a code. Before `deadline`, when the invocation
    /// ends, there is an answer.
    pub async fn handle(
        &self,
        event: &ApiGatewayWebsocketProxyRequest,
        deadline: Timestamp,
    ) -> ApiGatewayProxyResponse {
        let now = self.clock.now();
        let Credentials { token, subprotocol } = credentials(event);
        let verified = token.ok_or(TokenRefused::Missing).and_then(|token| self.verifier.verify(token, now));
        let identity = match verified {
            Ok(identity) => identity,
            Err(refused) => {
                // Anybody can cause this, at will.
                tracing::debug!(code = refused.code(), "connection refused");
                return error_reply(401, refused.code(), &refused.to_string());
            }
        };
        let context = &event.request_context;
        let Some(id) = context.connection_id.as_deref().map(ConnectionId::from) else {
            tracing::error!("the event has no connection id");
            return internal_error();
        };
        let facts = [
            ("source_ip", context.identity.source_ip.as_deref()),
            ("user_agent", context.identity.user_agent.as_deref()),
        ];
        let connection = Connection {
            id,
            identity,
            endpoint: endpoint(event),
            connected_at: now,
            last_ping: now,
            metadata: facts
                .into_iter()
                .filter_map(|(key, fact)| Some((key.to_owned(), shortened(fact?).to_owned())))
                .collect::<BTreeMap<_, _>>(),
        };
        match in_time(now, deadline, self.connections.save(&connection)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(connection = %connection.id, error = %Causes(&error), "the connection was not saved");
                return internal_error();
            }
            None => {
                tracing::error!(connection = %connection.id, "the connection was not saved in time");
                return internal_error();
            }
        }
        let Connection { id, identity, .. } = connection;
        tracing::info!(connection = %id, user = %identity.user, tenant = %identity.tenant, "connected");
        let mut accepted = reply(200, None);
        // A browser gives up a connection whose offer of subprotocols is not answered with one of them.
        if let Some(Ok(subprotocol)) = subprotocol.map(HeaderValue::from_str) {
            accepted.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        accepted
    }
}

fn shortened(fact: &str) -> &str {
    let end = fact.floor_char_boundary(MAX_METADATA_BYTES);
    &fact[..end]
}

/// The token: from the query, else the `Authorization` header, else among the offered subprotocols.
///
/// An empty value counts as none: clients build URLs from tokens that they may not have.
fn credentials(event: &ApiGatewayWebsocketProxyRequest) -> Credentials<'_> {
    let offered: Vec<&str> = text(&event.headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let in_query = |name: &str| given(event.query_string_parameters.first(name)?);
    let in_header = || given(text(&event.headers, &header::AUTHORIZATION)?);
    let in_subprotocols = || offered.iter().copied().find(|name| looks_like_a_token(name));
    let token =
        in_query("Authorization").or_else(|| in_query("token")).or_else(in_header).or_else(in_subprotocols);
    let named = offered.iter().find(|name| !looks_like_a_token(name));
    Credentials { token, subprotocol: named.or(offered.first()).copied() }
}

/// Told apart from the name of a subprotocol, such as `wamp.2.json`, by the `{"` that its header begins with.
fn looks_like_a_token(name: &str) -> bool {
    name.starts_with("ey") && name.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The token in a value, with or without the scheme `Bearer` before it.
fn given(value: &str) -> Option<&str> {
    let token = match value.trim_start().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token,
        _ => value,
    };
    Some(token.trim()).filter(|token| !token.is_empty())
}

fn endpoint(event: &ApiGatewayWebsocketProxyRequest) -> String {
    let domain = event.request_context.domain_name.as_deref().unwrap_or_default();
    let stage = event.request_context.stage.as_deref().unwrap_or_default();
    format!("https://{domain}/{stage}")
}

fn internal_error() -> ApiGatewayProxyResponse {
    error_reply(500, "INTERNAL_ERROR", "Something on our side went wrong: try again")
}

fn error_reply(status: i64, code: &str, message: &str) -> ApiGatewayProxyResponse {
    let mut refused = reply(status, Some(json!({"code": code, "message": message}).to_string()));
    refused.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    refused
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, Mutex};

    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::http::StatusCode;
    use serde_json::Value;

    use super::super::test_world::{At, silent};
    use super::*;
    use crate::auth::Algorithm;
    use crate::auth::test_keys::TestKey;
    use crate::store::dynamodb::{DynamoConnectionStore, Item, connection_item};

    const NOW: Timestamp = Timestamp::from_millis(1_707_503_009_250);
    const DEADLINE: Timestamp = Timestamp::from_millis(NOW.as_millis() + 10_000);
    static KEY: LazyLock<TestKey> = LazyLock::new(|| TestKey::new(Algorithm::EdDsa));

    fn token_of(user: &str) -> String {
        KEY.sign(&json!({"sub": user, "tenant_id": "acme", "exp": 1_707_506_609, "permissions": ["reports"]}))
    }

    /// The gateway's event for a client that brought this query and these headers.
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

    /// A table that takes every item, and keeps it.
    fn table() -> (Rule, Arc<Mutex<Vec<Item>>>) {
        let items = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&items);
        let rule = mock!(Client::put_item).then_compute_output(move |put: &PutItemInput| {
            assert_eq!(put.table_name(), Some("connections"));
            kept.lock().unwrap().push(put.item().unwrap().clone());
            PutItemOutput::builder().build()
        });
        (rule, items)
    }

    fn connect(rule: &Rule) -> Connect<DynamoConnectionStore> {
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [rule]);
        Connect::new(KEY.verifier(), DynamoConnectionStore::new(client, "connections"), Arc::new(At(NOW)))
    }

    /// What becomes of a client that brought this query and these headers, and as whom it is known.
    async fn outcome(query: &Value, headers: &Value) -> (ApiGatewayProxyResponse, Option<String>) {
        let (rule, items) = table();
        let reply = connect(&rule).handle(&event(query, headers), DEADLINE).await;
        let items = items.lock().unwrap();
        assert_eq!(reply.status_code == 200, items.len() == 1, "who is let in is saved, and nobody else");
        let user = items.first().map(|item| connection_item::decode(item).unwrap().identity.user.to_string());
        (reply, user)
    }

    fn code(reply: &ApiGatewayProxyResponse) -> String {
        let Some(aws_lambda_events::encodings::Body::Text(body)) = &reply.body else {
            panic!("no body: {reply:?}");
        };
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["code"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_token_may_come_in_the_query_in_a_header_or_as_a_subprotocol() {
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
            // A name with as many dots as a token has.
            (json!({}), json!({"Sec-WebSocket-Protocol": format!("wamp.2.json, {token}")})),
        ] {
            let (reply, user) = outcome(&query, &headers).await;
            assert_eq!((reply.status_code, user.as_deref()), (200, Some("ann")), "{query} {headers}");
        }
    }

    #[tokio::test]
    async fn the_query_goes_before_the_header_and_the_header_before_the_subprotocols() {
        let [first, second, third, fourth] = ["first", "second", "third", "fourth"].map(token_of);
        let bearer = format!("Bearer {third}");
        let headers = json!({"Authorization": bearer, "Sec-WebSocket-Protocol": fourth});
        let protocol = json!({"Sec-WebSocket-Protocol": fourth});
        for (query, headers, expected) in [
            (json!({"token": second, "Authorization": first}), &headers, "first"),
            (json!({"token": second}), &headers, "second"),
            (json!({}), &headers, "third"),
            (json!({}), &protocol, "fourth"),
            // What is empty is not there.
            (json!({"Authorization": "", "token": second}), &headers, "second"),
            (json!({"Authorization": "Bearer ", "token": " "}), &headers, "third"),
        ] {
            let (_, user) = outcome(&query, headers).await;
            assert_eq!(user.as_deref(), Some(expected), "{query} {headers}");
        }
    }

    #[tokio::test]
    async fn a_bad_token_is_not_passed_over_for_a_good_one() {
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
    async fn whoever_has_no_good_token_is_told_why() {
        let expired = KEY.sign(&json!({"sub": "ann", "tenant_id": "acme", "exp": 1_707_503_009}));
        let early = KEY.sign(&json!({"sub": "ann", "tenant_id": "acme", "exp": 2e9, "nbf": 1_707_503_100}));
        let forged = TestKey::new(Algorithm::EdDsa).sign(&json!({"sub": "ann"}));
        let nobody = KEY.sign(&json!({"tenant_id": "acme", "exp": 2e9}));
        for (query, headers, expected) in [
            (json!({}), json!({}), "TOKEN_MISSING"),
            (json!({"token": ""}), json!({}), "TOKEN_MISSING"),
            (json!({"Token": token_of("ann")}), json!({}), "TOKEN_MISSING"),
            (json!({}), json!({"Sec-WebSocket-Protocol": "chat, v2.chat.example"}), "TOKEN_MISSING"),
            (json!({"token": "x"}), json!({}), "TOKEN_MALFORMED"),
            (json!({"token": forged}), json!({}), "TOKEN_SIGNATURE_INVALID"),
            (json!({"token": expired}), json!({}), "TOKEN_EXPIRED"),
            (json!({"token": early}), json!({}), "TOKEN_NOT_YET_VALID"),
            (json!({"token": nobody}), json!({}), "TOKEN_CLAIMS_INVALID"),
        ] {
            let (reply, _) = outcome(&query, &headers).await;
            assert_eq!((reply.status_code, code(&reply).as_str()), (401, expected));
        }
    }

    #[tokio::test]
    async fn one_of_the_offered_subprotocols_is_answered_with() {
        let token = token_of("ann");
        let query = json!({"token": token});
        let wamp = format!("wamp.2.json, {token}");
        let chat_second = format!("{token} , chat, superchat");
        for (query, offered, answered) in [
            (&json!({}), token.as_str(), Some(token.as_str())),
            (&json!({}), &wamp, Some("wamp.2.json")),
            (&json!({}), &chat_second, Some("chat")),
            (&query, "chat, superchat", Some("chat")),
            (&query, " , ", None),
        ] {
            let (reply, _) = outcome(query, &json!({"Sec-WebSocket-Protocol": offered})).await;
            let header = reply.headers.get(header::SEC_WEBSOCKET_PROTOCOL);
            assert_eq!(header.map(|value| value.to_str().unwrap()), answered, "{offered}");
        }
        let (reply, _) = outcome(&query, &json!({})).await;
        assert_eq!(reply.headers.len(), 0, "nothing was offered");
    }

    #[tokio::test]
    async fn what_is_saved_is_whose_connection_it_is_and_where_it_can_be_reached() {
        let (rule, items) = table();
        let reply =
            connect(&rule).handle(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
        assert_eq!(reply.status_code, 200);
        let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
        insta::assert_debug_snapshot!(saved);
    }

    #[tokio::test]
    async fn a_client_that_hides_what_it_is_is_let_in() {
        let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
        event.request_context.identity.user_agent = None;
        let (rule, items) = table();
        assert_eq!(connect(&rule).handle(&event, DEADLINE).await.status_code, 200);
        let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
        assert_eq!(saved.metadata, [("source_ip".to_owned(), "192.0.2.1".to_owned())].into());
    }

    #[tokio::test]
    async fn what_a_client_says_of_itself_is_kept_in_part() {
        let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
        event.request_context.identity.user_agent =
            Some(format!("{}🦀{}", "x".repeat(254), "y".repeat(8_000)));
        let (rule, items) = table();
        assert_eq!(connect(&rule).handle(&event, DEADLINE).await.status_code, 200);
        let saved = connection_item::decode(&items.lock().unwrap()[0]).unwrap();
        assert_eq!(saved.metadata["user_agent"], "x".repeat(254));
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_does_not_answer_does_not_cost_the_client_its_answer() {
        let store = DynamoConnectionStore::new(silent(), "connections");
        let connect = Connect::new(KEY.verifier(), store, Arc::new(At(NOW)));
        let asked = tokio::time::Instant::now();
        let reply = connect.handle(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
        assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
        assert_eq!(asked.elapsed(), std::time::Duration::from_millis(9_500));
    }

    #[tokio::test]
    async fn a_tenant_that_may_not_connect_is_told_so() {
        let (rule, items) = table();
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&rule]);
        let verifier = KEY.verifier().with_tenants(["other".into()]);
        let connect =
            Connect::new(verifier, DynamoConnectionStore::new(client, "connections"), Arc::new(At(NOW)));
        let reply = connect.handle(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
        assert_eq!((reply.status_code, code(&reply).as_str()), (401, "TENANT_NOT_ALLOWED"));
        assert!(items.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn refusals_differ_in_their_code_and_their_message_alone() {
        let refusal = async |token: &str| outcome(&json!({"token": token}), &json!({})).await.0;
        let whole = refusal("x").await;
        for token in ["", &KEY.sign(&json!({"sub": "ann"})), &TestKey::new(Algorithm::EdDsa).sign(&json!({}))]
        {
            let other = refusal(token).await;
            assert_ne!(code(&other), code(&whole));
            assert_eq!((other.status_code, &other.headers), (whole.status_code, &whole.headers));
            let keys = |reply: &ApiGatewayProxyResponse| -> Vec<String> {
                let Some(aws_lambda_events::encodings::Body::Text(body)) = &reply.body else {
                    panic!("{reply:?}")
                };
                serde_json::from_str::<serde_json::Map<String, Value>>(body)
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect()
            };
            assert_eq!((keys(&other), other.headers.len()), (vec!["code".into(), "message".into()], 1));
        }
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_saved_is_not_opened() {
        let refusing = mock!(Client::put_item).then_http_response(|| {
            let error = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no table"}"#;
            HttpResponse::new(StatusCode::try_from(400).unwrap(), error.into())
        });
        let reply =
            connect(&refusing).handle(&event(&json!({"token": token_of("ann")}), &json!({})), DEADLINE).await;
        assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
        assert_eq!(refusing.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_connection_without_an_id_is_not_opened() {
        let mut event = event(&json!({"token": token_of("ann")}), &json!({}));
        event.request_context.connection_id = None;
        let (rule, items) = table();
        let reply = connect(&rule).handle(&event, DEADLINE).await;
        assert_eq!((reply.status_code, code(&reply).as_str()), (500, "INTERNAL_ERROR"));
        assert!(items.lock().unwrap().is_empty());
    }

    /// The gateway takes a reply with any other key for a failure.
    #[tokio::test]
    async fn the_replies_as_they_go_over_the_wire() {
        let token = token_of("ann");
        let (accepted, _) = outcome(&json!({"token": token}), &json!({})).await;
        let (named, _) = outcome(&json!({"token": token}), &json!({"Sec-WebSocket-Protocol": "chat"})).await;
        let (refused, _) = outcome(&json!({}), &json!({})).await;
        let failed = internal_error();
        let lines = [accepted, named, refused, failed].map(|reply| serde_json::to_string(&reply).unwrap());
        insta::assert_snapshot!(lines.join("\n"));
    }
}
