//! The shards of streams: which shard receives an item's records, how a shard splits, and when a shard is dropped.
//!
//! Each shard has a modulus and a remainder, and receives the items with `hash % modulus == remainder`. A split doubles
//! the modulus, so that the two children share the items of the parent, and no other item changes its shard.

use std::time::Duration;

use ring::digest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use streamer::ports::Timestamp;

use super::error::{StreamError, StreamErrorKind};
use super::sequence_number::SequenceNumber;
use super::shard_id::{ShardId, ShardInfo};
use super::sql::{from_sql, horizon, to_sql};
use super::stream::Stream;
use crate::aws_format::hex;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS _streamer_shards (
        stream INTEGER NOT NULL,
        number INTEGER NOT NULL,
        name TEXT NOT NULL,
        parent TEXT,
        modulus INTEGER NOT NULL,
        remainder INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL,
        last_sequence INTEGER,
        created_ms INTEGER NOT NULL,
        closed_ms INTEGER,
        PRIMARY KEY (stream, number)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS _streamer_shard_names ON _streamer_shards (stream, name);
    CREATE INDEX IF NOT EXISTS _streamer_open_shards ON _streamer_shards (stream) WHERE closed_ms IS NULL;";

const COLUMNS: &str =
    "number, name, parent, modulus, remainder, first_sequence, last_sequence, created_ms, closed_ms";

/// Largest modulus that a split may double. SQLite's integers are signed, so the largest possible modulus is 2^62.
const MAX_MODULUS: u64 = 1 << 61;

/// A shard, as stored in SQLite.
#[derive(Clone, Debug)]
pub(in crate::dynamodb) struct Shard {
    /// Number of the shard within its stream. A parent has a lower number than its children.
    pub(super) number: u32,
    pub(super) id: ShardId,
    pub(super) parent: Option<ShardId>,
    modulus: u64,
    remainder: u64,
    pub(super) first: SequenceNumber,
    /// Last sequence number of a closed shard; `None` while the shard is open.
    pub(super) last: Option<SequenceNumber>,
    created: Timestamp,
    pub(super) closed: Option<Timestamp>,
}

impl Shard {
    pub(super) fn info(self) -> ShardInfo {
        ShardInfo { id: self.id, parent: self.parent, closed: self.closed.is_some() }
    }

    fn receives(&self, hash: u64) -> bool {
        hash % self.modulus == self.remainder
    }
}

/// Creates the first shards of a stream.
pub(super) fn begin(conn: &Connection, stream: &Stream) -> rusqlite::Result<()> {
    let modulus = u64::from(stream.shards.max(1));
    for remainder in 0..modulus {
        insert(conn, stream, None, (modulus, remainder), SequenceNumber::default(), stream.created)?;
    }
    Ok(())
}

/// Returns a stream's shards that are open or were closed within the last 24 hours, parents before their children.
pub(super) fn all(conn: &Connection, stream: &Stream, now: Timestamp) -> rusqlite::Result<Vec<Shard>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM _streamer_shards
         WHERE stream = ?1 AND (closed_ms IS NULL OR closed_ms > ?2) ORDER BY number"
    );
    conn.prepare_cached(&sql)?.query_map(params![stream.id, horizon(now)], to_shard)?.collect()
}

/// Returns the shard with the id `name`. Fails if no such shard exists, or if it was closed 24 hours ago or earlier.
pub(super) fn by_name(
    conn: &Connection,
    stream: &Stream,
    name: &str,
    now: Timestamp,
) -> Result<Shard, StreamError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM _streamer_shards
         WHERE stream = ?1 AND name = ?2 AND (closed_ms IS NULL OR closed_ms > ?3)"
    );
    let found =
        conn.prepare_cached(&sql)?.query_row(params![stream.id, name, horizon(now)], to_shard).optional()?;
    found.ok_or_else(|| {
        StreamError::not_found(format!(
            "Requested resource not found: Shard does not exist: {name} in stream {}",
            stream.arn
        ))
    })
}

/// Returns the number of the open shard that receives items with this hash. A shard whose age has reached `lifetime` is
/// first replaced by a child shard, and the number of the child is returned.
pub(super) fn open_shard_for(
    conn: &Connection,
    stream: &Stream,
    hash: u64,
    lifetime: Option<Duration>,
    now: Timestamp,
) -> rusqlite::Result<Option<u32>> {
    let Some(shard) = open(conn, stream)?.into_iter().find(|shard| shard.receives(hash)) else {
        return Ok(None);
    };
    if lifetime.is_some_and(|lifetime| now.since(shard.created) >= lifetime) {
        let same = [(shard.modulus, shard.remainder)];
        return Ok(replace(conn, stream, &shard, &same, now)?.pop().map(|child| child.number));
    }
    Ok(Some(shard.number))
}

/// Splits an open shard in two, and returns the children.
pub(super) fn split(
    conn: &Connection,
    stream: &Stream,
    shard: &Shard,
    now: Timestamp,
) -> Result<Vec<Shard>, StreamError> {
    let refused = |message: String| Err(StreamError { kind: StreamErrorKind::Closed, message });
    if shard.closed.is_some() {
        return refused(format!("Shard {} is closed and cannot be split", shard.id));
    }
    if shard.modulus > MAX_MODULUS {
        return refused(format!("Shard {} has reached the maximum number of splits", shard.id));
    }
    let doubled = 2 * shard.modulus;
    let halves = [(doubled, shard.remainder), (doubled, shard.remainder + shard.modulus)];
    Ok(replace(conn, stream, shard, &halves, now)?)
}

/// Replaces each open shard whose age has reached `lifetime` by one child shard.
pub(super) fn roll(
    conn: &Connection,
    stream: &Stream,
    lifetime: Duration,
    now: Timestamp,
) -> rusqlite::Result<()> {
    for shard in open(conn, stream)?.iter().filter(|shard| now.since(shard.created) >= lifetime) {
        replace(conn, stream, shard, &[(shard.modulus, shard.remainder)], now)?;
    }
    Ok(())
}

/// Closes all open shards of a stream that is being disabled.
pub(super) fn close_all(conn: &Connection, stream: &Stream, now: Timestamp) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE _streamer_shards SET closed_ms = ?1, last_sequence = max(first_sequence, ?2)
         WHERE stream = ?3 AND closed_ms IS NULL",
    )?
    .execute(params![to_sql(now.as_millis()), to_sql(stream.last.0), stream.id])?;
    Ok(())
}

/// Drops all shards that were closed 24 hours ago or earlier, with their records and checkpoints.
pub(super) fn trim(conn: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    for table in ["_streamer_records", "_streamer_trims"] {
        conn.prepare_cached(&format!(
            "DELETE FROM {table} WHERE (stream, shard) IN
             (SELECT stream, number FROM _streamer_shards WHERE closed_ms <= ?1)"
        ))?
        .execute([horizon(now)])?;
    }
    conn.prepare_cached(
        "DELETE FROM _streamer_checkpoints WHERE shard_id IN
         (SELECT name FROM _streamer_shards WHERE closed_ms <= ?1)",
    )?
    .execute([horizon(now)])?;
    conn.prepare_cached("DELETE FROM _streamer_shards WHERE closed_ms <= ?1")?.execute([horizon(now)])?;
    Ok(())
}

fn open(conn: &Connection, stream: &Stream) -> rusqlite::Result<Vec<Shard>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM _streamer_shards WHERE stream = ?1 AND closed_ms IS NULL ORDER BY number"
    );
    conn.prepare_cached(&sql)?.query_map([stream.id], to_shard)?.collect()
}

/// Closes a shard, and creates child shards that receive its items. All sequence numbers of the children are above the
/// last sequence number of the closed shard.
fn replace(
    conn: &Connection,
    stream: &Stream,
    shard: &Shard,
    children: &[(u64, u64)],
    now: Timestamp,
) -> rusqlite::Result<Vec<Shard>> {
    let savepoint = Savepoint::new(conn)?;
    // A shard without records ends at its first sequence number. No record receives this number.
    let last: i64 = conn
        .prepare_cached(
            "UPDATE _streamer_streams SET last_sequence = max(last_sequence, ?2) WHERE id = ?1
             RETURNING last_sequence",
        )?
        .query_row(params![stream.id, to_sql(shard.first.0)], |row| row.get(0))?;
    conn.prepare_cached(
        "UPDATE _streamer_shards SET closed_ms = ?1, last_sequence = ?2 WHERE stream = ?3 AND number = ?4",
    )?
    .execute(params![to_sql(now.as_millis()), last, stream.id, shard.number])?;
    let first = SequenceNumber(from_sql(last) + 1);
    let children = children
        .iter()
        .map(|range| insert(conn, stream, Some(&shard.id), *range, first, now))
        .collect::<Result<_, _>>()?;
    savepoint.release()?;
    Ok(children)
}

fn insert(
    conn: &Connection,
    stream: &Stream,
    parent: Option<&ShardId>,
    (modulus, remainder): (u64, u64),
    first: SequenceNumber,
    created: Timestamp,
) -> rusqlite::Result<Shard> {
    let number: u32 = conn
        .prepare_cached("SELECT coalesce(max(number) + 1, 0) FROM _streamer_shards WHERE stream = ?1")?
        .query_row([stream.id], |row| row.get(0))?;
    let (id, parent) = (shard_id(stream, number, created), parent.cloned());
    conn.prepare_cached("INSERT INTO _streamer_shards VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, NULL)")?
        .execute(params![
            stream.id,
            number,
            id.as_str(),
            parent.as_ref().map(ShardId::as_str),
            to_sql(modulus),
            to_sql(remainder),
            to_sql(first.0),
            to_sql(created.as_millis()),
        ])?;
    Ok(Shard { number, id, parent, modulus, remainder, first, last: None, created, closed: None })
}

/// Returns a new shard id in AWS's format: the shard's creation time, and a hash that makes the id unique.
fn shard_id(stream: &Stream, number: u32, created: Timestamp) -> ShardId {
    let hash = digest::digest(&digest::SHA256, format!("{}/{number}", stream.arn).as_bytes());
    let hash = hex(&hash.as_ref()[..4]);
    ShardId::new(format!("shardId-{:020}-{hash}", created.as_millis()))
}

fn to_shard(row: &Row<'_>) -> rusqlite::Result<Shard> {
    let moment = |millis: i64| Timestamp::from_millis(from_sql(millis));
    Ok(Shard {
        number: row.get(0)?,
        id: ShardId::new(row.get::<_, String>(1)?),
        parent: row.get::<_, Option<String>>(2)?.map(ShardId::new),
        // A stored modulus is never zero. For damaged data, `max(1)` prevents a division by zero.
        modulus: from_sql(row.get(3)?).max(1),
        remainder: from_sql(row.get(4)?),
        first: SequenceNumber(from_sql(row.get(5)?)),
        last: row.get::<_, Option<i64>>(6)?.map(|last| SequenceNumber(from_sql(last))),
        created: moment(row.get(7)?),
        closed: row.get::<_, Option<i64>>(8)?.map(moment),
    })
}

/// An SQLite savepoint, inside or outside a transaction. Dropping the savepoint without `release` undoes its writes.
struct Savepoint<'a> {
    conn: &'a Connection,
    released: bool,
}

impl<'a> Savepoint<'a> {
    fn new(conn: &'a Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("SAVEPOINT streamer_shards")?.execute([])?;
        Ok(Self { conn, released: false })
    }

    fn release(mut self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("RELEASE streamer_shards")?.execute([])?;
        self.released = true;
        Ok(())
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if !self.released {
            // A failed rollback leaves a transaction open, which `dispatch` rolls back at the end of a call.
            let _ = self.conn.execute_batch("ROLLBACK TO streamer_shards; RELEASE streamer_shards");
        }
    }
}
