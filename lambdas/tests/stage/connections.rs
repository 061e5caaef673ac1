use std::time::Duration;

use serde_json::{Value, json};
use streamer_harness::client::{Client, ClientError};
use streamer_harness::signing_key::{SigningKey, TokenFor};
use streamer_harness::stage::Stage;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::{ask, client, stage, token};

fn refused(outcome: Result<Client, ClientError>) -> (u16, String) {
    let error = outcome.unwrap_err();
    let ClientError::Refused { status, body } = error else { panic!("not refused, but: {error}") };
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

async fn saved_connections(stage: &Stage) -> Vec<String> {
    let scan = stage.dynamodb().client().scan().table_name("streamer-ConnectionsTable").send().await.unwrap();
    scan.items().iter().map(|item| item["connection_id"].as_s().unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_token_is_refused_with_401_and_a_code() {
    let stage = stage().await;
    let whom = |ttl| TokenFor { user: "ann".into(), tenant: "acme".into(), permissions: vec![], ttl };
    let forged = SigningKey::generate()
        .unwrap()
        .sign(&whom(Duration::from_secs(60)), streamer::ports::Clock::now(&streamer::ports::SystemClock));
    let expired = stage.token(&whom(Duration::ZERO));
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
async fn a_token_is_taken_from_where_clients_can_put_it() {
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
async fn a_connection_is_kept_while_it_is_open_and_forgotten_when_it_closes() {
    let stage = stage().await;
    let mut client = client(&stage, "ann").await;
    assert_eq!(saved_connections(&stage).await.len(), 1);
    let frames = ask(&mut client, "echo", "r1", json!(1)).await;
    assert_eq!(frames.len(), 1);
    client.close().await.unwrap();
    // The gateway's shutdown waits until the last `$disconnect` has ended.
    stage.gateway().shutdown().await;
    assert_eq!(saved_connections(&stage).await, Vec::<String>::new());
    stage.shutdown().await;
}
