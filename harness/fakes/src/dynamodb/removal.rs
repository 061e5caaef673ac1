//! `UpdateItem` with an expression that only removes attributes. On AWS, such an update does not create a missing item.
//!
//! The engine creates an item that has only the key, so this module deletes that item. Only an update whose expression
//! removes attributes and does nothing else needs the additional read that checks whether the item exists.

use std::borrow::Cow;

use dynoxide::actions::{delete_item, get_item};
use serde::Deserialize;
use serde_json::{Value, json};

use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};

/// The member of an `UpdateItem` request that decides whether the update only removes attributes.
#[derive(Default, Deserialize)]
struct Update<'a> {
    #[serde(borrow, default, rename = "UpdateExpression")]
    expression: Option<Cow<'a, str>>,
}

pub(super) fn update_item(engine: &Engine, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    // A request that cannot be parsed here goes to the engine, which refuses it.
    let update: Update<'_> = serde_json::from_slice(body).unwrap_or_default();
    if !update.expression.is_some_and(|expression| only_removes(&expression)) {
        return engine.run("UpdateItem", body);
    }
    let request: Value = read("UpdateItem", body)?;
    if exists(engine, &request) {
        return engine.run("UpdateItem", body);
    }
    // The engine runs the update anyway, because it validates the request and evaluates the condition. The item that it
    // creates is then removed.
    let answer = engine.run("UpdateItem", body)?;
    undo_creation(engine, &request)?;
    let mut answer: Value = read("UpdateItem", &answer)?;
    if let Some(members) = answer.as_object_mut() {
        members.remove("Attributes");
    }
    write(&answer)
}

/// Returns whether an update expression has `REMOVE` or `DELETE` clauses and no other clauses.
///
/// The four clause names are reserved words, so an expression cannot contain them as attribute names. Placeholders of
/// names start with `#`, and placeholders of values start with `:`.
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

/// Returns whether the item exists. Returns `true` for an invalid request too, so that the engine produces the error.
fn exists(engine: &Engine, request: &Value) -> bool {
    let key = json!({ "TableName": request["TableName"], "Key": request["Key"], "ConsistentRead": true });
    let Ok(get) = serde_json::from_value::<get_item::GetItemRequest>(key) else { return true };
    pollster::block_on(get_item::execute(engine.storage(), get)).map_or(true, |found| found.item.is_some())
}

/// Deletes the item that the update created, with its index entries. Also removes the change records of the creation
/// and the deletion from the outbox.
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
    fn update_expression_with_only_remove_or_delete_clauses_counts_as_a_removal() {
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
