//! Batches of stream records: the size of a batch, the payload of its invocation, and the lane of each record.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use bytes::Bytes;
use fnv::FnvHasher;
use serde_json::Value;
use streamer::ports::Timestamp;

use super::source::Record;

/// Maximum payload of one invocation in bytes: 6 MB.
const MAX_PAYLOAD_BYTES: usize = 6 * 1_024 * 1_024;
const HEAD: &str = r#"{"Records":["#;
const TAIL: &str = "]}";

/// A record that matched the filters, serialized once for all invocations that contain the record.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Position of the record in its shard, as assigned by `Checkpoint::add`.
    pub(super) position: usize,
    pub(super) sequence_number: String,
    pub(super) approximate_creation: Timestamp,
    pub(super) stream_arn: String,
    json: String,
}

impl Item {
    pub(super) fn new(position: usize, record: &Record) -> Self {
        let stream_arn = record.event.get("eventSourceARN").and_then(Value::as_str).unwrap_or_default();
        Self {
            position,
            sequence_number: record.sequence_number.clone(),
            approximate_creation: record.approximate_creation,
            stream_arn: stream_arn.to_owned(),
            json: record.event.to_string(),
        }
    }
}

/// Returns the number of waiting `items` that form the next batch, and whether the batch is full.
pub(super) fn fit(items: &VecDeque<Item>, batch_size: usize) -> (usize, bool) {
    let mut length = HEAD.len() + TAIL.len();
    for (count, item) in items.iter().enumerate() {
        length += item.json.len() + usize::from(count > 0);
        // A record above the limit forms a batch alone: its invocation fails, and the retry rules apply.
        if count == batch_size || count > 0 && length > MAX_PAYLOAD_BYTES {
            return (count, true);
        }
    }
    (items.len(), items.len() == batch_size)
}

/// Builds the event of an invocation, `{"Records":[…]}`.
pub(super) fn payload(items: &[Item]) -> Bytes {
    let mut text = String::from(HEAD);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&item.json);
    }
    text.push_str(TAIL);
    text.into()
}

/// Returns the index of the lane (one of the shard's concurrent batch processors) for a record.
///
/// All records of one item share a lane, so that they stay in order. Lambda keeps the order "at the item (partition
/// and sort key) level" (Lambda developer guide, "Using AWS Lambda with Amazon DynamoDB"). For Kinesis, Lambda
/// keeps the order per partition key.
pub(super) fn lane(record: &Record, lanes: usize) -> usize {
    let keys = record.event.pointer("/dynamodb/Keys").and_then(Value::as_object);
    let mut keys: Vec<_> =
        keys.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    keys.sort_unstable();
    // FNV yields the same lanes in every run and on every machine. The standard library's default hasher does not.
    let mut hasher = FnvHasher::default();
    hasher.write(keys.join("&").as_bytes());
    let lanes = u64::try_from(lanes).unwrap_or(1).max(1);
    usize::try_from(hasher.finish() % lanes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(event: Value) -> Record {
        Record { sequence_number: "1".to_owned(), approximate_creation: Timestamp::default(), event }
    }

    fn items(sizes: &[usize]) -> VecDeque<Item> {
        // The two quotes of a JSON string count towards its size.
        sizes.iter().map(|size| Item::new(0, &record(json!("x".repeat(size - 2))))).collect()
    }

    #[test]
    fn batch_is_limited_by_batch_size_and_by_6_mb_of_payload() {
        assert_eq!(fit(&items(&[10, 10]), 3), (2, false));
        assert_eq!(fit(&items(&[10, 10, 10]), 3), (3, true));
        assert_eq!(fit(&items(&[10, 10, 10, 10]), 3), (3, true));
        let half = (MAX_PAYLOAD_BYTES - HEAD.len() - TAIL.len() - 1) / 2;
        let full = items(&[half, half]);
        assert_eq!(fit(&full, 100), (2, false));
        assert!(payload(full.as_slices().0).len() <= MAX_PAYLOAD_BYTES);
        assert_eq!(fit(&items(&[half, half + 2]), 100), (1, true));
        assert_eq!(fit(&items(&[MAX_PAYLOAD_BYTES, 10]), 100), (1, true));
        assert_eq!(fit(&VecDeque::new(), 100), (0, false));
    }

    #[test]
    fn batch_payload_contains_its_records_unchanged() {
        let both = [Item::new(0, &record(json!({"a": 1}))), Item::new(1, &record(json!({"b": 2})))];
        assert_eq!(payload(&both), r#"{"Records":[{"a":1},{"b":2}]}"#);
    }

    #[test]
    fn records_of_one_item_share_a_lane_and_items_spread_over_all_lanes() {
        let lane_of = |id: usize, name: &str| {
            lane(&record(json!({"eventName": name, "dynamodb": {"Keys": {"id": {"S": id.to_string()}}}})), 10)
        };
        let mut used = [false; 10];
        for id in 0..200 {
            assert_eq!(lane_of(id, "INSERT"), lane_of(id, "REMOVE"));
            used[lane_of(id, "INSERT")] = true;
        }
        assert_eq!(used, [true; 10]);
        assert_eq!(lane(&record(json!({})), 1), 0);
    }
}
