//! The engine's outbox: an SQLite table with one record for each item change. The engine adds the record in the same
//! SQLite transaction as the change.
//!
//! Before the next call can write, this module moves the records from the outbox into their streams.

use std::hash::Hasher as _;
use std::time::Duration;

use fnv::FnvHasher;
use rusqlite::Connection;
use serde_json::Value;
use streamer::ports::Timestamp;

use super::engine::Engine;
use super::error::ApiError;
use super::streams::store::{self, NewRecord};
use super::streams::stream::Stream;
use crate::observe::Observation;

/// One record of the outbox, as the engine wrote it.
struct Entry {
    id: i64,
    table: String,
    event_name: String,
    keys: String,
    new_image: Option<String>,
    old_image: Option<String>,
    user_identity: Option<String>,
}

/// Moves every record of the outbox into its table's stream, in one transaction.
pub(super) fn take(engine: &Engine) -> Result<(), ApiError> {
    let entries = entries(engine.conn())?;
    let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(()) };
    let now = engine.now();
    let transaction = engine.conn().unchecked_transaction()?;
    for entry in entries {
        if let Some(stream) = store::open_stream_of(&transaction, &entry.table)? {
            let table = entry.table.clone();
            let record = append(&transaction, &stream, entry, now, engine.settings().shard_lifetime)?;
            if let (Some((keys, image)), Some(faults)) = (record, &engine.settings().faults) {
                let caller = engine.caller().cloned();
                faults.notify(|| Observation::Wrote { caller, table, keys, image });
            }
        }
    }
    transaction.prepare_cached("DELETE FROM _stream_records WHERE id <= ?1")?.execute([last])?;
    transaction.commit()?;
    Ok(())
}

fn entries(conn: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, table_name, event_name, keys_json, new_image, old_image, user_identity
         FROM _stream_records ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Entry {
            id: row.get(0)?,
            table: row.get(1)?,
            event_name: row.get(2)?,
            keys: row.get(3)?,
            new_image: row.get(4)?,
            old_image: row.get(5)?,
            user_identity: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Appends the record of a change to `stream`. Returns the item's key, and the item after the change (`None` after a
/// deletion).
///
/// Appends nothing, and returns `Ok(None)`, if the write left the item unchanged.
fn append(
    conn: &Connection,
    stream: &Stream,
    entry: Entry,
    now: Timestamp,
    shard_lifetime: Option<Duration>,
) -> Result<Option<(Value, Option<Value>)>, ApiError> {
    let keys = canonical(&entry.keys)?;
    let new_image = entry.new_image.as_deref().map(canonical).transpose()?;
    let old_image = entry.old_image.as_deref().map(canonical).transpose()?;
    if new_image.is_some() && new_image == old_image {
        // AWS emits no record for a write that changes nothing.
        return Ok(None);
    }
    let current = new_image.clone();
    let new_image = new_image.filter(|_| stream.view_type.has_new_image());
    let old_image = old_image.filter(|_| stream.view_type.has_old_image());
    let size_bytes =
        [Some(&keys), new_image.as_ref(), old_image.as_ref()].into_iter().flatten().map(size).sum();
    store::append(
        conn,
        stream,
        &NewRecord {
            event_name: entry.event_name,
            hash: hash(&keys[&stream.partition_key]),
            keys: keys.to_string(),
            new_image: new_image.map(|image| image.to_string()),
            old_image: old_image.map(|image| image.to_string()),
            user_identity: entry.user_identity,
            size_bytes,
            created: now,
        },
        shard_lifetime,
    )?;
    Ok(Some((keys, current)))
}

/// Parses an item, and sorts its attributes and the elements of its sets, so that equal items have equal texts.
fn canonical(item: &str) -> Result<Value, ApiError> {
    let mut item = serde_json::from_str(item).map_err(|error| {
        ApiError::internal(&format!("the outbox contains an item that is not valid JSON: {error}"))
    })?;
    sort_sets(&mut item);
    item.sort_all_objects();
    Ok(item)
}

/// Sorts the elements of every set in an item.
///
/// In DynamoDB JSON, an array named `SS`, `NS` or `BS` is always a set, because the members of a map are objects.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if let (Value::Array(elements), "SS" | "NS" | "BS") = (&mut *member, name.as_str()) {
                    elements.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                } else {
                    sort_sets(member);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(sort_sets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Hashes an item's partition key. The hash decides the item's shard, as on AWS, so that the changes of all items with
/// the same partition key stay in order.
fn hash(partition_key: &Value) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(partition_key.to_string().as_bytes());
    let hash = hasher.finish();
    // The low bits of an FNV hash are the weakest, so the high bits are mixed into them.
    hash ^ (hash >> 32)
}

/// Returns an item's size in bytes by DynamoDB's rules: the UTF-8 lengths of attribute names, plus the sizes of values.
fn size(item: &Value) -> u64 {
    item.as_object().into_iter().flatten().map(|(name, value)| name.len() as u64 + value_size(value)).sum()
}

fn value_size(value: &Value) -> u64 {
    const CONTAINER: u64 = 3;
    let Some((kind, content)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    let text = |text: &Value| match kind.as_str() {
        "N" | "NS" => text.as_str().map_or(0, dynoxide::types::number_size) as u64,
        "B" | "BS" => text.as_str().map_or(0, |base64| base64.trim_end_matches('=').len() * 3 / 4) as u64,
        _ => text.as_str().map_or(0, str::len) as u64,
    };
    match content {
        Value::Array(elements) if kind == "L" => {
            CONTAINER + elements.iter().map(|element| 1 + value_size(element)).sum::<u64>()
        }
        Value::Array(elements) => elements.iter().map(text).sum(),
        Value::Object(members) => CONTAINER + members.len() as u64 + size(content),
        Value::String(_) => text(content),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_that_differ_only_in_attribute_or_set_order_have_equal_canonical_forms() {
        let one = canonical(r#"{"a":{"SS":["x","y"]},"b":{"M":{"SS":{"S":"1"},"c":{"N":"2"}}}}"#).unwrap();
        let two = canonical(r#"{"b":{"M":{"c":{"N":"2"},"SS":{"S":"1"}}},"a":{"SS":["y","x"]}}"#).unwrap();
        assert_eq!(one.to_string(), two.to_string());
        let list = canonical(r#"{"a":{"L":[{"S":"y"},{"S":"x"}]}}"#).unwrap();
        assert_eq!(list["a"]["L"][0]["S"], "y", "a list keeps the order of its elements");
    }

    #[test]
    fn item_sizes_follow_dynamodbs_rules() {
        assert_eq!(size(&json!({ "pk": { "S": "été" } })), 2 + 5);
        assert_eq!(size(&json!({ "n": { "N": "1234" }, "t": { "BOOL": true } })), 1 + 3 + 1 + 1);
        assert_eq!(size(&json!({ "b": { "B": "AQID" }, "s": { "SS": ["ab", "c"] } })), 1 + 3 + 1 + 3);
        assert_eq!(size(&json!({ "l": { "L": [{ "S": "x" }] } })), 1 + 3 + 1 + 1);
        assert_eq!(size(&json!({ "m": { "M": { "k": { "NULL": true } } } })), 1 + 3 + 1 + 1 + 1);
        assert_eq!(size(&json!({ "odd": {} })), 3);
    }
}
