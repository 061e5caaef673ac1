//! The item of a token bucket, attribute by attribute.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `bucket` | S | table key: the limit's name, and who is limited |
//! | `full_at` | N, µs | when the bucket will be full again; it never goes back |
//! | `ttl` | N, s | DynamoDB's time to live: a minute or more after that, when the item means nothing any more |

use aws_sdk_dynamodb::types::AttributeValue;

use super::codec::{Corrupt, Item, Reader, n, s};
use crate::store::FullAt;

/// The table's key attribute.
pub const KEY: &str = "bucket";

/// The key of a bucket's item.
#[must_use]
pub fn key(bucket: &str) -> AttributeValue {
    s(bucket)
}

/// The state of the bucket that an item holds, whole or in part; `None` where it is not part of it.
///
/// # Errors
/// When it is of the wrong type.
pub fn decode(item: &Item) -> Result<Option<FullAt>, Corrupt> {
    Ok(Reader::new(item, KEY).optional_number("full_at")?.map(FullAt::from_micros))
}

/// The attribute that holds a bucket's state.
#[must_use]
pub fn full_at(full_at: FullAt) -> AttributeValue {
    n(full_at.as_micros())
}

/// When a bucket that is full at this moment may be forgotten.
#[must_use]
pub fn ttl(full_at: FullAt) -> AttributeValue {
    n(full_at.as_micros() / 1_000_000 + 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reads_back_as_it_was_written_and_what_is_none_is_named() {
        let state = FullAt::from_micros(1_700_000_000_123_456);
        let mut item = Item::from([
            (KEY.into(), key("writes/user/acme/ann")),
            ("full_at".into(), full_at(state)),
            ("ttl".into(), ttl(state)),
            ("of_a_later_version".into(), s("left alone")),
        ]);
        assert_eq!(decode(&item).unwrap(), Some(state));
        assert_eq!(item["ttl"], AttributeValue::N("1700000060".into()));
        item.insert("full_at".into(), s("soon"));
        assert_eq!(
            decode(&item).unwrap_err().to_string(),
            "item \"writes/user/acme/ann\", attribute \"full_at\": expected a number, found a string"
        );
        item.remove("full_at");
        assert_eq!(decode(&item).unwrap(), None);
    }
}
