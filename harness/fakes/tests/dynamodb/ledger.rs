//! Tests that ledgers charge calls by the rules that AWS publishes for capacity units.

use serde_json::{Value, json};
use streamer_fakes::dynamodb::DynamoDb;

use super::{call, create_table, database, put, try_call};

/// Creates the table `things` with keys `pk` and `sk`, and with a `KEYS_ONLY` index on `owner`.
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

/// Returns an item whose attribute names and values together have `bytes` bytes in UTF-8.
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

/// Puts the items `stored`, then makes one call, and returns the call's line in the ledger.
fn cost(stored: &[Value], operation: &str, request: &Value) -> String {
    let (db, _) = database();
    with_index(&db);
    stored.iter().for_each(|item| put(&db, "things", item.clone()));
    let ledger = db.ledger();
    try_call(&db, operation, request.clone());
    ledger.take().to_string()
}

#[test]
fn write_costs_one_unit_per_started_kib_of_the_larger_of_old_and_new_item() {
    let put = |stored: &[Value], item: &Value| cost(stored, "PutItem", &writing(item));
    assert_eq!(put(&[], &item("a", 1024)), "PutItem things: 1 WCU");
    assert_eq!(put(&[], &item("a", 1025)), "PutItem things: 2 WCU");
    assert_eq!(put(&[item("a", 3073)], &item("a", 100)), "PutItem things: 4 WCU");
    let delete = |stored: &[Value]| cost(stored, "DeleteItem", &on_things(json!({ "Key": key("a") })));
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
fn write_costs_index_units_only_for_changed_index_entries() {
    let put = |stored: &[Value], item: &Value| cost(stored, "PutItem", &writing(item));
    let was = [owned("a", 1025, "ann")];
    assert_eq!(put(&[], &owned("a", 1025, "ann")), "PutItem things: 3 WCU (table 2, by-owner 1)");
    assert_eq!(
        put(&was, &owned("a", 100, "ann")),
        "PutItem things: 2 WCU",
        "an index entry whose keys are unchanged costs nothing"
    );
    assert_eq!(put(&was, &owned("a", 100, "bob")), "PutItem things: 4 WCU (table 2, by-owner 2)");
    assert_eq!(put(&was, &item("a", 100)), "PutItem things: 3 WCU (table 2, by-owner 1)");
    let delete = on_things(json!({ "Key": key("a") }));
    assert_eq!(cost(&was, "DeleteItem", &delete), "DeleteItem things: 3 WCU (table 2, by-owner 1)");
}

#[test]
fn write_with_a_failed_condition_costs_the_size_of_the_stored_item_or_one_unit() {
    let refused = |stored: &[Value], operation: &str, mut request: Value, condition: &str| {
        request["ConditionExpression"] = json!(condition);
        cost(stored, operation, &request)
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
fn consistent_read_costs_one_unit_per_4_kib_rounded_up_and_eventual_read_half() {
    let get = |stored: &[Value], consistent: bool| {
        let request = json!({ "Key": key("a"), "ConsistentRead": consistent, "ProjectionExpression": "sk" });
        cost(stored, "GetItem", &on_things(request))
    };
    assert_eq!(get(&[item("a", 4096)], true), "GetItem things: 1 RCU");
    assert_eq!(
        get(&[item("a", 4097)], true),
        "GetItem things: 2 RCU",
        "attributes that the projection omits count as read"
    );
    assert_eq!(get(&[item("a", 4097)], false), "GetItem things: 1 RCU");
    assert_eq!(get(&[], true), "GetItem things: 1 RCU");
    assert_eq!(get(&[], false), "GetItem things: 0.5 RCU");
}

#[test]
fn query_is_charged_by_total_size_and_batch_get_by_the_size_of_each_item() {
    let stored: Vec<Value> = ["a", "b", "c"].map(|sk| owned(sk, 1500, "ann")).into();
    let query = |of: Value| cost(&stored, "Query", &on_things(of));
    let by_pk = json!({
        "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": { ":pk": { "S": "p" } },
        "FilterExpression": "attribute_not_exists(fill)", "ConsistentRead": true,
    });
    assert_eq!(query(by_pk), "Query things: 2 RCU", "items that a filter drops count as read");
    let by_owner = json!({
        "IndexName": "by-owner", "KeyConditionExpression": "#owner = :owner",
        "ExpressionAttributeNames": { "#owner": "owner" },
        "ExpressionAttributeValues": { ":owner": { "S": "ann" } },
    });
    assert_eq!(
        query(by_owner),
        "Query things/by-owner: 0.5 RCU",
        "entries of a KEYS_ONLY index have the size of their keys"
    );
    assert_eq!(cost(&stored, "Scan", &on_things(json!({}))), "Scan things: 1 RCU");
    let keys = json!({ "Keys": [key("a"), key("b"), key("none")], "ConsistentRead": true });
    let batch = json!({ "RequestItems": { "things": keys } });
    assert_eq!(cost(&stored, "BatchGetItem", &batch), "BatchGetItem things: 3 RCU");
}

#[test]
fn transaction_costs_double_for_table_writes_but_not_for_index_writes() {
    let put = |item: Value, condition: Option<&str>| {
        let mut put = writing(&item);
        if let Some(condition) = condition {
            put["ConditionExpression"] = json!(condition);
        }
        json!({ "Put": put })
    };
    let write = |stored: &[Value], items: Value| {
        cost(stored, "TransactWriteItems", &json!({ "TransactItems": items }))
    };
    let both = json!([put(item("a", 1025), None), put(item("b", 100), None)]);
    assert_eq!(write(&[], both), "TransactWriteItems things: 6 WCU");
    // The authors of dynoxide, the embedded database, measured this on AWS: an index write costs the same inside and outside a transaction.
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
fn ledger_records_a_charge_for_each_table_of_a_call() {
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
fn open_ledger_does_not_change_the_consumed_capacity_in_answers() {
    let requests = |requested: Option<&str>| {
        let mut requests = vec![
            ("PutItem", writing(&owned("a", 100, "ann"))),
            ("BatchGetItem", json!({ "RequestItems": { "things": { "Keys": [key("a")] } } })),
            ("GetItem", on_things(json!({ "Key": key("b") }))),
        ];
        for (_, request) in &mut requests {
            if let Some(requested) = requested {
                request["ReturnConsumedCapacity"] = json!(requested);
            }
        }
        requests
    };
    for requested in [None, Some("NONE"), Some("TOTAL"), Some("INDEXES"), Some("SOME")] {
        let answers = |metered: bool| -> Vec<(u16, Value)> {
            let (db, _) = database();
            with_index(&db);
            let _ledger = metered.then(|| db.ledger());
            requests(requested)
                .into_iter()
                .map(|(operation, request)| try_call(&db, operation, request))
                .collect()
        };
        assert_eq!(
            answers(true),
            answers(false),
            "an open ledger does not change answers with ReturnConsumedCapacity {requested:?}"
        );
    }
}

#[test]
fn malformed_body_fails_the_same_way_with_an_open_ledger_and_is_recorded() {
    let (db, _) = database();
    for body in ["", "[]", "{", r#"{"TableName":7}"#] {
        let unmetered = db.handle("DynamoDB_20120810.PutItem", body.as_bytes());
        let ledger = db.ledger();
        assert_eq!(db.handle("DynamoDB_20120810.PutItem", body.as_bytes()), unmetered, "{body}");
        assert_eq!(ledger.take()[0].error.as_deref(), Some("SerializationException"), "{body}");
    }
}

#[test]
fn each_open_ledger_records_every_call() {
    let (db, _) = database();
    let (one, other) = (db.ledger(), db.ledger());
    call(&db, "ListTables", json!({}));
    assert_eq!(one.take().len(), 1);
    drop(one);
    call(&db, "ListTables", json!({}));
    assert_eq!(other.take().to_string(), "2 x ListTables");
    assert_eq!(other.take().len(), 0);
}
