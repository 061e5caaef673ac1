use crate::ids::RequestKey;
use crate::store::Status;
use crate::store::dynamodb::codec::{Item, s};

/// Name of the requests table's partition key attribute.
pub const KEY: &str = "request_id";
/// Name of the requests table's sort key attribute.
pub const PART: &str = "part";
/// Sort key of a request's own item, as opposed to its part items, which hold large values.
pub const REQUEST_PART: &str = "request";

/// Returns the key of a request's own item.
#[must_use]
pub fn key(key: &RequestKey) -> Item {
    Item::from([(KEY.into(), s(key.as_str())), (PART.into(), s(REQUEST_PART))])
}

/// Returns the value of the attribute `status_shard`, such as `PENDING#3`, for a request with this status and key.
#[must_use]
pub fn status_shard(status: Status, key: &RequestKey, shards: u8) -> String {
    shard_of_status(status, key.shard(shards))
}

/// Returns the value of the attribute `status_shard`, such as `PENDING#3`, for this status and shard number.
#[must_use]
pub fn shard_of_status(status: Status, shard: u8) -> String {
    format!("{}#{shard}", status.as_str())
}

/// Returns the value of the attribute `timer_shard`: the number of the request's shard in the timer index.
#[must_use]
pub fn timer_shard(key: &RequestKey, shards: u8) -> String {
    key.shard(shards).to_string()
}
