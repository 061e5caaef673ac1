//! Time to live, on the stage's clock.

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

/// How many items are looked at under one hold of the database, which other calls wait for.
const PAGE: usize = 100;

/// What expired longer ago stays for ever, as on AWS: five years, which are not said to the day.
const OLDEST_SECS: u64 = 5 * 365 * 24 * 60 * 60;

/// Who deletes, as the engine's outbox has it.
const SERVICE: &str = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;

impl DynamoDb {
    /// Deletes the items whose time-to-live attribute lies before the clock's now, and drops what streams keep
    /// for longer than 24 hours; gives the number of items deleted. Items that expired more than five years ago stay.
    ///
    /// Each deletion is a `REMOVE` record with the `userIdentity` of the service. DynamoDB does this by itself
    /// "within a few days"; here whoever owns the clock says when, once or by [`sweep_every`](Self::sweep_every).
    ///
    /// # Errors
    /// When the database cannot be written; what was deleted until then stays deleted.
    pub fn sweep_expired(&self) -> Result<usize, SweepError> {
        let mut sweep = Sweep::default();
        while sweep.page(&mut self.lock())? {}
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
                let page = sweep.page(&mut self.lock());
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
    /// The engine's count of changes when it began; `None` before that.
    since: Option<u64>,
    /// When the first of the items that stay is due, as far as they were looked at.
    next_secs: Option<u64>,
}

impl Sweep {
    /// Sweeps a page of a table, or at the end the streams; says whether there is more to do.
    fn page(&mut self, engine: &mut Engine) -> Result<bool, SweepError> {
        let swept = self.sweep(engine);
        let engine = &*engine;
        // Of a page that failed, too, what was deleted makes its records.
        outbox::take(engine).and_then(|()| stale::mark(engine)).map_err(SweepError)?;
        swept.map_err(SweepError)
    }

    fn sweep(&mut self, engine: &mut Engine) -> Result<bool, ApiError> {
        let now_secs = engine.now().as_secs();
        let changes = engine.conn().total_changes();
        let first_page = self.since.is_none();
        let since = *self.since.get_or_insert(changes);
        if first_page && engine.last_sweep().as_ref().is_some_and(|sweep| sweep.holds(changes, now_secs)) {
            trim(engine)?;
            return Ok(false);
        }
        let mut tables = engine.storage().list_ttl_enabled_tables()?;
        tables.retain(|table| table.table_name >= self.table);
        let Some(meta) = tables.into_iter().min_by(|a, b| a.table_name.cmp(&b.table_name)) else {
            // What was written meanwhile, by this sweep too, has the next one look again.
            *engine.last_sweep() =
                Some(LastSweep { changes: since, from_secs: now_secs, next_secs: self.next_secs });
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
fn expires(attribute: &Value) -> Option<u64> {
    attribute["N"].as_str()?.parse().ok()
}

fn trim(engine: &Engine) -> Result<(), ApiError> {
    Ok(streams::store::trim_all(engine.conn(), engine.now(), engine.settings().shard_lifetime)?)
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

    /// How many pages a sweep has, and how many items it deletes.
    fn sweep(db: &DynamoDb) -> (usize, usize) {
        let (mut sweep, mut pages) = (Sweep::default(), 1);
        while sweep.page(&mut db.lock()).expect("the database can be written") {
            pages += 1;
        }
        (pages, sweep.deleted)
    }

    #[test]
    fn items_are_looked_at_only_when_one_may_be_due() {
        const NOW: u64 = 1_704_067_200;
        let clock = Arc::new(ManualClock(AtomicU64::new(NOW)));
        let set = |now: u64| clock.0.store(now, Ordering::Relaxed);
        let db = DynamoDb::builder().clock(Arc::clone(&clock) as _).in_memory().expect("memory is enough");
        let schema = json!([{ "AttributeName": "pk", "KeyType": "HASH" }]);
        let attributes = json!([{ "AttributeName": "pk", "AttributeType": "S" }]);
        let table = json!({ "TableName": "things", "KeySchema": schema, "AttributeDefinitions": attributes, "BillingMode": "PAY_PER_REQUEST" });
        call(&db, "CreateTable", &table);
        let ttl = json!({ "Enabled": true, "AttributeName": "expires" });
        call(&db, "UpdateTimeToLive", &json!({ "TableName": "things", "TimeToLiveSpecification": ttl }));
        for item in 0..250 {
            put(&db, &item.to_string(), NOW + 60 + item);
        }
        assert_eq!(sweep(&db), (4, 0), "three pages of items, and the streams");
        set(NOW + 60);
        assert_eq!(sweep(&db), (1, 0), "nothing is written, and nothing due");
        put(&db, "sooner", NOW + 30);
        assert_eq!(sweep(&db), (4, 1), "something is written");
        assert_eq!(sweep(&db), (4, 0), "by the sweep itself");
        assert_eq!(sweep(&db), (1, 0));
        set(NOW + 61);
        assert_eq!(sweep(&db), (4, 1), "one is due");
        set(NOW);
        assert_eq!(sweep(&db).0, 4, "the clock is set back");
        set(NOW + 3_600);
        assert_eq!(sweep(&db).1, 249);
    }
}
