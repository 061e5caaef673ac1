//! Tests of DynamoDB fakes that are opened in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use streamer_fakes::dynamodb::OpenErrorKind;

use super::{TestClock, builder, call, create_table, put};

/// Returns a path that only one test uses. Deletes the file or folder that an earlier run left at this path.
fn fresh_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dynamodb-{name}"));
    let _ = fs::remove_dir_all(&path);
    let _ = fs::remove_file(&path);
    path
}

#[test]
fn tables_items_streams_and_checkpoints_survive_a_restart() {
    let dir = fresh_path("restart").join("made").join("on the way");
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(2).open(&dir).unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    put(&db, "things", json!({ "pk": { "S": "a" } }));
    let streams = db.streams();
    let arn = streams.latest_stream_arn("things").unwrap();
    let before = super::streams::read_all(&db, &arn);
    let shards = streams.shards(&arn).unwrap();
    streams.save_checkpoint("mapping", &shards[0], &before[0].sequence_number).unwrap();
    drop((streams, db));

    clock.advance(Duration::from_secs(60));
    let db = builder(&clock).shards_per_stream(7).open(&dir).unwrap();
    let streams = db.streams();
    assert_eq!(call(&db, "Scan", json!({ "TableName": "things" }))["Count"], 1);
    assert_eq!(streams.latest_stream_arn("things").unwrap(), arn);
    assert_eq!(streams.shards(&arn).unwrap(), shards, "an existing stream keeps its shards");
    assert_eq!(super::streams::read_all(&db, &arn), before);
    assert_eq!(streams.checkpoint("mapping", &shards[0]).unwrap(), Some(before[0].sequence_number));
    assert_eq!(streams.checkpoint("mapping", &shards[1]).unwrap(), None);
    assert_eq!(streams.checkpoint("another", &shards[0]).unwrap(), None);
    put(&db, "things", json!({ "pk": { "S": "b" } }));
    let after = super::streams::read_all(&db, &arn);
    assert!(after[1].sequence_number > before[0].sequence_number);
    let described = &call(&db, "DescribeTable", json!({ "TableName": "things" }))["Table"];
    assert_eq!(described["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
}

#[test]
fn shard_splits_survive_a_restart_and_a_stream_stored_without_shards_gets_shards() {
    let dir = fresh_path("shards");
    let clock = TestClock::new();
    let db = builder(&clock).shards_per_stream(2).open(&dir).unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    put(&db, "things", json!({ "pk": { "S": "a" } }));
    let arn = db.streams().latest_stream_arn("things").unwrap();
    let roots = db.streams().shard_infos(&arn).unwrap();
    drop(db);
    // Simulates a folder of an older version, which had no table of shards.
    let conn = rusqlite::Connection::open(dir.join("dynamodb.sqlite3")).unwrap();
    conn.execute_batch("DROP TABLE _streamer_shards").unwrap();
    drop(conn);

    let db = builder(&clock).open(&dir).unwrap();
    assert_eq!(db.streams().shard_infos(&arn).unwrap(), roots);
    put(&db, "things", json!({ "pk": { "S": "b" } }));
    assert_eq!(super::streams::read_all(&db, &arn).len(), 2);
    db.streams().split_shard(&arn, &roots[0].id).unwrap();
    let split = db.streams().shard_infos(&arn).unwrap();
    drop(db);
    let db = builder(&clock).open(&dir).unwrap();
    assert_eq!((split.len(), db.streams().shard_infos(&arn).unwrap()), (4, split));
}

#[test]
fn outbox_record_left_by_a_crash_reaches_its_stream_when_the_database_opens() {
    let dir = fresh_path("crash");
    let clock = TestClock::new();
    let db = builder(&clock).open(&dir).unwrap();
    create_table(&db, "things", Some("NEW_IMAGE"));
    let arn = db.streams().latest_stream_arn("things").unwrap();
    drop(db);
    let conn = rusqlite::Connection::open(dir.join("dynamodb.sqlite3")).unwrap();
    conn.execute(
        r#"INSERT INTO _stream_records
           (table_name, event_name, keys_json, new_image, sequence_number, shard_id, created_at)
           VALUES ('things', 'INSERT', '{"pk":{"S":"a"}}', '{"pk":{"S":"a"}}', '1', 's', 0)"#,
        [],
    )
    .unwrap();
    drop(conn);

    let db = builder(&clock).open(&dir).unwrap();
    let records = super::streams::read_all(&db, &arn);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].new_image, Some(json!({ "pk": { "S": "a" } })));
    drop(db);
    let db = builder(&clock).open(&dir).unwrap();
    assert_eq!(
        super::streams::read_all(&db, &arn),
        records,
        "opening the database a second time adds no record"
    );
}

#[test]
fn failed_database_open_names_the_cause_and_the_remedy() {
    let clock = TestClock::new();
    let open = |path: &Path| builder(&clock).open(path).map(drop).unwrap_err();

    let file = fresh_path("file");
    fs::write(&file, "x").unwrap();
    let error = open(&file);
    assert_eq!(error.kind(), OpenErrorKind::NotAFolder);
    assert!(
        error.to_string().contains("is a file") && error.to_string().contains("expected a folder"),
        "{error}"
    );

    let error = open(&file.join("below"));
    assert_eq!(error.kind(), OpenErrorKind::Unreadable);
    assert!(error.to_string().contains("below"), "{error}");

    let other = fresh_path("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("dynamodb.sqlite3"), "my shopping list").unwrap();
    let error = open(&other);
    assert_eq!(error.kind(), OpenErrorKind::NotADatabase);
    assert!(error.to_string().contains("move the file away"), "{error}");
    assert_eq!(
        fs::read(other.join("dynamodb.sqlite3")).unwrap(),
        b"my shopping list",
        "a file that is not a database is left unchanged"
    );

    let damaged = fresh_path("damaged");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join("dynamodb.sqlite3"), b"SQLite format 3\0and then nothing that fits").unwrap();
    let error = open(&damaged);
    assert_eq!(error.kind(), OpenErrorKind::Corrupt);
    assert!(error.to_string().contains("move the file away"), "{error}");

    let used = fresh_path("used");
    let db = builder(&clock).open(&used).unwrap();
    let error = open(&used);
    assert_eq!(error.kind(), OpenErrorKind::Locked);
    assert!(error.to_string().contains("stop the other stage"), "{error}");
    drop(db);
    builder(&clock).open(&used).unwrap();
}
