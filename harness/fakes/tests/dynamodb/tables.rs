//! Tests of table descriptions, tags, the enabling of streams, and time to live.

use std::time::Duration;

use serde_json::{Value, json};
use streamer_fakes::dynamodb::{EventName, UserIdentity};

use super::{TestClock, builder, call, create_table, database, fail, put};

#[test]
fn table_descriptions_use_the_configured_region_account_clock_and_entropy() {
    let clock = TestClock::new();
    let db = builder(&clock).region("eu-central-1").account_id("123456789012").in_memory().unwrap();
    let request = json!({
        "TableName": "things",
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [
            { "AttributeName": "pk", "AttributeType": "S" }, { "AttributeName": "g", "AttributeType": "S" },
        ],
        "GlobalSecondaryIndexes": [{
            "IndexName": "by-g",
            "KeySchema": [{ "AttributeName": "g", "KeyType": "HASH" }],
            "Projection": { "ProjectionType": "ALL" },
        }],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "KEYS_ONLY" },
    });
    let created = &call(&db, "CreateTable", request)["TableDescription"];
    clock.advance(Duration::from_secs(60));
    let described = &call(&db, "DescribeTable", json!({ "TableName": "things" }))["Table"];
    let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/things";
    for description in [created, described] {
        assert_eq!(description["TableArn"], table);
        assert_eq!(description["GlobalSecondaryIndexes"][0]["IndexArn"], format!("{table}/index/by-g"));
        assert_eq!(description["LatestStreamLabel"], "2024-01-01T00:00:00.000");
        assert_eq!(description["LatestStreamArn"], format!("{table}/stream/2024-01-01T00:00:00.000"));
        assert_eq!(description["StreamSpecification"]["StreamViewType"], "KEYS_ONLY");
        assert_eq!(description["CreationDateTime"].as_f64(), Some(1_704_067_200.0));
        assert_eq!(description["TableId"], "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
    assert_eq!(
        db.streams().latest_stream_arn("things").unwrap(),
        described["LatestStreamArn"].as_str().unwrap()
    );
}

#[test]
fn table_tags_are_stored_under_the_arn_in_the_table_description() {
    let (db, _) = database();
    let arn = create_table(&db, "things", None)["TableArn"].take();
    let tag = json!({ "ResourceArn": arn, "Tags": [{ "Key": "stage", "Value": "local" }] });
    assert_eq!(db.handle("DynamoDB_20120810.TagResource", tag.to_string().as_bytes()).status, 200);
    let tags = call(&db, "ListTagsOfResource", json!({ "ResourceArn": arn }));
    assert_eq!(tags["Tags"], json!([{ "Key": "stage", "Value": "local" }]));
}

fn set_stream(enabled: bool) -> Value {
    let mut specification = json!({ "StreamEnabled": enabled });
    if enabled {
        specification["StreamViewType"] = json!("NEW_IMAGE");
    }
    json!({ "TableName": "things", "StreamSpecification": specification })
}

#[test]
fn update_table_refuses_to_enable_an_enabled_or_disable_a_disabled_stream() {
    let (db, _) = database();
    assert_eq!(create_table(&db, "things", None)["LatestStreamArn"], Value::Null);
    let (error, message) = fail(&db, "UpdateTable", set_stream(false));
    assert_eq!(error, "ValidationException");
    assert!(message.contains("already has a disabled stream"), "{message}");

    let updated = &call(&db, "UpdateTable", set_stream(true))["TableDescription"];
    assert_eq!(updated["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
    let arn = updated["LatestStreamArn"].as_str().unwrap();
    put(&db, "things", json!({ "pk": { "S": "a" } }));
    let (error, message) = fail(&db, "UpdateTable", set_stream(true));
    assert_eq!(error, "ValidationException");
    assert!(message.contains("already has an enabled stream"), "{message}");

    call(&db, "UpdateTable", set_stream(false));
    put(&db, "things", json!({ "pk": { "S": "b" } }));
    assert_eq!(db.streams().latest_stream_arn("things"), None);
    let records = super::streams::read_all(&db, arn);
    assert_eq!(records.len(), 1, "a disabled stream keeps its records");

    let again = &call(&db, "UpdateTable", set_stream(true))["TableDescription"];
    assert_ne!(again["LatestStreamArn"], arn, "enabling a stream again creates a stream with a new ARN");
}

#[test]
fn time_to_live_deletion_record_has_the_user_identity_of_dynamodb() {
    let (db, clock) = database();
    create_table(&db, "things", Some("NEW_AND_OLD_IMAGES"));
    let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
    call(&db, "UpdateTimeToLive", json!({ "TableName": "things", "TimeToLiveSpecification": ttl }));
    put(&db, "things", json!({ "pk": { "S": "soon" }, "expires": { "N": "1704067260" } }));
    put(&db, "things", json!({ "pk": { "S": "late" }, "expires": { "N": "1704067320" } }));
    put(&db, "things", json!({ "pk": { "S": "never" }, "expires": { "S": "1" } }));
    assert_eq!(db.sweep_expired().unwrap(), 0);
    clock.advance(Duration::from_secs(61));
    assert_eq!(db.sweep_expired().unwrap(), 1);
    assert_eq!(call(&db, "Scan", json!({ "TableName": "things" }))["Count"], 2);

    let arn = db.streams().latest_stream_arn("things").unwrap();
    let records = super::streams::read_all(&db, &arn);
    let removal = records.iter().find(|record| record.event_name == EventName::Remove).unwrap();
    assert_eq!(removal.keys, json!({ "pk": { "S": "soon" } }));
    assert_eq!(removal.old_image.as_ref().unwrap()["expires"]["N"], "1704067260");
    let identity =
        UserIdentity { kind: "Service".to_owned(), principal_id: "dynamodb.amazonaws.com".to_owned() };
    assert_eq!(removal.user_identity, Some(identity));
    assert_eq!(
        removal.to_event_record()["userIdentity"],
        json!({ "type": "Service", "principalId": "dynamodb.amazonaws.com" })
    );
}

#[test]
fn item_that_expired_more_than_five_years_ago_is_not_deleted() {
    const FIVE_YEARS_AGO: u64 = 1_704_067_200 - 5 * 365 * 86_400;
    let (db, _) = database();
    create_table(&db, "things", None);
    let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
    call(&db, "UpdateTimeToLive", json!({ "TableName": "things", "TimeToLiveSpecification": ttl }));
    for (key, expires) in [("a second more", FIVE_YEARS_AGO - 1), ("five years", FIVE_YEARS_AGO), ("zero", 0)]
    {
        put(&db, "things", json!({ "pk": { "S": key }, "expires": { "N": expires.to_string() } }));
    }
    assert_eq!(db.sweep_expired().unwrap(), 1);
    let left = call(&db, "Scan", json!({ "TableName": "things" }));
    let mut left: Vec<_> = left["Items"].as_array().unwrap().iter().map(|item| &item["pk"]["S"]).collect();
    left.sort_by_key(|key| key.to_string());
    assert_eq!(left, ["a second more", "zero"]);
}

/// Clock that shows tokio's paused time, which advances without real waiting while the test sleeps.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl streamer::ports::Clock for Virtual {
    fn now(&self) -> streamer::ports::Timestamp {
        streamer::ports::Timestamp::from_secs(1_704_067_200) + self.0.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn periodic_sweeps_delete_expired_items_on_the_virtual_clock() {
    let clock = std::sync::Arc::new(Virtual(tokio::time::Instant::now()));
    let db = streamer_fakes::dynamodb::DynamoDb::builder().clock(clock).in_memory().unwrap();
    for table in ["others", "things"] {
        create_table(&db, table, Some("KEYS_ONLY"));
        let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
        call(&db, "UpdateTimeToLive", json!({ "TableName": table, "TimeToLiveSpecification": ttl }));
    }
    let count = |table: &str| call(&db, "Scan", json!({ "TableName": table }))["Count"].as_u64().unwrap();
    // The table has more items than one page of a sweep, so the sweep must continue where the previous page ended.
    for item in 0..250 {
        let expires = if item % 2 == 0 { "1704067201" } else { "1704070800" };
        put(&db, "things", json!({ "pk": { "S": item.to_string() }, "expires": { "N": expires } }));
    }
    put(&db, "others", json!({ "pk": { "S": "a" }, "expires": { "N": "1704067201" } }));
    let sweeping = db.clone();
    let sweeping = tokio::spawn(async move { sweeping.sweep_every(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(
        (count("things"), count("others")),
        (250, 1),
        "no item is deleted between the first sweep, at the start, and the second sweep"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((count("things"), count("others")), (125, 0));
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    assert_eq!(count("things"), 0);
    sweeping.abort();
}
