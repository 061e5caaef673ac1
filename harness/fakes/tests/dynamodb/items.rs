//! Tests of items, transactions and client request tokens, through the SDK in process and through direct calls.

use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TransactWriteItem,
};
use serde_json::{Value, json};

use super::{call, create_table, database, fail, put};

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

#[tokio::test]
async fn sdk_in_process_creates_a_table_and_puts_gets_and_queries_items() {
    let (db, _) = database();
    let client = db.client();
    let key =
        |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    client
        .create_table()
        .table_name("orders")
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key("user", KeyType::Hash))
        .key_schema(key("n", KeyType::Range))
        .attribute_definitions(attribute("user", ScalarAttributeType::S))
        .attribute_definitions(attribute("n", ScalarAttributeType::N))
        .send()
        .await
        .unwrap();
    for n in 1..=3 {
        let put = client.put_item().table_name("orders").item("user", s("u"));
        let put =
            put.item("n", AttributeValue::N(n.to_string())).item("what", s("book")).send().await.unwrap();
        assert_eq!(put.request_id().unwrap().len(), 52);
    }
    let got =
        client.get_item().table_name("orders").key("user", s("u")).key("n", AttributeValue::N("2".into()));
    assert_eq!(got.send().await.unwrap().item().unwrap()["what"], s("book"));
    let newest = client
        .query()
        .table_name("orders")
        .key_condition_expression("#u = :u AND n > :n")
        .expression_attribute_names("#u", "user")
        .expression_attribute_values(":u", s("u"))
        .expression_attribute_values(":n", AttributeValue::N("1".into()))
        .scan_index_forward(false)
        .send()
        .await
        .unwrap();
    let numbers: Vec<_> = newest.items().iter().map(|item| item["n"].as_n().unwrap().as_str()).collect();
    assert_eq!(numbers, ["3", "2"]);
}

#[tokio::test]
async fn put_with_a_failed_condition_returns_the_stored_item() {
    let (db, _) = database();
    create_table(&db, "things", None);
    put(&db, "things", json!({ "pk": { "S": "a" }, "epoch": { "N": "7" } }));
    let error = db
        .client()
        .put_item()
        .table_name("things")
        .item("pk", s("a"))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    let aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(failure) = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(failure.item().unwrap()["epoch"], AttributeValue::N("7".into()));
}

#[tokio::test]
async fn failed_transaction_writes_nothing_and_names_the_failed_action() {
    let (db, _) = database();
    create_table(&db, "things", None);
    put(&db, "things", json!({ "pk": { "S": "taken" } }));
    let client = db.client();
    let write = |key: &str| {
        let put = Put::builder().table_name("things").item("pk", s(key));
        let put = put.condition_expression("attribute_not_exists(pk)").build().unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let both = client.transact_write_items().transact_items(write("new")).transact_items(write("taken"));
    let error = both.send().await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("TransactionCanceledException"));
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
        cancelled,
    ) = error
    else {
        panic!("{error:?}");
    };
    let codes: Vec<_> =
        cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(codes, ["None", "ConditionalCheckFailed"]);
    let scan = client.scan().table_name("things").send().await.unwrap();
    assert_eq!(scan.count(), 1, "a cancelled transaction writes nothing");
}

fn transaction(token: &str, value: &str) -> Value {
    json!({
        "ClientRequestToken": token,
        "TransactItems": [{ "Update": {
            "TableName": "things",
            "Key": { "pk": { "S": "a" } },
            "UpdateExpression": "ADD n :one SET v = :v",
            "ExpressionAttributeValues": { ":one": { "N": "1" }, ":v": { "S": value } },
        } }],
    })
}

#[test]
fn client_request_token_is_remembered_for_ten_minutes() {
    let (db, clock) = database();
    create_table(&db, "things", None);
    let n = || {
        let get = json!({ "TableName": "things", "Key": { "pk": { "S": "a" } } });
        call(&db, "GetItem", get)["Item"]["n"]["N"].as_str().unwrap().to_owned()
    };
    call(&db, "TransactWriteItems", transaction("token", "x"));
    clock.advance(Duration::from_secs(599));
    call(&db, "TransactWriteItems", transaction("token", "x"));
    assert_eq!(n(), "1", "the repeated transaction is answered without running again");
    let (error, _) = fail(&db, "TransactWriteItems", transaction("token", "another payload"));
    assert_eq!(error, "IdempotentParameterMismatchException");
    call(&db, "TransactWriteItems", transaction("another token", "x"));
    assert_eq!(n(), "2");
    clock.advance(Duration::from_secs(1));
    call(&db, "TransactWriteItems", transaction("token", "another payload"));
    assert_eq!(n(), "3", "ten minutes later, the token starts a new transaction");
}

#[test]
fn client_request_token_that_is_empty_or_above_36_characters_is_refused() {
    let (db, _) = database();
    create_table(&db, "things", None);
    for (token, bound) in [("", "greater than or equal to 1"), (&"x".repeat(37), "less than or equal to 36")]
    {
        let (error, message) = fail(&db, "TransactWriteItems", transaction(token, "x"));
        assert_eq!(error, "ValidationException");
        assert!(message.contains(bound), "{message}");
    }
}

#[test]
fn partiql_transaction_repeated_with_the_same_token_does_not_run_again() {
    let (db, _) = database();
    create_table(&db, "things", None);
    let insert = json!({
        "ClientRequestToken": "token",
        "TransactStatements": [{ "Statement": "INSERT INTO things VALUE {'pk': 'a'}" }],
    });
    call(&db, "ExecuteTransaction", insert.clone());
    call(&db, "ExecuteTransaction", insert);
    let select = call(&db, "ExecuteStatement", json!({ "Statement": "SELECT * FROM things" }));
    assert_eq!(select["Items"], json!([{ "pk": { "S": "a" } }]));
}

#[test]
fn update_that_only_removes_attributes_does_not_create_a_missing_item() {
    let (db, _) = database();
    create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
    let update = |expression: &str| {
        json!({
            "TableName": "things",
            "Key": { "pk": { "S": "missing" } },
            "UpdateExpression": expression,
            "ReturnValues": "ALL_NEW",
        })
    };
    assert_eq!(call(&db, "UpdateItem", update("REMOVE a, b")), json!({}));
    assert_eq!(call(&db, "Scan", json!({ "TableName": "things" }))["Count"], 0);
    let arn = db.streams().latest_stream_arn("things").unwrap();
    for shard in db.streams().shards(&arn).unwrap() {
        assert_eq!(
            db.streams().read(&arn, &shard, None, 10).unwrap(),
            [],
            "an update that creates nothing emits no stream record"
        );
    }

    let (error, _) = fail(&db, "UpdateItem", update("REMOVE a, a"));
    assert_eq!(error, "ValidationException", "an update of a missing item is still validated");
    put(&db, "things", json!({ "pk": { "S": "missing" }, "a": { "S": "x" }, "c": { "S": "y" } }));
    let answer = call(&db, "UpdateItem", update("REMOVE a"));
    assert_eq!(answer["Attributes"], json!({ "pk": { "S": "missing" }, "c": { "S": "y" } }));
}

#[test]
fn dynamodb_operation_with_required_members_refuses_an_empty_request() {
    let (db, _) = database();
    for operation in [
        "BatchExecuteStatement",
        "BatchGetItem",
        "BatchWriteItem",
        "CreateTable",
        "DeleteItem",
        "DeleteTable",
        "DescribeStream",
        "DescribeTable",
        "DescribeTimeToLive",
        "ExecuteStatement",
        "ExecuteTransaction",
        "GetItem",
        "GetRecords",
        "GetShardIterator",
        "ListTagsOfResource",
        "PutItem",
        "Query",
        "Scan",
        "TagResource",
        "TransactGetItems",
        "TransactWriteItems",
        "UntagResource",
        "UpdateItem",
        "UpdateTable",
        "UpdateTimeToLive",
    ] {
        let (error, message) = fail(&db, operation, json!({}));
        assert_eq!(error, "ValidationException", "{operation}: {message}");
        assert!(!message.contains("VALIDATION"), "{operation}: {message}");
    }
    assert_eq!(call(&db, "ListTables", json!({})), json!({ "TableNames": [] }));
    assert_eq!(call(&db, "ListStreams", json!({})), json!({ "Streams": [] }));
}

#[test]
fn request_with_a_value_of_the_wrong_json_type_fails_with_serialization_exception() {
    let (db, _) = database();
    for (operation, body) in [
        ("GetItem", json!({ "TableName": 7, "Key": {} })),
        ("PutItem", json!([])),
        ("ListStreams", json!({ "Limit": "ten" })),
    ] {
        assert_eq!(fail(&db, operation, body).0, "SerializationException", "{operation}");
    }
}

#[test]
fn deeply_nested_update_expressions_are_refused_without_a_crash() {
    let (db, _) = database();
    create_table(&db, "things", None);
    let base = json!({ "TableName": "things", "Key": { "pk": { "S": "a" } } });
    let list_appends = format!("SET a = {}b, b{}", "list_append(".repeat(200), ", b)".repeat(200));
    for expression in [list_appends, format!("SET {} = b", ["a"; 2_000].join(".")), "SET a[".repeat(400)] {
        let mut update = base.clone();
        update["UpdateExpression"] = json!(expression);
        assert_eq!(fail(&db, "UpdateItem", update).0, "ValidationException");
    }
}
