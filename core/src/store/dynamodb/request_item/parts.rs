use serde_json::Value;

use super::key::KEY;
use crate::store::dynamodb::codec::{Corrupt, Item, Reader};
use crate::store::dynamodb::part_item;

/// Returns a value's JSON text: as `Ok` if the request's own item may hold it, as `Err` if the value needs a separate
/// part item.
pub(in crate::store::dynamodb) fn text_or_part(value: &Value) -> Result<String, String> {
    let text = value.to_string();
    if text.len() <= part_item::MAX_INLINE_BYTES { Ok(text) } else { Err(text) }
}

/// Attributes that name part items without a time to live. These part items get a time to live when the request
/// becomes terminal.
pub(in crate::store::dynamodb) const OPEN_PARTS: [&str; 2] = ["payload_part", "checkpoint_part"];

/// Returns the names of the part items (separate items for large values) that are needed to decode a request's item.
///
/// # Errors
/// [`Corrupt`] if an attribute that names a part item is not a string.
pub fn parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    // When a small checkpoint replaces a large one, the old part item remains, and expires with the request.
    let has_inline_checkpoint = read.optional_string("checkpoint")?.is_some();
    let mut parts = Vec::new();
    for attribute in ["payload_part", "checkpoint_part", "result_part"] {
        let is_outdated = attribute == "checkpoint_part" && has_inline_checkpoint;
        parts.extend(read.optional_string(attribute)?.filter(|_| !is_outdated));
    }
    Ok(parts)
}

/// Returns the names of the part items (separate items for large values) that need a time to live once the request is
/// terminal.
///
/// # Errors
/// [`Corrupt`] if an attribute that names a part item is not a string.
pub fn open_parts(item: &Item) -> Result<Vec<&str>, Corrupt> {
    let read = Reader::new(item, KEY);
    let parts = OPEN_PARTS.into_iter().filter_map(|attribute| read.optional_string(attribute).transpose());
    parts.collect()
}
