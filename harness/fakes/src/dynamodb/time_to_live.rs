//! Deletes items whose time to live has expired, by the stage's clock.

use std::fmt;
use std::time::Duration;

use dynoxide::actions::delete_item::{self, DeleteItemRequest};
use dynoxide::storage::ScanParams;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::database::DynamoDb;
use super::engine::Engine;
use super::error::ApiError;
use super::last_sweep::LastSweep;
use super::{capacity, outbox, stale, streams};

/// Number of items that a sweep reads under one lock of the database. Other calls wait for the lock.
const PAGE: usize = 100;

/// Maximum number of seconds since expiry at which an item is still deleted; items that expired earlier stay. AWS
/// documents five years, but not the number of days.
const OLDEST_SECS: u64 = 5 * 365 * 24 * 60 * 60;

/// Identity of DynamoDB as the deleting service, as JSON in the format of the engine's outbox.
const SERVICE: &str = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;

impl DynamoDb {
    /// Deletes the items whose time-to-live attribute is before the clock's current time. Returns the number of deleted
    /// items.
    ///
    /// Items that expired more than five years ago stay. Each deletion adds a `REMOVE` record with the `userIdentity`
    /// of the DynamoDB service. The sweep also drops stream records that are older than 24 hours.
    ///
    /// DynamoDB deletes expired items on its own, "within a few days". This fake deletes expired items only in this
    /// function and in [`sweep_every`](Self::sweep_every).
    ///
    /// # Errors
    /// [`SweepError`] if the database cannot be read or written. Items deleted before the error stay deleted.
    pub fn sweep_expired(&self) -> Result<usize, SweepError> {
        let mut sweep = Sweep::default();
        while sweep.page(&mut self.lock())? {}
        Ok(sweep.deleted)
    }

    /// Deletes expired items immediately, and again after every `interval` of tokio's clock, until the future is
    /// dropped.
    ///
    /// Other calls are answered between the pages of a sweep.
    pub async fn sweep_every(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut sweep = Sweep::default();
            loop {
                let page = sweep.page(&mut self.lock());
                match page {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "time-to-live sweep failed; expired items remain");
                        break;
                    }
                }
            }
        }
    }
}

/// Progress of one sweep over all tables with a time to live, in the order of their names.
#[derive(Default)]
struct Sweep {
    /// Name of the current table. Tables with smaller names are done.
    table: String,
    /// Key of the last item of the previous page, in the engine's format; `None` at the start of a table.
    after: Option<(String, String)>,
    deleted: usize,
    /// The engine's count of written rows at the start of the sweep; `None` before the first page.
    since: Option<u64>,
    /// Earliest time at which an item read so far becomes due, in epoch seconds; `None` if no such item expires.
    next_secs: Option<u64>,
}

impl Sweep {
    /// Sweeps one page of a table or, after the last table, trims the streams. Returns `true` if more pages remain.
    fn page(&mut self, engine: &mut Engine) -> Result<bool, SweepError> {
        let swept = self.sweep(engine);
        let engine = &*engine;
        // Even if the page failed, the items that it deleted need their stream records.
        outbox::take(engine).and_then(|()| stale::mark(engine)).map_err(SweepError)?;
        swept.map_err(SweepError)
    }

    fn sweep(&mut self, engine: &mut Engine) -> Result<bool, ApiError> {
        let now_secs = engine.now().as_secs();
        let changes = engine.conn().total_changes();
        let first_page = self.since.is_none();
        let since = *self.since.get_or_insert(changes);
        if first_page
            && engine.last_sweep().as_ref().is_some_and(|sweep| sweep.rules_out_due_items(changes, now_secs))
        {
            trim(engine)?;
            return Ok(false);
        }
        let mut tables = engine.storage().list_ttl_enabled_tables()?;
        tables.retain(|table| table.table_name >= self.table);
        let Some(meta) = tables.into_iter().min_by(|a, b| a.table_name.cmp(&b.table_name)) else {
            // `since` is the count at the start of the sweep. Rows written after the start, including the sweep's own
            // deletions, make the next sweep read all items again.
            *engine.last_sweep() =
                Some(LastSweep { changes: since, swept_secs: now_secs, next_secs: self.next_secs });
            trim(engine)?;
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
            let Some(expires) = expires(&item[attribute]) else { continue };
            if expires >= now_secs {
                let due = expires.saturating_add(1);
                self.next_secs = Some(self.next_secs.map_or(due, |next| next.min(due)));
            } else if now_secs - expires <= OLDEST_SECS {
                delete(engine, &meta.table_name, &item)?;
                self.deleted += 1;
            }
        }
        if rows.len() < PAGE {
            // The table is done: continue with the smallest name that follows its name.
            self.table.push('\0');
            self.after = None;
        } else {
            self.after = rows.into_iter().last().map(|(pk, sk, _)| (pk, sk));
        }
        Ok(true)
    }
}

/// Parses a time-to-live attribute as epoch seconds; `None` unless the attribute is a number of whole seconds.
fn expires(attribute: &Value) -> Option<u64> {
    attribute["N"].as_str()?.parse().ok()
}

fn trim(engine: &Engine) -> Result<(), ApiError> {
    Ok(streams::store::trim_all(engine.conn(), engine.now(), engine.settings().shard_lifetime)?)
}

/// Deletes an item and its index entries, and sets the service's identity on the record of the deletion.
fn delete(engine: &Engine, table: &str, item: &Value) -> Result<(), ApiError> {
    let key = capacity::key_of(engine, table, item);
    let request: DeleteItemRequest = serde_json::from_value(json!({ "TableName": table, "Key": key }))
        .map_err(|error| ApiError::internal(&error.to_string()))?;
    pollster::block_on(delete_item::execute(engine.storage(), request))?;
    // The outbox has only records of this sweep, because the sweep holds the database's lock.
    engine.conn().prepare_cached("UPDATE _stream_records SET user_identity = ?1")?.execute([SERVICE])?;
    Ok(())
}

/// Error of a time-to-live sweep that stopped early, because the database could not be read or written.
#[derive(Debug)]
pub struct SweepError(ApiError);

impl fmt::Display for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "some expired items could not be deleted: {}", self.0)
    }
}

impl std::error::Error for SweepError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use streamer::ports::{Clock, Timestamp};

    use super::*;

    #[derive(Debug, Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    fn call(db: &DynamoDb, operation: &str, body: &Value) {
        let answer = db.handle(&format!("DynamoDB_20120810.{operation}"), body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn put(db: &DynamoDb, key: &str, expires: u64) {
        let item = json!({ "pk": { "S": key }, "expires": { "N": expires.to_string() } });
        call(db, "PutItem", &json!({ "TableName": "things", "Item": item }));
    }

    /// Runs one sweep. Returns the number of pages, and the number of deleted items.
    fn sweep(db: &DynamoDb) -> (usize, usize) {
        let (mut sweep, mut pages) = (Sweep::default(), 1);
        while sweep.page(&mut db.lock()).expect("the sweep succeeds") {
            pages += 1;
        }
        (pages, sweep.deleted)
    }

    #[test]
    fn sweep_reads_items_only_if_an_item_may_be_due() {
        const NOW: u64 = 1_704_067_200;
        let clock = Arc::new(ManualClock(AtomicU64::new(NOW)));
        let set = |now: u64| clock.0.store(now, Ordering::Relaxed);
        let db =
            DynamoDb::builder().clock(Arc::clone(&clock) as _).in_memory().expect("in-memory database opens");
        let schema = json!([{ "AttributeName": "pk", "KeyType": "HASH" }]);
        let attributes = json!([{ "AttributeName": "pk", "AttributeType": "S" }]);
        let table = json!({ "TableName": "things", "KeySchema": schema, "AttributeDefinitions": attributes, "BillingMode": "PAY_PER_REQUEST" });
        call(&db, "CreateTable", &table);
        let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
        call(&db, "UpdateTimeToLive", &json!({ "TableName": "things", "TimeToLiveSpecification": ttl }));
        for item in 0..250 {
            put(&db, &item.to_string(), NOW + 60 + item);
        }
        assert_eq!(sweep(&db), (4, 0), "the first sweep reads three pages of items and trims the streams");
        set(NOW + 60);
        assert_eq!(sweep(&db), (1, 0), "a sweep reads no items if no row was written and no item is due");
        put(&db, "sooner", NOW + 30);
        assert_eq!(sweep(&db), (4, 1), "a write makes the next sweep read all items");
        assert_eq!(sweep(&db), (4, 0), "a sweep's own deletion makes the next sweep read all items");
        assert_eq!(sweep(&db), (1, 0));
        set(NOW + 61);
        assert_eq!(sweep(&db), (4, 1), "a due item makes the sweep read all items");
        set(NOW);
        assert_eq!(sweep(&db).0, 4, "a clock that was set back makes the sweep read all items");
        set(NOW + 3_600);
        assert_eq!(sweep(&db).1, 249);
    }
}
