//! Time to live, on the stage's clock.

use std::fmt;
use std::time::Duration;

use dynoxide::actions::delete_item::{self, DeleteItemRequest};
use dynoxide::storage::ScanParams;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::engine::Engine;
use super::error::ApiError;
use super::{DynamoDb, capacity, outbox, stale, streams};

/// How many items are looked at under one hold of the database, which other calls wait for.
const PAGE: usize = 100;

/// Who deletes, as the engine's outbox has it.
const SERVICE: &str = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;

impl DynamoDb {
    /// Deletes the items whose time-to-live attribute lies before the clock's now, and drops what streams keep
    /// for longer than 24 hours; gives the number of items deleted.
    ///
    /// Each deletion is a `REMOVE` record with the `userIdentity` of the service. DynamoDB does this by itself
    /// "within a few days"; here whoever owns the clock says when, once or by [`sweep_every`](Self::sweep_every).
    ///
    /// # Errors
    /// When the database cannot be written; what was deleted until then stays deleted.
    pub fn sweep_expired(&self) -> Result<usize, SweepError> {
        let mut sweep = Sweep::default();
        while sweep.page(&self.lock())? {}
        Ok(sweep.deleted)
    }

    /// Sweeps now and again and again, on tokio's clock, for as long as it is polled; other calls are answered between
    /// the pages of a sweep.
    pub async fn sweep_every(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut sweep = Sweep::default();
            loop {
                let page = sweep.page(&self.lock());
                match page {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "items whose time to live is over were not deleted");
                        break;
                    }
                }
            }
        }
    }
}

/// How far a sweep has come.
#[derive(Default)]
struct Sweep {
    /// Of the tables with a time to live, those before this one by name are done.
    table: String,
    /// The key that its last page ended with, as the engine writes it.
    after: Option<(String, String)>,
    deleted: usize,
}

impl Sweep {
    /// Sweeps a page of a table, or at the end the streams; says whether there is more to do.
    fn page(&mut self, engine: &Engine) -> Result<bool, SweepError> {
        let swept = self.sweep(engine);
        // Of a page that failed, too, what was deleted makes its records.
        outbox::take(engine).and_then(|()| stale::mark(engine)).map_err(SweepError)?;
        swept.map_err(SweepError)
    }

    fn sweep(&mut self, engine: &Engine) -> Result<bool, ApiError> {
        let mut tables = engine.storage().list_ttl_enabled_tables()?;
        tables.retain(|table| table.table_name >= self.table);
        let Some(meta) = tables.into_iter().min_by(|a, b| a.table_name.cmp(&b.table_name)) else {
            streams::store::trim_all(engine.conn(), engine.now(), engine.settings().shard_lifetime)?;
            return Ok(false);
        };
        if meta.table_name != self.table {
            (self.table, self.after) = (meta.table_name.clone(), None);
        }
        let after = self.after.as_ref();
        let page = ScanParams {
            limit: Some(PAGE),
            exclusive_start_pk: after.map(|(pk, _)| pk.as_str()),
            exclusive_start_sk: after.map(|(_, sk)| sk.as_str()),
            ..ScanParams::default()
        };
        let rows = engine.storage().scan_items(&meta.table_name, &page)?;
        let attribute = meta.ttl_attribute.as_deref().unwrap_or_default();
        for (_, _, item) in &rows {
            let item: Value = serde_json::from_str(item).unwrap_or_default();
            if is_expired(&item[attribute], engine.now().as_secs()) {
                delete(engine, &meta.table_name, &item)?;
                self.deleted += 1;
            }
        }
        if rows.len() < PAGE {
            // The first name after this one.
            self.table.push('\0');
            self.after = None;
        } else {
            self.after = rows.into_iter().last().map(|(pk, sk, _)| (pk, sk));
        }
        Ok(true)
    }
}

/// Only a number of whole seconds counts.
fn is_expired(attribute: &Value, now_secs: u64) -> bool {
    attribute["N"]
        .as_str()
        .and_then(|number| number.parse::<u64>().ok())
        .is_some_and(|expires| expires < now_secs)
}

/// Deletes an item as a caller does, index entries and all, and puts the service's name under the record.
fn delete(engine: &Engine, table: &str, item: &Value) -> Result<(), ApiError> {
    let key = capacity::key_of(engine, table, item);
    let request: DeleteItemRequest = serde_json::from_value(json!({ "TableName": table, "Key": key }))
        .map_err(|error| ApiError::internal(&error.to_string()))?;
    pollster::block_on(delete_item::execute(engine.storage(), request))?;
    // Nothing but sweeps writes to the outbox while the database is held for one.
    engine.conn().prepare_cached("UPDATE _stream_records SET user_identity = ?1")?.execute([SERVICE])?;
    Ok(())
}

/// Why a sweep stopped before its end: the database could not be read or written.
#[derive(Debug)]
pub struct SweepError(ApiError);

impl fmt::Display for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the expired items could not all be deleted: {}", self.0)
    }
}

impl std::error::Error for SweepError {}
