//! The DynamoDB item of a rate limit's token bucket: its attributes, key and codec.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `bucket` | S | table key: the limit's name, and the user or tenant that is limited |
//! | `full_at` | N, µs | time at which the bucket will be full again; never decreases |
//! | `ttl` | N, s | DynamoDB's time to live: at least a minute after `full_at`, because a full bucket needs no item |

use aws_sdk_dynamodb::types::AttributeValue;

use super::codec::{Corrupt, Item, Reader, n, s};
use crate::store::FullAt;

/// Name of the rate limits table's key attribute.
pub const KEY: &str = "bucket";

/// Returns the table key of a token bucket's item.
#[must_use]
pub fn key(bucket: &str) -> AttributeValue {
    s(bucket)
}

/// Decodes the state of a bucket from its item, or from some attributes of the item; `None` if `full_at` is missing.
///
/// # Errors
/// [`Corrupt`] if `full_at` is not a number of microseconds.
pub fn decode(item: &Item) -> Result<Option<FullAt>, Corrupt> {
    Ok(Reader::new(item, KEY).optional_number("full_at")?.map(FullAt::from_micros))
}

/// Returns the value of the attribute `full_at`, which holds a bucket's state.
#[must_use]
pub fn full_at(full_at: FullAt) -> AttributeValue {
    n(full_at.as_micros())
}

/// Returns the time to live of the item of a token bucket that will be full at `full_at`: one minute after that time.
#[must_use]
pub fn ttl(full_at: FullAt) -> AttributeValue {
    n(full_at.as_micros() / 1_000_000 + 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_item_decodes_to_a_bucket_state_or_an_error_that_names_the_attribute() {
        let state = FullAt::from_micros(1_700_000_000_123_456);
        let mut item = Item::from([
            (KEY.into(), key("writes/user/acme/ann")),
            ("full_at".into(), full_at(state)),
            ("ttl".into(), ttl(state)),
            ("of_a_later_version".into(), s("ignored")),
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
