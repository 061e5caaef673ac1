use serde_json::Value;

use super::key::KEY;
use crate::store::dynamodb::codec::{Corrupt, Item, Reader};
use crate::store::dynamodb::part_item;

/// The JSON text of a value; as an error, if it has to lie in a part of its own.
pub(in crate::store::dynamodb) fn text_or_part(value: &Value) -> Result<String, String> {
    let text = value.to_string();
    if text.len() <= part_item::MAX_INLINE_BYTES { Ok(text) } else { Err(text) }
}

/// The attributes that name the parts that live as long as the request is open, and expire once it has ended.
pub(in crate::store::dynamodb) const OPEN_PARTS: [&str; 2] = ["payload_part", "checkpoint_part"];

/// The names of the parts that an item needs to be read.
///
/// # Errors
/// When one of these attributes is no string.
pub fn parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    // A checkpoint that has become small leaves its part behind, to expire with the request.
    let is_checkpoint_inside = read.optional_string("checkpoint")?.is_some();
    let mut parts = Vec::new();
    for attribute in ["payload_part", "checkpoint_part", "result_part"] {
        let is_left_behind = attribute == "checkpoint_part" && is_checkpoint_inside;
        parts.extend(read.optional_string(attribute)?.filter(|_| !is_left_behind));
    }
    Ok(parts)
}

/// The names of the parts that are to expire once the request has ended, if it has any.
///
/// # Errors
/// When one of these attributes is no string.
pub fn open_parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    let parts = OPEN_PARTS.into_iter().filter_map(|attribute| read.optional_string(attribute).transpose());
    parts.collect()
}
