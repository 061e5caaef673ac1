//! Stores streams, their records and the readers' checkpoints in the same SQLite database as the tables.

use std::time::Duration;

use ring::digest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use streamer::ports::Timestamp;

use super::error::StreamError;
use super::record::{StreamRecord, StreamViewType, UserIdentity};
use super::sequence_number::SequenceNumber;
use super::shards;
use super::sql::{RETENTION, from_sql, horizon, to_sql};
use super::stream::Stream;
use crate::aws_format::hex;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS _streamer_streams (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        arn TEXT NOT NULL UNIQUE,
        table_name TEXT NOT NULL,
        label TEXT NOT NULL,
        view_type TEXT NOT NULL,
        key_schema TEXT NOT NULL,
        shards INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        closed_ms INTEGER,
        last_sequence INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX IF NOT EXISTS _streamer_open_streams
        ON _streamer_streams (table_name) WHERE closed_ms IS NULL;
    CREATE TABLE IF NOT EXISTS _streamer_trims (
        stream INTEGER NOT NULL,
        shard INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (stream, shard)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _streamer_records (
        stream INTEGER NOT NULL,
        shard INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        event_name TEXT NOT NULL,
        keys TEXT NOT NULL,
        new_image TEXT,
        old_image TEXT,
        user_identity TEXT,
        size_bytes INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (stream, shard, sequence)
    );
    CREATE TABLE IF NOT EXISTS _streamer_checkpoints (
        mapping TEXT NOT NULL,
        shard_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (mapping, shard_id)
    ) WITHOUT ROWID;";

const STREAM_COLUMNS: &str =
    "id, arn, table_name, label, view_type, key_schema, shards, created_ms, closed_ms, last_sequence";

/// Creates the SQLite tables of the streams if missing. Also creates the first shards of each stream without shards; an
/// older version of this fake stored streams without shards.
pub(in crate::dynamodb) fn create_tables(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(SCHEMA)?;
    conn.execute_batch(shards::SCHEMA)?;
    // An older version of this fake could not split shards, so it stored only the number of each stream's shards.
    let sql = format!(
        "SELECT {STREAM_COLUMNS} FROM _streamer_streams
         WHERE NOT EXISTS (SELECT 1 FROM _streamer_shards WHERE stream = id)"
    );
    let without: Vec<Stream> = conn.prepare(&sql)?.query_map([], to_stream)?.collect::<Result<_, _>>()?;
    for stream in without {
        shards::begin(conn, &stream)?;
        if let Some(closed) = stream.closed {
            shards::close_all(conn, &stream, closed)?;
        }
    }
    Ok(())
}

/// Properties of a stream to create.
pub(in crate::dynamodb) struct NewStream<'a> {
    pub(in crate::dynamodb) arn: &'a str,
    pub(in crate::dynamodb) table: &'a str,
    pub(in crate::dynamodb) label: &'a str,
    pub(in crate::dynamodb) view_type: StreamViewType,
    pub(in crate::dynamodb) key_schema: &'a str,
    pub(in crate::dynamodb) shards: u16,
    pub(in crate::dynamodb) created: Timestamp,
}

pub(in crate::dynamodb) fn begin_stream(conn: &Connection, new: &NewStream<'_>) -> rusqlite::Result<()> {
    let transaction = conn.unchecked_transaction()?;
    conn.execute(
        "INSERT INTO _streamer_streams (arn, table_name, label, view_type, key_schema, shards, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            new.arn,
            new.table,
            new.label,
            new.view_type.as_str(),
            new.key_schema,
            new.shards,
            to_sql(new.created.as_millis()),
        ],
    )?;
    if let Some(stream) = open_stream_of(conn, new.table)? {
        shards::begin(conn, &stream)?;
    }
    transaction.commit()
}

/// Closes the open stream of a table, if there is one.
pub(in crate::dynamodb) fn close_stream_of(
    conn: &Connection,
    table: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Some(stream) = open_stream_of(conn, table)? else { return Ok(()) };
    let transaction = conn.unchecked_transaction()?;
    shards::close_all(conn, &stream, now)?;
    conn.execute(
        "UPDATE _streamer_streams SET closed_ms = ?1 WHERE id = ?2",
        params![to_sql(now.as_millis()), stream.id],
    )?;
    transaction.commit()
}

pub(in crate::dynamodb) fn open_stream_of(
    conn: &Connection,
    table: &str,
) -> rusqlite::Result<Option<Stream>> {
    let sql =
        format!("SELECT {STREAM_COLUMNS} FROM _streamer_streams WHERE table_name = ?1 AND closed_ms IS NULL");
    conn.prepare_cached(&sql)?.query_row([table], to_stream).optional()
}

pub(in crate::dynamodb) fn stream_by_arn(conn: &Connection, arn: &str) -> rusqlite::Result<Option<Stream>> {
    let sql = format!("SELECT {STREAM_COLUMNS} FROM _streamer_streams WHERE arn = ?1");
    conn.prepare_cached(&sql)?.query_row([arn], to_stream).optional()
}

/// Returns the stream with this ARN. Fails if no such stream exists, or if it was disabled 24 hours ago or earlier.
pub(super) fn readable(conn: &Connection, arn: &str, now: Timestamp) -> Result<Stream, StreamError> {
    stream_by_arn(conn, arn)?
        .filter(|stream| stream.closed.is_none_or(|closed| now.since(closed) < RETENTION))
        .ok_or_else(|| {
            StreamError::not_found(format!("Requested resource not found: Stream: {arn} not found"))
        })
}

/// Returns all streams that can be read, sorted by ARN.
pub(super) fn streams(conn: &Connection, now: Timestamp) -> rusqlite::Result<Vec<Stream>> {
    let sql = format!(
        "SELECT {STREAM_COLUMNS} FROM _streamer_streams WHERE closed_ms IS NULL OR closed_ms > ?1 ORDER BY arn"
    );
    conn.prepare_cached(&sql)?.query_map([horizon(now)], to_stream)?.collect()
}

/// Properties of a record to append to a stream.
pub(in crate::dynamodb) struct NewRecord {
    pub(in crate::dynamodb) event_name: String,
    /// Hash of the item's partition key, which decides the record's shard.
    pub(in crate::dynamodb) hash: u64,
    pub(in crate::dynamodb) keys: String,
    pub(in crate::dynamodb) new_image: Option<String>,
    pub(in crate::dynamodb) old_image: Option<String>,
    pub(in crate::dynamodb) user_identity: Option<String>,
    pub(in crate::dynamodb) size_bytes: u64,
    pub(in crate::dynamodb) created: Timestamp,
}

/// Appends a record to the shard of its item, under the stream's next sequence number.
pub(in crate::dynamodb) fn append(
    conn: &Connection,
    stream: &Stream,
    record: &NewRecord,
    shard_lifetime: Option<Duration>,
) -> rusqlite::Result<()> {
    // The open shards of a stream together cover every hash, so a missing shard means a damaged database.
    let Some(shard) = shards::open_shard_for(conn, stream, record.hash, shard_lifetime, record.created)?
    else {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    };
    let sequence: i64 = conn
        .prepare_cached(
            "UPDATE _streamer_streams SET last_sequence = last_sequence + 1 WHERE id = ?1
             RETURNING last_sequence",
        )?
        .query_row([stream.id], |row| row.get(0))?;
    conn.prepare_cached("INSERT INTO _streamer_records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            stream.id,
            shard,
            sequence,
            record.event_name,
            record.keys,
            record.new_image,
            record.old_image,
            record.user_identity,
            to_sql(record.size_bytes),
            to_sql(record.created.as_millis()),
        ])?;
    Ok(())
}

/// Returns at most `limit` records of a shard after the sequence number `after`, oldest first.
pub(super) fn read(
    conn: &Connection,
    stream: &Stream,
    shard: u32,
    after: SequenceNumber,
    limit: usize,
    region: &str,
) -> rusqlite::Result<Vec<StreamRecord>> {
    // `+ 0`: SQLite prepares a statement again at every execution if LIMIT is a bare parameter.
    conn.prepare_cached(
        "SELECT sequence, event_name, keys, new_image, old_image, user_identity, size_bytes, created_ms
         FROM _streamer_records WHERE stream = ?1 AND shard = ?2 AND sequence > ?3 ORDER BY sequence LIMIT ?4 + 0",
    )?
    .query_map(
        params![stream.id, shard, to_sql(after.0), i64::try_from(limit).unwrap_or(i64::MAX)],
        |row| to_record(row, stream, region),
    )?
    .collect()
}

/// Drops the records of a shard that are 24 hours old or older. Returns the highest sequence number ever dropped from
/// the shard; zero if no record was dropped.
pub(super) fn trim(
    conn: &Connection,
    stream: &Stream,
    shard: u32,
    now: Timestamp,
) -> rusqlite::Result<SequenceNumber> {
    let horizon = horizon(now);
    let oldest: Option<i64> = conn
        .prepare_cached(
            "SELECT created_ms FROM _streamer_records WHERE stream = ?1 AND shard = ?2 ORDER BY sequence LIMIT 1",
        )?
        .query_row(params![stream.id, shard], |row| row.get(0))
        .optional()?;
    if oldest.is_some_and(|created| created <= horizon) {
        let transaction = conn.unchecked_transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO _streamer_trims SELECT stream, shard, max(sequence) FROM _streamer_records
             WHERE stream = ?1 AND shard = ?2 AND created_ms <= ?3 GROUP BY stream, shard",
            params![stream.id, shard, horizon],
        )?;
        transaction.execute(
            "DELETE FROM _streamer_records WHERE stream = ?1 AND shard = ?2 AND created_ms <= ?3",
            params![stream.id, shard, horizon],
        )?;
        transaction.commit()?;
    }
    let trimmed = conn
        .prepare_cached("SELECT sequence FROM _streamer_trims WHERE stream = ?1 AND shard = ?2")?
        .query_row(params![stream.id, shard], |row| row.get(0))
        .optional()?;
    Ok(SequenceNumber(trimmed.map_or(0, from_sql)))
}

/// Drops all records that are at least 24 hours old, and all streams that were disabled at least 24 hours ago.
///
/// Also replaces each open shard whose age has reached `shard_lifetime` by a child shard.
pub(in crate::dynamodb) fn trim_all(
    conn: &Connection,
    now: Timestamp,
    shard_lifetime: Option<Duration>,
) -> rusqlite::Result<()> {
    for stream in streams(conn, now)? {
        if let Some(lifetime) = shard_lifetime {
            shards::roll(conn, &stream, lifetime, now)?;
        }
        for shard in shards::all(conn, &stream, now)? {
            trim(conn, &stream, shard.number, now)?;
        }
    }
    shards::trim(conn, now)?;
    let over: Vec<i64> = conn
        .prepare_cached("SELECT id FROM _streamer_streams WHERE closed_ms <= ?1")?
        .query_map([horizon(now)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for stream in over {
        // The stream's own row is deleted last. If a crash interrupts the deletion, the next sweep finds this row and
        // completes the deletion.
        for table in ["_streamer_records", "_streamer_trims", "_streamer_shards"] {
            conn.execute(&format!("DELETE FROM {table} WHERE stream = ?1"), [stream])?;
        }
        conn.execute("DELETE FROM _streamer_streams WHERE id = ?1", [stream])?;
    }
    Ok(())
}

pub(super) fn checkpoint(
    conn: &Connection,
    mapping: &str,
    shard_id: &str,
) -> rusqlite::Result<Option<SequenceNumber>> {
    conn.prepare_cached("SELECT sequence FROM _streamer_checkpoints WHERE mapping = ?1 AND shard_id = ?2")?
        .query_row([mapping, shard_id], |row| Ok(SequenceNumber(from_sql(row.get(0)?))))
        .optional()
}

pub(super) fn save_checkpoint(
    conn: &Connection,
    mapping: &str,
    shard_id: &str,
    sequence: SequenceNumber,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO _streamer_checkpoints VALUES (?1, ?2, ?3)")?
        .execute(params![mapping, shard_id, to_sql(sequence.0)])?;
    Ok(())
}

fn to_stream(row: &Row<'_>) -> rusqlite::Result<Stream> {
    let view_type: String = row.get(4)?;
    let key_schema: String = row.get(5)?;
    let keys: Value = parse(5, &key_schema)?;
    let partition_key = keys.as_array().into_iter().flatten().find(|key| key["KeyType"] == "HASH");
    let partition_key = partition_key.and_then(|key| key["AttributeName"].as_str()).unwrap_or_default();
    Ok(Stream {
        id: row.get(0)?,
        arn: row.get(1)?,
        table: row.get(2)?,
        label: row.get(3)?,
        view_type: view_type.parse().map_err(|()| damaged(4, "a stream view type", &view_type))?,
        partition_key: partition_key.to_owned(),
        key_schema,
        shards: row.get(6)?,
        created: Timestamp::from_millis(from_sql(row.get(7)?)),
        closed: row.get::<_, Option<i64>>(8)?.map(|millis| Timestamp::from_millis(from_sql(millis))),
        last: SequenceNumber(from_sql(row.get(9)?)),
    })
}

fn to_record(row: &Row<'_>, stream: &Stream, region: &str) -> rusqlite::Result<StreamRecord> {
    let sequence_number = SequenceNumber(from_sql(row.get(0)?));
    let event_name: String = row.get(1)?;
    let image = |column: usize| -> rusqlite::Result<Option<Value>> {
        row.get::<_, Option<String>>(column)?.map(|text| parse(column, &text)).transpose()
    };
    let identity = image(5)?.map(|identity| UserIdentity {
        kind: identity["type"].as_str().unwrap_or_default().to_owned(),
        principal_id: identity["principalId"].as_str().unwrap_or_default().to_owned(),
    });
    Ok(StreamRecord {
        event_id: event_id(&stream.arn, sequence_number),
        event_name: event_name.parse().map_err(|()| damaged(1, "an event name", &event_name))?,
        keys: image(2)?.unwrap_or_default(),
        new_image: image(3)?,
        old_image: image(4)?,
        sequence_number,
        size_bytes: from_sql(row.get(6)?),
        approximate_creation: Timestamp::from_millis(from_sql(row.get(7)?)),
        user_identity: identity,
        stream_arn: stream.arn.clone(),
        view_type: stream.view_type,
        region: region.to_owned(),
    })
}

/// Derives a record's event id from its stream and sequence number, so that the id is the same at every read and in
/// every run with the same writes.
fn event_id(stream_arn: &str, sequence: SequenceNumber) -> String {
    let hash = digest::digest(&digest::SHA256, format!("{stream_arn}/{sequence}").as_bytes());
    hex(&hash.as_ref()[..16])
}

fn parse(column: usize, text: &str) -> rusqlite::Result<Value> {
    serde_json::from_str(text).map_err(|_| damaged(column, "JSON", text))
}

fn damaged(column: usize, expected: &str, found: &str) -> rusqlite::Error {
    let error = format!("damaged database: expected {expected}, found {found:?}");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
