//! What calls cost, held to the rules that AWS publishes for capacity units.

use serde_json::{Value, json};
use streamer_fakes::dynamodb::DynamoDb;

use super::{call, create_table, database, put, try_call};

/// A table of keys `pk` and `sk`, with an index of keys alone on `owner`.
fn with_index(db: &DynamoDb) {
    let request = json!({
        "TableName": "things",
        "KeySchema": [
            { "AttributeName": "pk", "KeyType": "HASH" },
            { "AttributeName": "sk", "KeyType": "RANGE" },
        ],
        "AttributeDefinitions": [
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "sk", "AttributeType": "S" },
            { "AttributeName": "owner", "AttributeType": "S" },
        ],
        "GlobalSecondaryIndexes": [{
            "IndexName": "by-owner",
            "KeySchema": [{ "AttributeName": "owner", "KeyType": "HASH" }],
            "Projection": { "ProjectionType": "KEYS_ONLY" },
        }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    call(db, "CreateTable", request);
}

fn key(sk: &str) -> Value {
    json!({ "pk": { "S": "p" }, "sk": { "S": sk } })
}

/// An item of so many bytes: names and values, in UTF-8.
fn item(sk: &str, bytes: usize) -> Value {
    let used = "pk".len() + "p".len() + "sk".len() + sk.len() + "fill".len();
    let mut item = key(sk);
    item["fill"] = json!({ "S": "x".repeat(bytes - used) });
    item
}

fn owned(sk: &str, bytes: usize, owner: &str) -> Value {
    let mut item = item(sk, bytes - "owner".len() - owner.len());
    item["owner"] = json!({ "S": owner });
    item
}

fn on_things(mut request: Value) -> Value {
    request["TableName"] = json!("things");
    request
}

fn writing(item: &Value) -> Value {
    on_things(json!({ "Item": item }))
}

/// Puts items, then makes one call, and gives its line in the ledger.
fn cost(standing: &[Value], operation: &str, request: &Value) -> String {
    let (db, _) = database();
    with_index(&db);
    standing.iter().for_each(|item| put(&db, "things", item.clone()));
    let ledger = db.ledger();
    try_call(&db, operation, request.clone());
    ledger.take().to_string()
}

#[test]
fn capacity_row_a_write_costs_a_unit_for_each_begun_kib_of_the_larger_of_what_was_and_what_is() {
    let put = |standing: &[Value], item: &Value| cost(standing, "PutItem", &writing(item));
    assert_eq!(put(&[], &item("a", 1024)), "PutItem things: 1 WCU");
    assert_eq!(put(&[], &item("a", 1025)), "PutItem things: 2 WCU");
    assert_eq!(put(&[item("a", 3073)], &item("a", 100)), "PutItem things: 4 WCU");
    let delete = |standing: &[Value]| cost(standing, "DeleteItem", &on_things(json!({ "Key": key("a") })));
    assert_eq!(delete(&[item("a", 2049)]), "DeleteItem things: 3 WCU");
    assert_eq!(delete(&[]), "DeleteItem things: 1 WCU");
    let update = on_things(json!({
        "Key": key("a"), "UpdateExpression": "SET fill = :x",
        "ExpressionAttributeValues": { ":x": { "S": "short" } },
    }));
    assert_eq!(cost(&[item("a", 2049)], "UpdateItem", &update), "UpdateItem things: 3 WCU");
    assert_eq!(cost(&[], "UpdateItem", &update), "UpdateItem things: 1 WCU");
}

#[test]
fn capacity_row_an_index_costs_only_what_changes_in_it() {
    let put = |standing: &[Value], item: &Value| cost(standing, "PutItem", &writing(item));
    let was = [owned("a", 1025, "ann")];
    assert_eq!(put(&[], &owned("a", 1025, "ann")), "PutItem things: 3 WCU (table 2, by-owner 1)");
    assert_eq!(put(&was, &owned("a", 100, "ann")), "PutItem things: 2 WCU", "the keys are what they were");
    assert_eq!(put(&was, &owned("a", 100, "bob")), "PutItem things: 4 WCU (table 2, by-owner 2)");
    assert_eq!(put(&was, &item("a", 100)), "PutItem things: 3 WCU (table 2, by-owner 1)");
    let delete = on_things(json!({ "Key": key("a") }));
    assert_eq!(cost(&was, "DeleteItem", &delete), "DeleteItem things: 3 WCU (table 2, by-owner 1)");
}

#[test]
fn capacity_row_a_write_whose_condition_fails_costs_what_stands_or_one_unit() {
    let refused = |standing: &[Value], operation: &str, mut request: Value, condition: &str| {
        request["ConditionExpression"] = json!(condition);
        cost(standing, operation, &request)
    };
    let error = "-> ConditionalCheckFailedException";
    let (was, absent) = ([owned("a", 2049, "ann")], "attribute_not_exists(pk)");
    assert_eq!(
        refused(&was, "PutItem", writing(&item("a", 5000)), absent),
        format!("PutItem things: 3 WCU {error}")
    );
    let delete = on_things(json!({ "Key": key("a") }));
    assert_eq!(
        refused(&was, "DeleteItem", delete.clone(), absent),
        format!("DeleteItem things: 3 WCU {error}")
    );
    assert_eq!(
        refused(&[], "DeleteItem", delete, "attribute_exists(pk)"),
        format!("DeleteItem things: 1 WCU {error}")
    );
}

#[test]
fn capacity_row_a_read_costs_a_unit_for_each_begun_4_kib_and_half_where_it_may_be_stale() {
    let get = |standing: &[Value], consistent: bool| {
        let request = json!({ "Key": key("a"), "ConsistentRead": consistent, "ProjectionExpression": "sk" });
        cost(standing, "GetItem", &on_things(request))
    };
    assert_eq!(get(&[item("a", 4096)], true), "GetItem things: 1 RCU");
    assert_eq!(
        get(&[item("a", 4097)], true),
        "GetItem things: 2 RCU",
        "what is left out is read all the same"
    );
    assert_eq!(get(&[item("a", 4097)], false), "GetItem things: 1 RCU");
    assert_eq!(get(&[], true), "GetItem things: 1 RCU");
    assert_eq!(get(&[], false), "GetItem things: 0.5 RCU");
}

#[test]
fn capacity_row_a_query_rounds_the_sum_and_a_batch_each_item() {
    let standing: Vec<Value> = ["a", "b", "c"].map(|sk| owned(sk, 1500, "ann")).into();
    let query = |of: Value| cost(&standing, "Query", &on_things(of));
    let by_pk = json!({
        "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": { ":pk": { "S": "p" } },
        "FilterExpression": "attribute_not_exists(fill)", "ConsistentRead": true,
    });
    assert_eq!(query(by_pk), "Query things: 2 RCU", "what a filter drops has been read");
    let by_owner = json!({
        "IndexName": "by-owner", "KeyConditionExpression": "#owner = :owner",
        "ExpressionAttributeNames": { "#owner": "owner" },
        "ExpressionAttributeValues": { ":owner": { "S": "ann" } },
    });
    assert_eq!(query(by_owner), "Query things/by-owner: 0.5 RCU", "an index's entries are its keys");
    assert_eq!(cost(&standing, "Scan", &on_things(json!({}))), "Scan things: 1 RCU");
    let keys = json!({ "Keys": [key("a"), key("b"), key("none")], "ConsistentRead": true });
    let batch = json!({ "RequestItems": { "things": keys } });
    assert_eq!(cost(&standing, "BatchGetItem", &batch), "BatchGetItem things: 3 RCU");
}

#[test]
fn capacity_row_a_transaction_costs_twice_on_its_tables_and_once_on_their_indexes() {
    let put = |item: Value, condition: Option<&str>| {
        let mut put = writing(&item);
        if let Some(condition) = condition {
            put["ConditionExpression"] = json!(condition);
        }
        json!({ "Put": put })
    };
    let write = |standing: &[Value], items: Value| {
        cost(standing, "TransactWriteItems", &json!({ "TransactItems": items }))
    };
    let both = json!([put(item("a", 1025), None), put(item("b", 100), None)]);
    assert_eq!(write(&[], both), "TransactWriteItems things: 6 WCU");
    // As measured on AWS by the engine's authors: what an index takes costs what it costs outside of a transaction.
    let indexed = json!([put(owned("a", 1025, "ann"), None)]);
    assert_eq!(write(&[], indexed), "TransactWriteItems things: 5 WCU (table 4, by-owner 1)");
    let refused = json!([put(item("a", 100), Some("attribute_not_exists(pk)")), put(item("b", 100), None)]);
    assert_eq!(
        write(&[item("a", 1025)], refused),
        "TransactWriteItems things: 6 WCU -> TransactionCanceledException"
    );
    let get = json!({ "TransactItems": [{ "Get": on_things(json!({ "Key": key("a") })) }] });
    assert_eq!(cost(&[item("a", 4097)], "TransactGetItems", &get), "TransactGetItems things: 4 RCU");
}

#[test]
fn a_call_that_touches_several_tables_names_each() {
    let (db, _) = database();
    create_table(&db, "b-table", None);
    create_table(&db, "a-table", None);
    let ledger = db.ledger();
    let put = json!([{ "PutRequest": { "Item": { "pk": { "S": "x" } } } }]);
    call(&db, "BatchWriteItem", json!({ "RequestItems": { "b-table": put, "a-table": put } }));
    call(&db, "DescribeTable", json!({ "TableName": "a-table" }));
    try_call(&db, "GetItem", json!({ "TableName": "none", "Key": {} }));
    let calls = ledger.take();
    insta::assert_snapshot!(calls, @r"
    BatchWriteItem a-table: 1 WCU; b-table: 1 WCU
    DescribeTable a-table
    GetItem none -> ResourceNotFoundException
    ");
    assert_eq!((calls.len(), calls.read_units(), calls.write_units()), (3, 0.0, 2.0));
}

#[test]
fn who_does_not_ask_for_the_capacity_is_not_told_it() {
    let requests = |asked: Option<&str>| {
        let mut requests = vec![
            ("PutItem", writing(&owned("a", 100, "ann"))),
            ("BatchGetItem", json!({ "RequestItems": { "things": { "Keys": [key("a")] } } })),
            ("GetItem", on_things(json!({ "Key": key("b") }))),
        ];
        for (_, request) in &mut requests {
            if let Some(asked) = asked {
                request["ReturnConsumedCapacity"] = json!(asked);
            }
        }
        requests
    };
    for asked in [None, Some("NONE"), Some("TOTAL"), Some("INDEXES"), Some("SOME")] {
        let answers = |metered: bool| -> Vec<(u16, Value)> {
            let (db, _) = database();
            with_index(&db);
            let _ledger = metered.then(|| db.ledger());
            requests(asked)
                .into_iter()
                .map(|(operation, request)| try_call(&db, operation, request))
                .collect()
        };
        assert_eq!(answers(true), answers(false), "asked for {asked:?}");
    }
}

#[test]
fn a_body_that_is_no_object_is_refused_in_the_same_words_and_entered() {
    let (db, _) = database();
    for body in ["", "[]", "{", r#"{"TableName":7}"#] {
        let unmetered = db.handle("DynamoDB_20120810.PutItem", body.as_bytes());
        let ledger = db.ledger();
        assert_eq!(db.handle("DynamoDB_20120810.PutItem", body.as_bytes()), unmetered, "{body}");
        assert_eq!(ledger.take()[0].error.as_deref(), Some("SerializationException"), "{body}");
    }
}

#[test]
fn each_open_ledger_has_every_call_and_a_closed_one_none() {
    let (db, _) = database();
    let (one, other) = (db.ledger(), db.ledger());
    call(&db, "ListTables", json!({}));
    assert_eq!(one.take().len(), 1);
    drop(one);
    call(&db, "ListTables", json!({}));
    assert_eq!(other.take().to_string(), "2 x ListTables");
    assert_eq!(other.take().len(), 0);
}
