//! Stale index reads, injected by faults: the latest writes to an index are undone for the duration of one read.
//!
//! SQLite triggers write the previous state of every changed index entry to a journal. The triggers and the journal are
//! SQLite `TEMP` objects, which are never stored in the database's file. A database without
//! [`Faults`](crate::faults::Faults) has no triggers and no journal.

use std::time::Duration;

use rusqlite::{Connection, params};
use streamer::ports::Timestamp;

use super::engine::Engine;
use super::error::ApiError;

/// Number of index changes that the journal keeps. Older changes cannot be undone, so every read sees them.
const MAX_CHANGES: i64 = 10_000;

const JOURNAL: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _streamer_journal (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        of_index TEXT NOT NULL,
        gsi_pk TEXT NOT NULL,
        gsi_sk TEXT NOT NULL,
        table_pk TEXT NOT NULL,
        table_sk TEXT NOT NULL,
        item_json TEXT,
        written_ms INTEGER
    );
    CREATE INDEX IF NOT EXISTS temp._streamer_journal_new ON _streamer_journal (id) WHERE written_ms IS NULL;
    CREATE INDEX IF NOT EXISTS temp._streamer_journal_of ON _streamer_journal (of_index, written_ms);";

/// Creates journal triggers for every existing index, and deletes the journal entries of indexes that no longer exist.
///
/// Otherwise an index that is later created with the same name would inherit the journal entries of the deleted index.
pub(super) fn watch(engine: &Engine) -> Result<(), ApiError> {
    if engine.settings().faults.is_none() {
        return Ok(());
    }
    let conn = engine.conn();
    conn.execute_batch(JOURNAL)?;
    conn.execute(
        "DELETE FROM temp._streamer_journal
         WHERE of_index NOT IN (SELECT name FROM main.sqlite_master WHERE type = 'table')",
        [],
    )?;
    let indexes: Vec<String> = conn
        .prepare("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name LIKE '%::gsi::%'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for index in indexes {
        conn.execute_batch(&triggers(&index))?;
    }
    Ok(())
}

/// Returns the SQL of an index's journal triggers. Before an index entry is inserted, replaced or deleted, a trigger
/// records the previous value of the entry, or that the entry did not exist.
fn triggers(index: &str) -> String {
    let name = index.replace('"', "\"\"");
    let text = index.replace('\'', "''");
    let columns = "of_index, gsi_pk, gsi_sk, table_pk, table_sk, item_json";
    let previous = |row: &str| {
        format!(
            "INSERT INTO _streamer_journal ({columns})
             SELECT '{text}', {row}.gsi_pk, {row}.gsi_sk, {row}.table_pk, {row}.table_sk,
                (SELECT item_json FROM main.\"{name}\" AS previous WHERE previous.gsi_pk = {row}.gsi_pk
                 AND previous.gsi_sk = {row}.gsi_sk AND previous.table_pk = {row}.table_pk
                 AND previous.table_sk = {row}.table_sk);"
        )
    };
    let (new, old) = (previous("NEW"), previous("OLD"));
    format!(
        "CREATE TEMP TRIGGER IF NOT EXISTS \"_streamer_insert_{name}\" BEFORE INSERT ON main.\"{name}\"
         BEGIN {new} END;
         CREATE TEMP TRIGGER IF NOT EXISTS \"_streamer_delete_{name}\" BEFORE DELETE ON main.\"{name}\"
         BEGIN {old} END;"
    )
}

/// Stamps the new journal entries with the current time. Deletes the oldest entries if the journal exceeds its limit.
pub(super) fn mark(engine: &Engine) -> Result<(), ApiError> {
    if engine.settings().faults.is_none() {
        return Ok(());
    }
    let conn = engine.conn();
    let marked = conn
        .prepare_cached("UPDATE temp._streamer_journal SET written_ms = ?1 WHERE written_ms IS NULL")?
        .execute([millis(engine.now())])?;
    if marked > 0 {
        conn.prepare_cached(
            "DELETE FROM temp._streamer_journal
             WHERE id <= (SELECT max(id) FROM temp._streamer_journal) - ?1",
        )?
        .execute([MAX_CHANGES])?;
    }
    Ok(())
}

/// Returns whether `index` is a global index of `table`. Reads of a global index can be stale.
pub(super) fn is_watched(engine: &Engine, table: &str, index: &str) -> bool {
    engine
        .conn()
        .prepare_cached("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1")
        .and_then(|mut statement| statement.exists([format!("{table}::gsi::{index}")]))
        .unwrap_or_default()
}

/// Runs `read` in an SQLite transaction in which the index writes of the last `lag` are undone.
pub(super) fn read(
    engine: &mut Engine,
    table: &str,
    index: &str,
    lag: Duration,
    read: impl FnOnce(&mut Engine) -> Result<Vec<u8>, ApiError>,
) -> Result<Vec<u8>, ApiError> {
    let index = format!("{table}::gsi::{index}");
    let since = millis(engine.now()).saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX));
    engine.storage().begin_transaction()?;
    let answer = match undo(engine.conn(), &index, since) {
        // `dispatch` rolls the transaction back at the end of the call, which restores the undone writes.
        Ok(()) => read(engine),
        Err(error) => Err(error.into()),
    };
    if !engine.conn().is_autocommit() {
        engine.storage().rollback()?;
    }
    answer
}

fn undo(conn: &Connection, index: &str, since: i64) -> rusqlite::Result<()> {
    let changes: Vec<([String; 4], Option<String>)> = conn
        .prepare_cached(
            "SELECT gsi_pk, gsi_sk, table_pk, table_sk, item_json FROM temp._streamer_journal
             WHERE of_index = ?1 AND written_ms > ?2 ORDER BY id DESC",
        )?
        .query_map(params![index, since], |row| {
            Ok(([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?], row.get(4)?))
        })?
        .collect::<Result<_, _>>()?;
    let name = index.replace('"', "\"\"");
    for ([gsi_pk, gsi_sk, table_pk, table_sk], item) in changes {
        match item {
            Some(item) => conn
                .prepare_cached(&format!(
                    "INSERT OR REPLACE INTO main.\"{name}\" (gsi_pk, gsi_sk, table_pk, table_sk, item_json)
                 VALUES (?1, ?2, ?3, ?4, ?5)"
                ))?
                .execute(params![gsi_pk, gsi_sk, table_pk, table_sk, item])?,
            None => conn
                .prepare_cached(&format!(
                    "DELETE FROM main.\"{name}\"
                 WHERE gsi_pk = ?1 AND gsi_sk = ?2 AND table_pk = ?3 AND table_sk = ?4"
                ))?
                .execute(params![gsi_pk, gsi_sk, table_pk, table_sk])?,
        };
    }
    Ok(())
}

fn millis(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}
