//! Tests of DynamoDB streams, read directly in process and through the SDK's streams client.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodbstreams::error::ProvideErrorMetadata;
use aws_sdk_dynamodbstreams::types::{OperationType, ShardIteratorType};
use serde_json::{Value, json};
use streamer_fakes::dynamodb::{DynamoDb, EventName, SequenceNumber, ShardId, StreamErrorKind, StreamRecord};

use super::{TestClock, builder, call, create_table, database, fail, put};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the records of all shards of a stream, in the order of their sequence numbers.
pub(super) fn read_all(db: &DynamoDb, arn: &str) -> Vec<StreamRecord> {
    let streams = db.streams();
    let shards = streams.shards(arn).unwrap();
    let mut records: Vec<_> =
        shards.iter().flat_map(|shard| streams.read(arn, shard, None, 10_000).unwrap()).collect();
    records.sort_by_key(|record| record.sequence_number);
    records
}

fn client(db: &DynamoDb) -> aws_sdk_dynamodbstreams::Client {
    use aws_sdk_dynamodbstreams::config::{Config, Region};
    let credentials = aws_sdk_dynamodb::config::Credentials::new("test", "test", None, None, "test");
    let config = Config::builder()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .http_client(db.http_client())
        .build();
    aws_sdk_dynamodbstreams::Client::from_conf(config)
}

fn update(db: &DynamoDb, key: &str, value: &str) {
    let request = json!({
        "TableName": "things",
        "Key": { "pk": { "S": key } },
        "UpdateExpression": "SET v = :v",
        "ExpressionAttributeValues": { ":v": { "S": value } },
    });
    call(db, "UpdateItem", request);
}

/// Inserts the item `a`, changes it, writes it twice without a change, and deletes it twice.
fn write_and_delete_item_a(db: &DynamoDb) {
    put(db, "things", json!({ "pk": { "S": "a" }, "v": { "S": "1" } }));
    update(db, "a", "2");
    update(db, "a", "2");
    put(db, "things", json!({ "v": { "S": "2" }, "pk": { "S": "a" } }));
    let key = json!({ "TableName": "things", "Key": { "pk": { "S": "a" } } });
    call(db, "DeleteItem", key.clone());
    call(db, "DeleteItem", key);
}

#[test]
fn stream_records_have_the_shape_of_the_lambda_event() {
    let (db, clock) = database();
    create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
    clock.advance(Duration::from_millis(1_900));
    write_and_delete_item_a(&db);
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let records: Vec<Value> = read_all(&db, &arn).iter().map(StreamRecord::to_event_record).collect();
    insta::assert_json_snapshot!(records);
}

#[test]
fn write_that_leaves_an_item_unchanged_emits_no_stream_record() {
    let (db, _) = database();
    create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
    write_and_delete_item_a(&db);
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let names: Vec<_> = read_all(&db, &arn).iter().map(|record| record.event_name).collect();
    assert_eq!(names, [EventName::Insert, EventName::Modify, EventName::Remove]);
}

#[test]
fn stream_view_type_decides_the_images_and_size_of_its_records() {
    for (view_type, new, old, size) in [
        ("KEYS_ONLY", false, false, 3),
        ("NEW_IMAGE", true, false, 3 + 5),
        ("OLD_IMAGE", false, true, 3 + 5),
        ("NEW_AND_OLD_IMAGES", true, true, 3 + 5 + 5),
    ] {
        let (db, _) = database();
        create_table(&db, "things", Some(view_type));
        write_and_delete_item_a(&db);
        let arn = db.streams().latest_stream_arn("things").unwrap();
        let records = read_all(&db, &arn);
        assert_eq!(records.len(), 3, "{view_type}");
        let change = &records[1];
        assert_eq!(change.new_image.as_ref().map(|image| &image["v"]["S"]), new.then_some(&json!("2")));
        assert_eq!(change.old_image.as_ref().map(|image| &image["v"]["S"]), old.then_some(&json!("1")));
        assert_eq!((change.view_type.as_str(), change.size_bytes), (view_type, size));
    }
}

#[test]
fn items_spread_over_all_shards_and_records_of_an_item_stay_in_order() {
    let (db, _) = database();
    create_table(&db, "things", Some("NEW_IMAGE"));
    for round in 0..3 {
        for item in 0..40 {
            update(&db, &format!("item-{item}"), &round.to_string());
        }
    }
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let shards = streams.shards(&arn).unwrap();
    assert_eq!(shards.len(), 4);
    let mut seen = BTreeSet::new();
    for shard in &shards {
        let records = streams.read(&arn, shard, None, 1_000).unwrap();
        assert!(
            !records.is_empty(),
            "every shard receives records of some of the 40 items; {shard} received none"
        );
        assert!(records.is_sorted_by(|a, b| a.sequence_number < b.sequence_number));
        let keys: BTreeSet<_> =
            records.iter().map(|record| record.keys["pk"]["S"].as_str().unwrap()).collect();
        for key in &keys {
            let of_item = records.iter().filter(|record| record.keys["pk"]["S"] == **key);
            let values: Vec<_> =
                of_item.map(|r| r.new_image.as_ref().unwrap()["v"]["S"].as_str().unwrap()).collect();
            assert_eq!(values, ["0", "1", "2"], "{key}");
        }
        assert!(keys.iter().all(|key| seen.insert((*key).to_owned())), "each item is in exactly one shard");
    }
    assert_eq!(seen.len(), 40);
}

#[test]
fn transaction_emits_its_stream_records_and_a_cancelled_transaction_emits_none() {
    let (db, _) = database();
    create_table(&db, "things", Some("KEYS_ONLY"));
    let write = |key: &str| json!({ "Put": { "TableName": "things", "Item": { "pk": { "S": key } } } });
    call(&db, "TransactWriteItems", json!({ "TransactItems": [write("a"), write("b")] }));
    let mut refused = write("c");
    refused["Put"]["ConditionExpression"] = json!("attribute_exists(pk)");
    fail(&db, "TransactWriteItems", json!({ "TransactItems": [write("d"), refused] }));
    let batch = json!({ "PutRequest": { "Item": { "pk": { "S": "e" } } } });
    call(&db, "BatchWriteItem", json!({ "RequestItems": { "things": [batch] } }));
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let keys: Vec<_> = read_all(&db, &arn)
        .iter()
        .map(|record| record.keys["pk"]["S"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["a", "b", "e"]);
}

#[test]
fn shard_read_starts_after_a_given_or_the_latest_sequence_number() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let [shard] = &streams.shards(&arn).unwrap()[..] else { panic!("expected a stream with one shard") };
    let before_any = streams.latest(&arn, shard).unwrap();
    for value in ["1", "2", "3"] {
        update(&db, "a", value);
    }
    let latest = streams.latest(&arn, shard).unwrap();
    let values = |after: Option<&SequenceNumber>, limit| -> Vec<String> {
        let records = streams.read(&arn, shard, after, limit).unwrap();
        records.iter().map(|r| r.new_image.as_ref().unwrap()["v"]["S"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values(None, 2), ["1", "2"]);
    assert_eq!(
        values(Some(&before_any), 10),
        ["1", "2", "3"],
        "a stream without records has a latest sequence number"
    );
    let second = streams.read(&arn, shard, None, 2).unwrap()[1].sequence_number;
    assert_eq!(values(Some(&second), 10), ["3"]);
    assert_eq!(values(Some(&latest), 10), [""; 0]);
    update(&db, "a", "4");
    assert_eq!(values(Some(&latest), 10), ["4"]);
}

#[test]
fn access_to_a_missing_stream_or_shard_fails_with_not_found() {
    let (db, _) = database();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let no_stream = streams.shards("arn:aws:dynamodb:us-east-1:000000000000:table/x/stream/l").unwrap_err();
    assert_eq!(no_stream.kind(), StreamErrorKind::NotFound);
    let no_shard = streams.read(&arn, &ShardId::new("shardId-7"), None, 1).unwrap_err();
    assert_eq!(no_shard.kind(), StreamErrorKind::NotFound);
    assert!(no_shard.to_string().contains("shardId-7"), "{no_shard}");
    assert_eq!(streams.latest(&arn, &ShardId::new("shardId-7")), None);
    assert_eq!(
        streams.split_shard(&arn, &ShardId::new("shardId-7")).unwrap_err().kind(),
        StreamErrorKind::NotFound
    );
    assert_eq!(fail(&db, "DescribeStream", json!({ "StreamArn": "x" })).0, "ResourceNotFoundException");
}

#[tokio::test]
async fn sdk_reads_a_stream_with_each_iterator_type() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
    let client = client(&db);
    let listed = client.list_streams().table_name("things").send().await.unwrap();
    let arn = listed.streams()[0].stream_arn().unwrap();
    for value in ["1", "2", "3"] {
        update(&db, "a", value);
    }
    let described = client.describe_stream().stream_arn(arn).send().await.unwrap();
    let description = described.stream_description().unwrap();
    assert_eq!(description.key_schema()[0].attribute_name(), "pk");
    let shard = description.shards()[0].shard_id().unwrap();

    let read = async |kind: ShardIteratorType, number: Option<String>| {
        let iterator = client.get_shard_iterator().stream_arn(arn).shard_id(shard).shard_iterator_type(kind);
        let iterator = iterator.set_sequence_number(number).send().await.unwrap();
        client.get_records().shard_iterator(iterator.shard_iterator().unwrap()).send().await.unwrap()
    };
    let all = read(ShardIteratorType::TrimHorizon, None).await;
    let names: Vec<_> = all.records().iter().map(|record| record.event_name().unwrap().clone()).collect();
    assert_eq!(names, [OperationType::Insert, OperationType::Modify, OperationType::Modify]);
    let second = all.records()[1].dynamodb().unwrap();
    assert_eq!(second.approximate_creation_date_time().unwrap().secs(), 1_704_067_200);
    let number = second.sequence_number().map(str::to_owned);
    assert_eq!(read(ShardIteratorType::AtSequenceNumber, number.clone()).await.records().len(), 2);
    assert_eq!(read(ShardIteratorType::AfterSequenceNumber, number).await.records().len(), 1);
    let latest = read(ShardIteratorType::Latest, None).await;
    assert!(latest.records().is_empty());
    update(&db, "a", "4");
    let next = client.get_records().shard_iterator(latest.next_shard_iterator().unwrap());
    assert_eq!(next.send().await.unwrap().records().len(), 1);

    clock.advance(Duration::from_secs(15 * 60 + 1));
    let expired = client.get_records().shard_iterator(latest.next_shard_iterator().unwrap());
    let error = expired.send().await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("ExpiredIteratorException"));
}

#[tokio::test]
async fn sdk_reads_the_user_identity_of_a_time_to_live_deletion() {
    let (db, clock) = database();
    create_table(&db, "things", Some("KEYS_ONLY"));
    let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
    call(&db, "UpdateTimeToLive", json!({ "TableName": "things", "TimeToLiveSpecification": ttl }));
    put(&db, "things", json!({ "pk": { "S": "a" }, "expires": { "N": "1704067200" } }));
    clock.advance(Duration::from_secs(1));
    assert_eq!(db.sweep_expired().unwrap(), 1);
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let client = client(&db);
    let mut identities = Vec::new();
    for shard in db.streams().shards(&arn).unwrap() {
        let iterator = client.get_shard_iterator().stream_arn(&arn).shard_id(shard.as_str());
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let read =
            client.get_records().shard_iterator(iterator.shard_iterator().unwrap()).send().await.unwrap();
        identities.extend(read.records().iter().filter_map(|record| record.user_identity().cloned()));
    }
    assert_eq!(identities.len(), 1);
    assert_eq!(identities[0].r#type(), Some("Service"));
    assert_eq!(identities[0].principal_id(), Some("dynamodb.amazonaws.com"));
}

fn iterator(db: &DynamoDb, arn: &str, shard: &ShardId, kind: &str, number: Option<&str>) -> Value {
    let request = json!({ "StreamArn": arn, "ShardId": shard.as_str(), "ShardIteratorType": kind, "SequenceNumber": number });
    call(db, "GetShardIterator", request)["ShardIterator"].take()
}

#[test]
fn streams_api_pages_respect_the_limit_and_continue_where_the_last_page_ended() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(3).in_memory().unwrap();
    for table in ["things", "uncles", "voices"] {
        create_table(&db, table, Some("KEYS_ONLY"));
    }
    let first = call(&db, "ListStreams", json!({ "Limit": 2 }));
    let tables = |answer: &Value| -> Vec<String> {
        let streams = answer["Streams"].as_array().unwrap();
        streams.iter().map(|stream| stream["TableName"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tables(&first), ["things", "uncles"]);
    let rest =
        call(&db, "ListStreams", json!({ "ExclusiveStartStreamArn": first["LastEvaluatedStreamArn"] }));
    assert_eq!((tables(&rest), &rest["LastEvaluatedStreamArn"]), (vec!["voices".to_owned()], &Value::Null));

    let arn = db.streams().latest_stream_arn("things").unwrap();
    let page = &call(&db, "DescribeStream", json!({ "StreamArn": arn, "Limit": 2 }))["StreamDescription"];
    assert_eq!(page["Shards"].as_array().unwrap().len(), 2);
    assert_eq!(page["LastEvaluatedShardId"], page["Shards"][1]["ShardId"]);
    let rest = json!({ "StreamArn": arn, "ExclusiveStartShardId": page["LastEvaluatedShardId"] });
    let rest = &call(&db, "DescribeStream", rest)["StreamDescription"];
    assert_eq!(rest["Shards"].as_array().unwrap().len(), 1);
    assert_eq!(rest["LastEvaluatedShardId"], Value::Null);

    update(&db, "a", "1");
    update(&db, "a", "2");
    let streams = db.streams();
    let shards = streams.shards(&arn).unwrap();
    let shard = shards.iter().find(|shard| !streams.read(&arn, shard, None, 1).unwrap().is_empty()).unwrap();
    let start = iterator(&db, &arn, shard, "TRIM_HORIZON", None);
    let one = call(&db, "GetRecords", json!({ "ShardIterator": start, "Limit": 1 }));
    let two = call(&db, "GetRecords", json!({ "ShardIterator": one["NextShardIterator"], "Limit": 1 }));
    assert_eq!(
        (&one["Records"][0]["eventName"], &two["Records"][0]["eventName"]),
        (&json!("INSERT"), &json!("MODIFY"))
    );
    for (operation, body) in [
        ("GetRecords", json!({ "ShardIterator": two["NextShardIterator"], "Limit": 1_001 })),
        ("GetRecords", json!({ "ShardIterator": "nonsense" })),
        ("DescribeStream", json!({ "StreamArn": arn, "Limit": 0 })),
        (
            "GetShardIterator",
            json!({ "StreamArn": arn, "ShardId": shard.as_str(), "ShardIteratorType": "AT_SEQUENCE_NUMBER" }),
        ),
        (
            "GetShardIterator",
            json!({ "StreamArn": arn, "ShardId": shard.as_str(), "ShardIteratorType": "FROM_THE_TOP" }),
        ),
        (
            "GetShardIterator",
            json!({
                "StreamArn": arn, "ShardId": shard.as_str(), "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "1",
            }),
        ),
    ] {
        assert_eq!(fail(&db, operation, body).0, "ValidationException", "{operation}");
    }
}

#[test]
fn get_records_page_ends_at_one_mebibyte() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    for item in 0..4 {
        put(&db, "things", json!({ "pk": { "S": item.to_string() }, "v": { "S": "x".repeat(300_000) } }));
    }
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let shard = &db.streams().shards(&arn).unwrap()[0];
    let start = iterator(&db, &arn, shard, "TRIM_HORIZON", None);
    let page = call(&db, "GetRecords", json!({ "ShardIterator": start }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 3);
    let rest = call(&db, "GetRecords", json!({ "ShardIterator": page["NextShardIterator"] }));
    assert_eq!(rest["Records"].as_array().unwrap().len(), 1);
}

#[test]
fn stream_shards_keep_records_for_24_hours() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let shard = &streams.shards(&arn).unwrap()[0];
    update(&db, "a", "old");
    let old = streams.read(&arn, shard, None, 1).unwrap()[0].sequence_number.to_string();
    clock.advance(DAY - Duration::from_secs(1));
    update(&db, "a", "young");
    let horizon = iterator(&db, &arn, shard, "TRIM_HORIZON", None);
    assert_eq!(read_all(&db, &arn).len(), 2);
    clock.advance(Duration::from_secs(1));

    let rest = read_all(&db, &arn);
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].new_image.as_ref().unwrap()["v"]["S"], "young");
    let trimmed = fail(&db, "GetRecords", json!({ "ShardIterator": horizon }));
    assert_eq!(trimmed.0, "TrimmedDataAccessException");
    let at = json!({ "StreamArn": arn, "ShardId": shard.as_str(), "ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": old });
    assert_eq!(fail(&db, "GetShardIterator", at).0, "TrimmedDataAccessException");
    let fresh = iterator(&db, &arn, shard, "TRIM_HORIZON", None);
    assert_eq!(
        call(&db, "GetRecords", json!({ "ShardIterator": fresh }))["Records"].as_array().unwrap().len(),
        1
    );

    clock.advance(DAY);
    assert_eq!(db.sweep_expired().unwrap(), 0);
    assert_eq!(read_all(&db, &arn), []);
    update(&db, "a", "youngest");
    assert!(
        read_all(&db, &arn)[0].sequence_number > rest[0].sequence_number,
        "sequence numbers keep rising after old records are dropped"
    );
}

#[test]
fn records_of_a_disabled_stream_stay_readable_for_24_hours() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let shard = &db.streams().shards(&arn).unwrap()[0];
    update(&db, "a", "1");
    update(&db, "a", "2");
    call(&db, "DeleteTable", json!({ "TableName": "things" }));

    let described = &call(&db, "DescribeStream", json!({ "StreamArn": arn }))["StreamDescription"];
    assert_eq!(described["StreamStatus"], "DISABLED");
    let ending = &described["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"];
    let start = iterator(&db, &arn, shard, "TRIM_HORIZON", None);
    let page = call(&db, "GetRecords", json!({ "ShardIterator": start, "Limit": 1 }));
    let last = call(&db, "GetRecords", json!({ "ShardIterator": page["NextShardIterator"] }));
    assert_eq!(last["Records"][0]["dynamodb"]["SequenceNumber"], *ending);
    assert_eq!(
        last["NextShardIterator"],
        Value::Null,
        "a closed shard that was read to its end has no next iterator"
    );

    clock.advance(DAY);
    assert_eq!(fail(&db, "DescribeStream", json!({ "StreamArn": arn })).0, "ResourceNotFoundException");
    db.sweep_expired().unwrap();
    assert_eq!(call(&db, "ListStreams", json!({})), json!({ "Streams": [] }));
}

#[test]
fn table_recreated_with_the_same_name_has_a_new_stream() {
    let (db, _) = database();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let first = db.streams().latest_stream_arn("things").unwrap();
    update(&db, "a", "1");
    call(&db, "DeleteTable", json!({ "TableName": "things" }));
    assert_eq!(db.streams().latest_stream_arn("things"), None);
    // The clock stands still, so both tables are created in the same millisecond.
    create_table(&db, "things", Some("KEYS_ONLY"));
    let second = db.streams().latest_stream_arn("things").unwrap();
    assert_ne!(first, second);
    assert_eq!((read_all(&db, &first).len(), read_all(&db, &second).len()), (1, 0));
}

#[test]
fn equal_calls_on_two_databases_produce_equal_stream_records() {
    let run = || {
        let (db, _) = database();
        create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
        write_and_delete_item_a(&db);
        let arn = db.streams().latest_stream_arn("things").unwrap();
        read_all(&db, &arn).iter().map(|record| record.to_event_record().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

fn value_of(record: &StreamRecord) -> &str {
    record.new_image.as_ref().unwrap()["v"]["S"].as_str().unwrap()
}

#[test]
fn split_shard_is_closed_and_its_children_receive_its_items() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(2).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let write = |value: &str| (0..40).for_each(|item| update(&db, &format!("item-{item}"), value));
    write("before");
    let [one, other] = &streams.shards(&arn).unwrap()[..] else {
        panic!("expected a stream with two shards")
    };
    clock.advance(Duration::from_secs(1));
    let children = streams.split_shard(&arn, one).unwrap();
    write("after");

    let infos = streams.shard_infos(&arn).unwrap();
    let described: Vec<_> = infos.iter().map(|info| (&info.id, info.parent.as_ref(), info.closed)).collect();
    let [left, right] = &children[..] else { panic!("expected two children of the split shard") };
    assert_eq!(
        described,
        [(one, None, true), (other, None, false), (left, Some(one), false), (right, Some(one), false)]
    );
    let of = |shard: &ShardId| streams.read(&arn, shard, None, 1_000).unwrap();
    let keys = |shard: &ShardId| -> BTreeSet<String> {
        of(shard).iter().map(|record| record.keys["pk"]["S"].as_str().unwrap().to_owned()).collect()
    };
    assert!(of(one).iter().all(|record| value_of(record) == "before"));
    assert!([left, right].iter().all(|child| of(child).iter().all(|record| value_of(record) == "after")));
    assert_eq!(of(other).len(), 2 * keys(other).len(), "the shard that was not split keeps its items");
    assert!(!keys(left).is_empty() && !keys(right).is_empty() && keys(left).is_disjoint(&keys(right)));
    assert_eq!(&keys(left) | &keys(right), keys(one));
    let last = of(one).last().unwrap().sequence_number;
    assert!(of(left)[0].sequence_number > last && of(right)[0].sequence_number > last);

    let error = streams.split_shard(&arn, one).unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Closed, "{error}");
    let grandchildren = streams.split_shard(&arn, left).unwrap();
    assert_eq!(streams.shard_infos(&arn).unwrap()[4].parent.as_ref(), Some(left));
    assert_eq!(grandchildren, streams.shards(&arn).unwrap()[4..]);
}

#[test]
fn describe_stream_returns_the_parent_and_sequence_number_range_of_each_split_shard() {
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(1).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    for value in ["1", "2"] {
        update(&db, "a", value);
    }
    let parent = streams.shards(&arn).unwrap().remove(0);
    let children = streams.split_shard(&arn, &parent).unwrap();
    // This split closes a child that has no records. The child's sequence number range must not end before its start.
    streams.split_shard(&arn, &children[0]).unwrap();
    update(&db, "a", "3");

    let described =
        call(&db, "DescribeStream", json!({ "StreamArn": arn }))["StreamDescription"]["Shards"].take();
    let described = described.as_array().unwrap();
    let parents: Vec<_> = described.iter().map(|shard| shard["ParentShardId"].as_str()).collect();
    let (root, left) = (Some(parent.as_str()), Some(children[0].as_str()));
    assert_eq!(parents, [None, root, root, left, left]);
    let ends: Vec<_> =
        described.iter().map(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].as_str()).collect();
    assert_eq!(ends.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false, false]);
    for shard in described {
        let range = &shard["SequenceNumberRange"];
        let (start, end) =
            (range["StartingSequenceNumber"].as_str().unwrap(), range["EndingSequenceNumber"].as_str());
        assert!(end.is_none_or(|end| start <= end), "{shard}");
        let id = shard["ShardId"].as_str().unwrap();
        let read = streams.read(&arn, &ShardId::new(id), None, 10).unwrap();
        let numbers: Vec<_> = read.iter().map(|record| record.sequence_number.to_string()).collect();
        assert!(
            numbers.iter().all(|number| &**number >= start && end.is_none_or(|end| &**number <= end)),
            "{shard}"
        );
    }

    let mut iterator = iterator(&db, &arn, &parent, "TRIM_HORIZON", None);
    let mut pages = Vec::new();
    while iterator != Value::Null {
        let mut page = call(&db, "GetRecords", json!({ "ShardIterator": iterator, "Limit": 1 }));
        pages.push(page["Records"].as_array().unwrap().len());
        iterator = page["NextShardIterator"].take();
    }
    assert_eq!(pages, [1, 1, 0], "a closed shard that was read to its end has no next iterator");
    let latest = self::iterator(&db, &arn, &parent, "LATEST", None);
    assert_eq!(call(&db, "GetRecords", json!({ "ShardIterator": latest })), json!({ "Records": [] }));
}

#[test]
fn shard_is_replaced_after_its_lifetime_and_dropped_24_hours_later() {
    let clock = TestClock::new();
    let hours = |n: u64| Duration::from_secs(n * 60 * 60);
    let db = builder(&clock).shards_per_stream(1).shard_lifetime(Some(hours(4))).in_memory().unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    clock.advance(hours(4) - Duration::from_millis(1));
    update(&db, "a", "1");
    assert_eq!(streams.shards(&arn).unwrap().len(), 1);
    clock.advance(Duration::from_millis(1));
    update(&db, "a", "2");
    let infos = streams.shard_infos(&arn).unwrap();
    assert_eq!((infos[0].closed, infos[1].closed), (true, false));
    assert_eq!(infos[1].parent.as_ref(), Some(&infos[0].id));
    let values = |shard: &ShardId| -> Vec<String> {
        streams
            .read(&arn, shard, None, 10)
            .unwrap()
            .iter()
            .map(|record| value_of(record).to_owned())
            .collect()
    };
    assert_eq!((values(&infos[0].id), values(&infos[1].id)), (vec!["1".to_owned()], vec!["2".to_owned()]));

    clock.advance(hours(4));
    db.sweep_expired().unwrap();
    assert_eq!(
        streams.shards(&arn).unwrap().len(),
        3,
        "without a write, the sweep replaces a shard after its lifetime"
    );
    streams.save_checkpoint("mapping", &infos[0].id, &SequenceNumber::default()).unwrap();
    clock.advance(hours(20));
    let left = streams.shards(&arn).unwrap();
    assert!(!left.contains(&infos[0].id) && left.contains(&infos[1].id), "{left:?}");
    assert_eq!(streams.read(&arn, &infos[0].id, None, 1).unwrap_err().kind(), StreamErrorKind::NotFound);
    db.sweep_expired().unwrap();
    assert_eq!(
        streams.checkpoint("mapping", &infos[0].id).unwrap(),
        None,
        "dropping a shard drops its checkpoints"
    );
    let second = &streams.shard_infos(&arn).unwrap()[0];
    assert_eq!(
        second.parent.as_ref(),
        Some(&infos[0].id),
        "a child still names its parent after the parent was dropped"
    );
}
