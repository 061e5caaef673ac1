//! Stores queues and messages in SQLite.

use rusqlite::{Connection, OptionalExtension, Row, params};
use streamer::ports::Timestamp;

use super::attributes::Attributes;
use super::message::MessageAttributes;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY, attributes TEXT NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    purged INTEGER
);
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
    attributes TEXT NOT NULL, trace TEXT, sent INTEGER NOT NULL, visible INTEGER NOT NULL,
    received INTEGER NOT NULL, first_received INTEGER, handle TEXT, source TEXT
);
CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue, visible, number);
";

#[derive(Debug)]
pub(super) struct Store(Connection);

/// A queue with its attributes, as stored in SQLite.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) attributes: Attributes,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    /// Time of the latest `PurgeQueue`; `None` if the queue was never purged.
    pub(super) purged: Option<Timestamp>,
}

/// A message in a queue, as stored in SQLite.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) number: i64,
    pub(super) queue: String,
    pub(super) id: String,
    pub(super) body: String,
    pub(super) attributes: MessageAttributes,
    pub(super) trace: Option<String>,
    pub(super) sent: Timestamp,
    /// Time from which the message can be received.
    pub(super) visible: Timestamp,
    pub(super) received: u32,
    pub(super) first_received: Option<Timestamp>,
    /// Receipt handle of the latest receive; `None` if the message was never received.
    pub(super) handle: Option<String>,
    /// ARN of the queue from which the message came as a dead letter; `None` if the message is not a dead letter.
    pub(super) source: Option<String>,
}

/// Numbers of messages in a queue: available to receive, in flight (received but not deleted), and delayed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) waiting: u64,
    pub(super) in_flight: u64,
    pub(super) delayed: u64,
}

type Result<T> = rusqlite::Result<T>;

/// Converts a time to epoch milliseconds as a signed integer of SQLite, which covers every realistic time.
fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

fn text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn queue(row: &Row<'_>) -> Result<Queue> {
    Ok(Queue {
        name: row.get("name")?,
        attributes: json(&row.get::<_, String>("attributes")?)?,
        created: moment(row.get("created")?),
        modified: moment(row.get("modified")?),
        purged: row.get::<_, Option<i64>>("purged")?.map(moment),
    })
}

fn stored(row: &Row<'_>) -> Result<Stored> {
    Ok(Stored {
        number: row.get("number")?,
        queue: row.get("queue")?,
        id: row.get("id")?,
        body: row.get("body")?,
        attributes: json(&row.get::<_, String>("attributes")?)?,
        trace: row.get("trace")?,
        sent: moment(row.get("sent")?),
        visible: moment(row.get("visible")?),
        received: row.get("received")?,
        first_received: row.get::<_, Option<i64>>("first_received")?.map(moment),
        handle: row.get("handle")?,
        source: row.get("source")?,
    })
}

impl Store {
    pub(super) fn new(conn: Connection) -> Result<Self> {
        conn.execute_batch(TABLES)?;
        Ok(Self(conn))
    }

    pub(super) fn queue(&self, name: &str) -> Result<Option<Queue>> {
        let mut query = self.0.prepare_cached("SELECT * FROM queues WHERE name = ?1")?;
        query.query_row([name], queue).optional()
    }

    pub(super) fn queues(&self) -> Result<Vec<Queue>> {
        self.0.prepare_cached("SELECT * FROM queues ORDER BY name")?.query_map([], queue)?.collect()
    }

    pub(super) fn put_queue(&self, queue: &Queue) -> Result<()> {
        let attributes = text(&queue.attributes)?;
        let values = params![
            queue.name,
            attributes,
            millis(queue.created),
            millis(queue.modified),
            queue.purged.map(millis)
        ];
        self.0.execute("INSERT OR REPLACE INTO queues VALUES (?1, ?2, ?3, ?4, ?5)", values)?;
        Ok(())
    }

    pub(super) fn delete_queue(&self, name: &str) -> Result<()> {
        self.purge(name)?;
        self.0.execute("DELETE FROM queues WHERE name = ?1", [name])?;
        Ok(())
    }

    pub(super) fn purge(&self, queue: &str) -> Result<()> {
        self.0.execute("DELETE FROM messages WHERE queue = ?1", [queue])?;
        Ok(())
    }

    /// Adds a message. SQLite assigns the message's number, so `message.number` is ignored.
    pub(super) fn add(&self, message: &Stored) -> Result<()> {
        let mut insert = self.0.prepare_cached(
            "INSERT INTO messages (queue, id, body, attributes, trace, sent, visible, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
        )?;
        insert.execute(params![
            message.queue,
            message.id,
            message.body,
            text(&message.attributes)?,
            message.trace,
            millis(message.sent),
            millis(message.visible)
        ])?;
        Ok(())
    }

    /// Deletes all messages of a queue that were sent before `before`.
    pub(super) fn expire(&self, queue: &str, before: Timestamp) -> Result<()> {
        let mut delete = self.0.prepare_cached("DELETE FROM messages WHERE queue = ?1 AND sent < ?2")?;
        delete.execute(params![queue, millis(before)])?;
        Ok(())
    }

    pub(super) fn messages(&self, queue: &str) -> Result<Vec<Stored>> {
        let mut query = self.0.prepare_cached("SELECT * FROM messages WHERE queue = ?1 ORDER BY number")?;
        query.query_map([queue], stored)?.collect()
    }

    /// Returns the oldest messages that can be received now, at most `limit`.
    pub(super) fn waiting(&self, queue: &str, now: Timestamp, limit: usize) -> Result<Vec<Stored>> {
        let mut query = self.0.prepare_cached(
            "SELECT * FROM messages WHERE queue = ?1 AND visible <= ?2 ORDER BY number LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        query.query_map(params![queue, millis(now), limit], stored)?.collect()
    }

    /// Returns the time at which the next invisible message becomes visible; `None` if all messages are visible.
    pub(super) fn next_visible(&self, queue: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut query =
            self.0.prepare_cached("SELECT min(visible) FROM messages WHERE queue = ?1 AND visible > ?2")?;
        let next: Option<i64> = query.query_row(params![queue, millis(now)], |row| row.get(0))?;
        Ok(next.map(moment))
    }

    pub(super) fn message(&self, number: i64) -> Result<Option<Stored>> {
        let mut query = self.0.prepare_cached("SELECT * FROM messages WHERE number = ?1")?;
        query.query_row([number], stored).optional()
    }

    pub(super) fn delete(&self, number: i64) -> Result<()> {
        self.0.prepare_cached("DELETE FROM messages WHERE number = ?1")?.execute([number])?;
        Ok(())
    }

    /// Returns the numbers of the visible messages that were received at least `times` times.
    pub(super) fn received_too_often(&self, queue: &str, now: Timestamp, times: u32) -> Result<Vec<i64>> {
        let mut query = self.0.prepare_cached(
            "SELECT number FROM messages WHERE queue = ?1 AND visible <= ?2 AND received >= ?3 ORDER BY number",
        )?;
        query.query_map(params![queue, millis(now), times], |row| row.get(0))?.collect()
    }

    pub(super) fn set_visible(&self, number: i64, at: Timestamp) -> Result<()> {
        let mut update = self.0.prepare_cached("UPDATE messages SET visible = ?2 WHERE number = ?1")?;
        update.execute(params![number, millis(at)])?;
        Ok(())
    }

    /// Records a receive of a message, with its receipt handle, and hides the message until `until`.
    pub(super) fn received(&self, number: i64, handle: &str, now: Timestamp, until: Timestamp) -> Result<()> {
        let mut update = self.0.prepare_cached(
            "UPDATE messages SET received = received + 1, handle = ?2, visible = ?4,
             first_received = coalesce(first_received, ?3) WHERE number = ?1",
        )?;
        update.execute(params![number, handle, millis(now), millis(until)])?;
        Ok(())
    }

    /// Moves a message to another queue, where the message is visible immediately and its receive count is zero.
    pub(super) fn transfer(&self, number: i64, queue: &str, now: Timestamp, source: &str) -> Result<()> {
        let mut update = self.0.prepare_cached(
            "UPDATE messages SET queue = ?2, visible = ?3, received = 0, first_received = NULL, handle = NULL,
             source = ?4 WHERE number = ?1",
        )?;
        update.execute(params![number, queue, millis(now), source])?;
        Ok(())
    }

    pub(super) fn counts(&self, queue: &str, now: Timestamp) -> Result<Counts> {
        let mut query = self.0.prepare_cached(
            "SELECT visible <= ?2, handle IS NOT NULL, count(*) FROM messages WHERE queue = ?1 GROUP BY 1, 2",
        )?;
        let mut counts = Counts::default();
        let rows = query.query_map(params![queue, millis(now)], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?))
        })?;
        for row in rows {
            let (visible, received, count) = row?;
            let count = u64::try_from(count).unwrap_or_default();
            match (visible, received) {
                (true, _) => counts.waiting += count,
                (false, true) => counts.in_flight += count,
                (false, false) => counts.delayed += count,
            }
        }
        Ok(counts)
    }
}
