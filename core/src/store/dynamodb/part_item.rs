//! The item of a big value: a request's payload, or what an attempt made of it. It lies beside the request's own item,
//! so that a write to that one does not pay for it.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `request_id` | S | table key: that of the request |
//! | `part` | S | table sort key: `payload`, `checkpoint`, or `result#{epoch}` |
//! | `value` | S, JSON | |
//! | `ttl` | N, s | DynamoDB's time to live. Of a result from the begin, so that a fenced attempt's expires too; of a payload or a checkpoint once the request has ended |
//!
//! A request names the parts that are its own: one that it does not name is an attempt's that came too late.

use serde_json::Value;

use super::codec::{Corrupt, Item, Reader, n, s};
use super::request_item::{KEY, PART};
use crate::ids::RequestKey;

/// The longest JSON text that stands in the request's own item, in bytes.
///
/// Each write of a request pays for every KiB of its item that has begun: what lies in it is paid for at each claim,
/// each stored progress and each end. ADR 0003 has the figures.
pub const MAX_INLINE_BYTES: usize = 1024;

/// The part that is the request's payload.
pub const PAYLOAD_PART: &str = "payload";

/// The part that is what the handler saved last, to go on from.
pub const CHECKPOINT_PART: &str = "checkpoint";

/// The attribute that holds the value.
const VALUE: &str = "value";

/// The part that is the result of the attempt of this epoch.
#[must_use]
pub fn result_part(epoch: u64) -> String {
    format!("result#{epoch}")
}

/// The key of a part's item.
#[must_use]
pub fn key(request: &RequestKey, part: &str) -> Item {
    Item::from([(KEY.into(), s(request.as_str())), (PART.into(), s(part))])
}

/// The item of a part, from the JSON text of its value and the second in which its time is over.
#[must_use]
pub fn encode(request: &RequestKey, part: &str, value: String, ttl: Option<u64>) -> Item {
    let mut item = key(request, part);
    item.insert(VALUE.into(), s(value));
    if let Some(ttl) = ttl {
        item.insert("ttl".into(), n(ttl));
    }
    item
}

/// Which part an item is.
pub(super) fn part(item: &Item) -> Result<&str, Corrupt> {
    Reader::new(item, KEY).string(PART)
}

/// The value that an item holds; attributes that are not known are passed over.
///
/// # Errors
/// When it is missing, of the wrong type, or no JSON.
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
        fn a_value_reads_back_as_it_was_written(text in "\\PC{0,40}", number in any::<f64>(), epoch in any::<u64>()) {
            let value = json!({"text": text, "number": number});
            let mut item = encode(&request(), &result_part(epoch), value.to_string(), Some(1));
            item.insert("added_by_a_later_version".into(), AttributeValue::Bool(true));
            prop_assert_eq!(decode(&item).unwrap(), value);
            prop_assert_eq!(part(&item).unwrap(), format!("result#{epoch}"));
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named() {
        let mut report = Vec::new();
        for value in [None, Some(AttributeValue::Bool(true)), Some(s("{"))] {
            let mut item = key(&request(), PAYLOAD_PART);
            item.extend(value.map(|value| (VALUE.to_owned(), value)));
            report.push(decode(&item).unwrap_err().to_string());
        }
        insta::assert_snapshot!(report.join("\n"), @r#"
        item "acme/ann/r1", attribute "value": is missing
        item "acme/ann/r1", attribute "value": expected a string, found a boolean
        item "acme/ann/r1", attribute "value": is not the JSON it should be: EOF while parsing an object at line 1 column 1
        "#);
    }
}
