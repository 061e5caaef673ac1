//! `UpdateItem` that only removes: of an item that does not exist, it creates nothing.
//!
//! The engine stores an item of the bare key instead. Whether such an update may create is decided by its
//! expression alone, so only those that do nothing but remove pay for a second look.

use std::borrow::Cow;

use dynoxide::actions::{delete_item, get_item};
use serde::Deserialize;
use serde_json::{Value, json};

use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};

/// What of an update decides.
#[derive(Default, Deserialize)]
struct Update<'a> {
    #[serde(borrow, default, rename = "UpdateExpression")]
    expression: Option<Cow<'a, str>>,
}

pub(super) fn update_item(engine: &Engine, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    // What cannot be read here is refused there.
    let update: Update<'_> = serde_json::from_slice(body).unwrap_or_default();
    if !update.expression.is_some_and(|expression| only_removes(&expression)) {
        return engine.run("UpdateItem", body);
    }
    let request: Value = read("UpdateItem", body)?;
    if exists(engine, &request) {
        return engine.run("UpdateItem", body);
    }
    // Run it all the same, since every check of the request and its condition is in there.
    let answer = engine.run("UpdateItem", body)?;
    undo_creation(engine, &request)?;
    let mut answer: Value = read("UpdateItem", &answer)?;
    if let Some(members) = answer.as_object_mut() {
        members.remove("Attributes");
    }
    write(&answer)
}

/// Whether an update expression has `REMOVE` or `DELETE` clauses and no others.
///
/// The four clause names are reserved words: as an attribute name they can only stand behind `#`, and as a
/// value only behind `:`.
fn only_removes(expression: &str) -> bool {
    let word_end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '#' | ':' | '.');
    let mut removes = false;
    for word in expression.split(word_end) {
        if word.eq_ignore_ascii_case("SET") || word.eq_ignore_ascii_case("ADD") {
            return false;
        }
        removes |= word.eq_ignore_ascii_case("REMOVE") || word.eq_ignore_ascii_case("DELETE");
    }
    removes
}

/// Whether the item is there; also when the request is too broken to tell, so that the engine words the error.
fn exists(engine: &Engine, request: &Value) -> bool {
    let key = json!({ "TableName": request["TableName"], "Key": request["Key"], "ConsistentRead": true });
    let Ok(get) = serde_json::from_value::<get_item::GetItemRequest>(key) else { return true };
    pollster::block_on(get_item::execute(engine.storage(), get)).map_or(true, |found| found.item.is_some())
}

/// Takes the bare item away again, out of the indexes as well, and both records out of the outbox.
fn undo_creation(engine: &Engine, request: &Value) -> Result<(), ApiError> {
    let key = json!({ "TableName": request["TableName"], "Key": request["Key"] });
    let delete: delete_item::DeleteItemRequest =
        serde_json::from_value(key).map_err(|error| ApiError::internal(&error.to_string()))?;
    pollster::block_on(delete_item::execute(engine.storage(), delete))?;
    engine.conn().execute("DELETE FROM _stream_records", [])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expressions_without_set_and_add_clauses_only_remove() {
        for expression in ["REMOVE a", "remove a[1], b.c", "DELETE tags :t", "REMOVE #set, a DELETE b :add"] {
            assert!(only_removes(expression), "{expression}");
        }
        for expression in
            ["SET a = :remove", "REMOVE a SET b = :b", "ADD n :one", "", "#remove", "REMOVE a add b :c"]
        {
            assert!(!only_removes(expression), "{expression}");
        }
    }
}
