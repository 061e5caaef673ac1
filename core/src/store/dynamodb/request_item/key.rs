use crate::ids::RequestKey;
use crate::store::Status;
use crate::store::dynamodb::codec::{Item, s};

/// The table's key attribute.
pub const KEY: &str = "request_id";
/// The table's sort key attribute.
pub const PART: &str = "part";
/// The part that is the request itself.
pub const REQUEST_PART: &str = "request";

/// The key of a request's own item.
#[must_use]
pub fn key(key: &RequestKey) -> Item {
    Item::from([(KEY.into(), s(key.as_str())), (PART.into(), s(REQUEST_PART))])
}

/// The value of `status_shard`.
#[must_use]
pub fn status_shard(status: Status, key: &RequestKey, shards: u8) -> String {
    shard_of_status(status, key.shard(shards))
}

/// The value of `status_shard` of what stands so, and belongs to this shard.
#[must_use]
pub fn shard_of_status(status: Status, shard: u8) -> String {
    format!("{}#{shard}", status.as_str())
}

/// The value of `timer_shard`.
#[must_use]
pub fn timer_shard(key: &RequestKey, shards: u8) -> String {
    key.shard(shards).to_string()
}
