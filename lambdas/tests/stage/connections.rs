use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use streamer::protocol::Frame;
use streamer_harness::client::{Client, ClientError};
use streamer_harness::lambda::CapturedLog;
use streamer_harness::signing_key::{SigningKey, TokenFor};
use streamer_harness::stage::Stage;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::{PATIENCE, ask, builder, client, stage, token};

fn refused(outcome: Result<Client, ClientError>) -> (u16, String) {
    let error = outcome.unwrap_err();
    let ClientError::Refused { status, body } = error else {
        panic!("the connection is refused with an HTTP status, not with the error {error}")
    };
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

async fn saved_connections(stage: &Stage) -> Vec<String> {
    let scan = stage.dynamodb().client().scan().table_name("streamer-ConnectionsTable").send().await.unwrap();
    scan.items().iter().map(|item| item["connection_id"].as_s().unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_without_a_valid_token_is_refused_with_401_and_an_error_code() {
    let stage = stage().await;
    let claims = |ttl| TokenFor { user: "ann".into(), tenant: "acme".into(), permissions: vec![], ttl };
    let forged = SigningKey::generate()
        .unwrap()
        .sign(&claims(Duration::from_secs(60)), streamer::ports::Clock::now(&streamer::ports::SystemClock));
    let expired = stage.token(&claims(Duration::ZERO));
    for (token, code) in [
        ("", "TOKEN_MISSING"),
        ("nonsense", "TOKEN_MALFORMED"),
        (&forged, "TOKEN_SIGNATURE_INVALID"),
        (&expired, "TOKEN_EXPIRED"),
    ] {
        assert_eq!(refused(Client::connect(&stage.ws_url(), token).await), (401, code.to_owned()));
    }
    let without = connect_async(stage.ws_url()).await.map(|_| ()).unwrap_err();
    assert!(without.to_string().contains("401"), "{without}");
    assert_eq!(stage.gateway().connections(), 0);
    assert_eq!(saved_connections(&stage).await, Vec::<String>::new());
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_accepted_in_the_query_the_header_and_the_subprotocol() {
    let stage = stage().await;
    let token = token(&stage, "ann");
    let in_query = format!("{}?Authorization={token}", stage.ws_url()).into_client_request().unwrap();
    let mut in_header = stage.ws_url().into_client_request().unwrap();
    in_header.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
    let mut in_subprotocol = stage.ws_url().into_client_request().unwrap();
    in_subprotocol
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", format!("streamer, {token}").parse().unwrap());
    for (request, subprotocol) in [(in_query, None), (in_header, None), (in_subprotocol, Some("streamer"))] {
        let (_socket, response) = connect_async(request).await.unwrap();
        let agreed = response.headers().get("Sec-WebSocket-Protocol").map(|name| name.to_str().unwrap());
        assert_eq!(agreed, subprotocol);
    }
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_record_is_deleted_when_the_connection_closes() {
    let stage = stage().await;
    let mut client = client(&stage, "ann").await;
    assert_eq!(saved_connections(&stage).await.len(), 1);
    let frames = ask(&mut client, "echo", "r1", json!(1)).await;
    assert_eq!(frames.len(), 1);
    client.close().await.unwrap();
    // The gateway's shutdown waits until the last `$disconnect` invocation has finished.
    stage.gateway().shutdown().await;
    assert_eq!(saved_connections(&stage).await, Vec::<String>::new());
    stage.shutdown().await;
}

/// Returns the stage's public key as a JSON Web Key. The raw Ed25519 key is the last 32 bytes of the DER in its
/// PEM.
fn jwk(key: &SigningKey, id: &str) -> Value {
    let pem = key.public_key_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(base64).unwrap();
    json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "x": URL_SAFE_NO_PAD.encode(&der[der.len() - 32..])})
}

#[tokio::test(flavor = "multi_thread")]
async fn template_parameters_set_token_keys_allowed_tenants_and_cancel_on_disconnect() {
    let log = Arc::new(CapturedLog::new());
    let key = SigningKey::generate().unwrap();
    let encrypting = json!({"kty": "RSA", "use": "enc", "kid": "other", "n": "AQAB", "e": "AQAB"});
    let keys = json!({"keys": [encrypting, jwk(&key, "current")]});
    let builder = builder(None)
        .log(log.clone())
        .signing_key(key)
        .parameter("JwtAlgorithm", "EdDSA,RS256")
        .parameter("JwtKey", keys.to_string())
        .parameter("AllowedTenants", "globex, acme")
        .parameter("CancelOnDisconnect", "true");
    let stage = builder.start().await.unwrap();

    let ttl = Duration::from_secs(60);
    let unlisted = TokenFor { user: "ann".into(), tenant: "initech".into(), permissions: vec![], ttl };
    let refusal = refused(Client::connect(&stage.ws_url(), &stage.token(&unlisted)).await);
    assert_eq!(refusal, (401, "TENANT_NOT_ALLOWED".to_owned()));

    let mut leaving = client(&stage, "ann").await;
    leaving.request("echo_async", "r1", &json!({"message": "m", "rounds": 1_000})).await.unwrap();
    assert!(matches!(leaving.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    leaving.close().await.unwrap();
    let counted = log.wait_for("streamer-DisconnectFunction", "CloudWatchMetrics");
    let line =
        tokio::time::timeout(PATIENCE, counted).await.expect("the disconnect function logs its metrics");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["Disconnects"], &line["RequestsCancelled"]), (&json!(1), &json!(1)), "{line}");

    let mut back = client(&stage, "ann").await;
    let cancelled = tokio::time::timeout(PATIENCE, async {
        loop {
            let frames = ask(&mut back, "status", "s", json!({"request_id": "r1"})).await;
            let [Frame::Response { data: Some(snapshot), .. }] = &frames[..] else { panic!("{frames:?}") };
            if snapshot["status"] == "cancelled" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    cancelled.await.expect("the running request is cancelled");
    stage.shutdown().await;
}
