//! The DynamoDB item of a part: a value that is too large for its request's own item.
//!
//! A part item holds a payload, a checkpoint or a result. The part item is separate so that writes of the
//! request's own item do not pay write capacity for the value.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `request_id` | S | table partition key, with the same value as in the request's own item |
//! | `part` | S | table sort key: `payload`, `checkpoint`, or `result#{epoch}` |
//! | `value` | S, JSON | the large value |
//! | `ttl` | N, s | DynamoDB's time to live. A result item has a time to live from its first write, so that the result of a fenced attempt expires too. A payload or checkpoint item gets a time to live when the request becomes terminal |
//!
//! The request's own item names its part items. A part item that is not named belongs to an attempt whose terminal
//! write did not succeed, and is ignored.

use serde_json::Value;

use super::codec::{Corrupt, Item, Reader, n, s};
use super::request_item::{KEY, PART};
use crate::ids::RequestKey;

/// Maximum size, in bytes of JSON text, of a value that is stored in the request's own item. Larger values are part
/// items.
///
/// DynamoDB charges each write for the whole item, in units of 1 KiB. So each claim, each stored progress and each
/// terminal write pays for a value in the request's own item. ADR 0003 has the figures.
pub const MAX_INLINE_BYTES: usize = 1024;

/// Name of the part item (a separate item for a large value) that holds the request's payload.
pub const PAYLOAD_PART: &str = "payload";

/// Name of the part item (a separate item for a large value) that holds the handler's last checkpoint.
pub const CHECKPOINT_PART: &str = "checkpoint";

/// Name of the attribute that holds a part item's value.
const VALUE: &str = "value";

/// Returns the name of the part item that holds the result of the attempt that was claimed under `epoch`.
#[must_use]
pub fn result_part(epoch: u64) -> String {
    format!("result#{epoch}")
}

/// Returns the key of a part item, the separate item that holds a large value of a request.
#[must_use]
pub fn key(request: &RequestKey, part: &str) -> Item {
    Item::from([(KEY.into(), s(request.as_str())), (PART.into(), s(part))])
}

/// Encodes a part item. `value` is JSON text; `ttl` is the expiry in seconds since the Unix epoch, if there is one.
#[must_use]
pub fn encode(request: &RequestKey, part: &str, value: String, ttl: Option<u64>) -> Item {
    let mut item = key(request, part);
    item.insert(VALUE.into(), s(value));
    if let Some(ttl) = ttl {
        item.insert("ttl".into(), n(ttl));
    }
    item
}

/// Returns the name of a part item, such as `payload`.
pub(super) fn part(item: &Item) -> Result<&str, Corrupt> {
    Reader::new(item, KEY).string(PART)
}

/// Decodes the value of a part item, the separate item that holds a large value of a request. Unknown attributes are
/// ignored.
///
/// # Errors
/// [`Corrupt`] if the value is missing, has the wrong type, or is not JSON.
pub fn decode(item: &Item) -> Result<Value, Corrupt> {
    Reader::new(item, KEY).json(VALUE)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn request() -> RequestKey {
        RequestKey::from_stored("acme/ann/r1")
    }

    proptest! {
        #[test]
        fn part_item_decodes_to_the_encoded_value(text in "\\PC{0,40}", number in any::<f64>(), epoch in any::<u64>()) {
            let value = json!({"text": text, "number": number});
            let mut item = encode(&request(), &result_part(epoch), value.to_string(), Some(1));
            item.insert("added_by_a_later_version".into(), AttributeValue::Bool(true));
            prop_assert_eq!(decode(&item).unwrap(), value);
            prop_assert_eq!(part(&item).unwrap(), format!("result#{epoch}"));
        }
    }

    #[test]
    fn part_item_without_a_valid_value_is_corrupt() {
        let mut report = Vec::new();
        for value in [None, Some(AttributeValue::Bool(true)), Some(s("{"))] {
            let mut item = key(&request(), PAYLOAD_PART);
            item.extend(value.map(|value| (VALUE.to_owned(), value)));
            report.push(decode(&item).unwrap_err().to_string());
        }
        insta::assert_snapshot!(report.join("\n"), @r#"
        item "acme/ann/r1", attribute "value": is missing
        item "acme/ann/r1", attribute "value": expected a string, found a boolean
        item "acme/ann/r1", attribute "value": is not the expected JSON: EOF while parsing an object at line 1 column 1
        "#);
    }
}
