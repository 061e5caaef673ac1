//! Index reads that lag behind, on request: the latest writes of an index are undone for the time of one read.
//!
//! Triggers keep a journal of what each write has changed in an index. They and the journal are temporary: neither is
//! in a database's file, and a database without [`Faults`](crate::faults::Faults) has none.

use std::time::Duration;

use rusqlite::{Connection, params};
use streamer::ports::Timestamp;

use super::engine::Engine;
use super::error::ApiError;

/// How many changes of indexes can be undone; older ones are seen by every read.
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

/// Keeps a journal of every index that there is now, and forgets those that there are no more: one made anew under the
/// same name has none of their changes.
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

/// What stood under a key is kept before it is replaced or deleted, and so is that nothing stood there.
fn triggers(index: &str) -> String {
    let name = index.replace('"', "\"\"");
    let text = index.replace('\'', "''");
    let columns = "of_index, gsi_pk, gsi_sk, table_pk, table_sk, item_json";
    let stood = |row: &str| {
        format!(
            "INSERT INTO _streamer_journal ({columns})
             SELECT '{text}', {row}.gsi_pk, {row}.gsi_sk, {row}.table_pk, {row}.table_sk,
                (SELECT item_json FROM main.\"{name}\" AS stood WHERE stood.gsi_pk = {row}.gsi_pk
                 AND stood.gsi_sk = {row}.gsi_sk AND stood.table_pk = {row}.table_pk
                 AND stood.table_sk = {row}.table_sk);"
        )
    };
    let (new, old) = (stood("NEW"), stood("OLD"));
    format!(
        "CREATE TEMP TRIGGER IF NOT EXISTS \"_streamer_insert_{name}\" BEFORE INSERT ON main.\"{name}\"
         BEGIN {new} END;
         CREATE TEMP TRIGGER IF NOT EXISTS \"_streamer_delete_{name}\" BEFORE DELETE ON main.\"{name}\"
         BEGIN {old} END;"
    )
}

/// Tells the journal when what is new in it was written.
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

/// Whether there is such a global index, whose reads can lag.
pub(super) fn is_watched(engine: &Engine, table: &str, index: &str) -> bool {
    engine
        .conn()
        .prepare_cached("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1")
        .and_then(|mut statement| statement.exists([format!("{table}::gsi::{index}")]))
        .unwrap_or_default()
}

/// Makes a read that does not see what was written to the index within the last `lag`.
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
        // The call ends in a rollback: the engine leaves no transaction open.
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
