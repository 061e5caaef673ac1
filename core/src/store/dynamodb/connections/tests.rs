//! Tests of the DynamoDB calls that each operation of the connection store makes, and of the operation's reaction to
//! each response. The effects of the calls on a table are tested against the DynamoDB emulator, in
//! `harness/tests/library/store`.

use std::error::Error as _;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::operation::get_item::GetItemInput;
use aws_sdk_dynamodb::operation::put_item::PutItemInput;
use aws_sdk_dynamodb::operation::scan::ScanInput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemInput;
use aws_smithy_mocks::{Rule, mock};
use serde_json::json;

use super::*;
use crate::store::Identity;
use crate::store::dynamodb::test_answers::{
    Operation, client, condition_failed, error_answer, every_call_answered, http, operations, wire_item,
};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn connection() -> Connection {
    Connection {
        id: "c1".into(),
        identity: Identity {
            user: "ann".into(),
            tenant: "acme".into(),
            permissions: vec!["reports".into()],
            expires_at: Timestamp::from_secs(2),
        },
        endpoint: "https://api.example/prod".into(),
        connected_at: Timestamp::from_secs(1),
        last_ping: Timestamp::from_secs(1),
        metadata: [("source_ip".to_owned(), "127.0.0.1".to_owned())].into(),
    }
}

fn item() -> Item {
    connection_item::encode(&connection())
}

fn store<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> DynamoConnectionStore {
    DynamoConnectionStore::new(client(rules), "connections")
}

#[tokio::test]
async fn get_connection_is_a_consistent_read_of_the_connection_item() {
    let rule = mock!(Client::get_item)
        .match_requests(|get: &GetItemInput| {
            get.consistent_read() == Some(true)
                && get.table_name() == Some("connections")
                && get.key().is_some_and(|key| key["connection_id"] == s("c1"))
        })
        .then_http_response(|| http(200, &json!({"Item": wire_item(&item())})));
    assert_eq!(store([&rule]).get(&"c1".into()).await.unwrap(), Some(connection()));
    assert_eq!(rule.num_calls(), 1);
}

#[tokio::test]
async fn save_puts_a_connection_with_ttl_unless_a_different_user_has_the_same_id() {
    let rule = mock!(Client::put_item)
        .match_requests(|put: &PutItemInput| {
            put.item() == Some(&item())
                && put.condition_expression()
                    == Some("attribute_not_exists(connection_id) OR user_key = :user")
                && put.expression_attribute_values().unwrap()[":user"] == s("acme/ann")
        })
        .then_http_response(|| http(200, &json!({})));
    store([&rule]).save(&connection()).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
    assert_eq!(item()["ttl"].as_n().unwrap(), "86401");
}

const OPERATIONS: [Operation<DynamoConnectionStore>; 7] = operations! {
    "save": |store| store.save(&connection());
    "get": |store| store.get(&"c1".into());
    "delete": |store| store.delete(&"c1".into());
    "list_by_user": |store| store.list_by_user(&"acme".into(), &"ann".into(), PageRequest::default());
    "list_by_tenant": |store| store.list_by_tenant(&"acme".into(), PageRequest::default());
    "update_last_ping": |store| store.update_last_ping(&"c1".into(), NOW);
    "delete_stale": |store| store.delete_stale(NOW);
};

#[tokio::test(start_paused = true)]
async fn connection_operations_retry_transient_errors_and_classify_all_errors() {
    for (status, code, kind, calls) in [
        (400, "ProvisionedThroughputExceededException", StoreErrorKind::Throttled, 3),
        (400, "ThrottlingException", StoreErrorKind::Throttled, 3),
        (500, "InternalServerError", StoreErrorKind::Unavailable, 3),
        (503, "ServiceUnavailable", StoreErrorKind::Unavailable, 3),
        (400, "ValidationException", StoreErrorKind::Misuse, 1),
        (400, "ResourceNotFoundException", StoreErrorKind::Misuse, 1),
        (400, "AccessDeniedException", StoreErrorKind::Misuse, 1),
    ] {
        for (name, operation) in OPERATIONS {
            let rules = every_call_answered(move || error_answer(status, code, "m"));
            let error = operation(store(&rules)).await.unwrap_err();
            let made: usize = rules.iter().map(Rule::num_calls).sum();
            assert_eq!(
                (error.kind(), made),
                (kind, calls),
                "{name} fails with {kind:?} after {calls} calls when DynamoDB returns {code}"
            );
            assert_eq!(error.is_transient(), calls > 1, "{code} is transient exactly if {name} retries it");
            assert!(
                error.source().is_some(),
                "the error of {name} after {code} has the SDK error as its source"
            );
        }
    }
}

#[tokio::test]
async fn connection_operation_errors_name_operation_connection_and_table() {
    let mut report = Vec::new();
    for (name, operation) in OPERATIONS {
        let rules = every_call_answered(|| error_answer(400, "ResourceNotFoundException", "no table"));
        report.push(format!("{name}: {}", operation(store(&rules)).await.unwrap_err()));
    }
    for (name, operation) in [OPERATIONS[0], OPERATIONS[5]] {
        let rules = every_call_answered(|| condition_failed(None));
        report.push(format!("{name}, condition failed: {}", operation(store(&rules)).await.unwrap_err()));
    }
    insta::assert_snapshot!(report.join("\n"), @"
    save: call refused: save connection c1 in table connections
    get: call refused: get connection c1 in table connections
    delete: call refused: delete connection c1 in table connections
    list_by_user: call refused: query user-connections of table connections (acme/ann)
    list_by_tenant: call refused: query tenant-connections of table connections (acme)
    update_last_ping: call refused: update last_ping of connection c1 in table connections
    delete_stale: call refused: scan table connections
    save, condition failed: already exists: save connection c1 in table connections: the id belongs to a connection of another user
    update_last_ping, condition failed: not found: update last_ping of connection c1 in table connections
    ");
}

/// The first try takes effect but its response is lost, so the SDK's retry finds the state that the first try has
/// written.
#[tokio::test(start_paused = true)]
async fn connection_write_retried_after_a_lost_response_succeeds() {
    for (name, second, outcome) in [
        ("save", http as fn(u16, &_) -> _, "()"),
        ("update_last_ping", |_, _| condition_failed(Some(&item())), "()"),
        // The deleted connection cannot be returned, because the first response was lost.
        ("delete", http, "None"),
    ] {
        let (_, operation) = OPERATIONS.into_iter().find(|(operation, _)| *operation == name).unwrap();
        let tries = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tries);
        let rules = every_call_answered(move || {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            if *tries == 1 {
                error_answer(500, "InternalServerError", "lost")
            } else {
                second(200, &json!({}))
            }
        });
        assert_eq!(
            operation(store(&rules)).await.unwrap(),
            outcome,
            "{name} returns {outcome} although its first response was lost"
        );
        assert_eq!(*tries.lock().unwrap(), 2, "{name} is sent twice");
    }
}

#[tokio::test]
async fn update_last_ping_is_one_conditional_update() {
    let rule = mock!(Client::update_item)
        .match_requests(|update: &UpdateItemInput| {
            update.update_expression() == Some("SET last_ping = :now")
                && update.condition_expression() == Some("last_ping < :now")
                && update.expression_attribute_values().unwrap()[":now"] == time(NOW)
        })
        .then_http_response(|| http(200, &json!({})));
    store([&rule]).update_last_ping(&"c1".into(), NOW).await.unwrap();
    assert_eq!(rule.num_calls(), 1);
}

/// The scan has several pages. One of the stale connections becomes active again before its delete.
#[tokio::test]
async fn delete_stale_scans_all_pages_and_deletes_only_connections_still_stale() {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&starts);
    let key = |id: &str| json!({"connection_id": {"S": id}});
    let scan = mock!(Client::scan)
        .match_requests(move |scan: &ScanInput| {
            let start = scan.exclusive_start_key().map(|key| key["connection_id"].clone());
            let mut starts = kept.lock().unwrap();
            if starts.last() != Some(&start) {
                starts.push(start);
            }
            scan.filter_expression() == Some("last_ping < :before")
                && scan.expression_attribute_values().unwrap()[":before"] == time(NOW)
        })
        .sequence()
        .http_response(move || {
            http(200, &json!({"Items": [key("c1"), key("c2")], "LastEvaluatedKey": key("c2")}))
        })
        .http_response(move || http(200, &json!({"Items": [], "LastEvaluatedKey": key("c5")})))
        .http_response(move || http(200, &json!({"Items": [key("c6")]})))
        .build();
    let delete = mock!(Client::delete_item)
        .sequence()
        .http_response(|| http(200, &json!({})))
        .http_response(|| condition_failed(None))
        .http_response(|| http(200, &json!({})))
        .build();
    assert_eq!(store([&scan, &delete]).delete_stale(NOW).await.unwrap(), 2);
    assert_eq!((scan.num_calls(), delete.num_calls()), (3, 3));
    assert_eq!(*starts.lock().unwrap(), [None, Some(s("c2")), Some(s("c5"))]);
}

#[tokio::test]
async fn get_and_delete_report_a_connection_item_without_endpoint_as_corrupt() {
    let mut corrupt = item();
    corrupt.remove("endpoint");
    let answer = json!({"Item": wire_item(&corrupt), "Attributes": wire_item(&corrupt)});
    for (name, operation) in [OPERATIONS[1], OPERATIONS[2]] {
        let answer = answer.clone();
        let rules = every_call_answered(move || http(200, &answer));
        let error = operation(store(&rules)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{name} reports the item as corrupt");
        assert_eq!(error.to_string(), "corrupt item: item \"c1\", attribute \"endpoint\": is missing");
    }
}
