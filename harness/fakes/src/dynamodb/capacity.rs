//! Counts the capacity units that a call consumes on its tables and indexes, by AWS's rules.
//!
//! The engine reports the consumed capacity of a call that succeeds. Every metered call requests the full report from
//! the engine; the caller receives only the part that the caller requested. The engine reports nothing about a call
//! that fails, so this module computes the charge: a write whose condition failed is charged by the size of the stored
//! item, or one unit if no item is stored.

use std::collections::BTreeMap;
use std::slice;

use dynoxide::actions::get_item::{self, GetItemRequest};
use dynoxide::types::{TRANSACTIONAL_CAPACITY_FACTOR, item_size, table_write_capacity_units};
use serde_json::{Map, Value, json};

use super::dispatch;
use super::engine::Engine;
use super::error::ApiError;
use super::json::write;
use super::ledger::{Call, Charge};

const REQUEST_MEMBER: &str = "ReturnConsumedCapacity";
const ANSWER_MEMBER: &str = "ConsumedCapacity";

/// Answers one call, and records the call in every open ledger.
pub(super) fn call(engine: &mut Engine, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    if !engine.ledgers().is_open() {
        return dispatch::call(engine, target, body);
    }
    let (answer, call) = metered(engine, target, body);
    engine.ledgers().record(&call);
    answer
}

/// Answers one call. Returns the answer, and the record of the call with its cost.
fn metered(engine: &mut Engine, target: &str, body: &[u8]) -> (Result<Vec<u8>, ApiError>, Call) {
    let operation = target.rsplit('.').next().unwrap_or_default();
    // A body that is not a JSON object becomes null here. The engine then refuses the original body, with its own
    // message.
    let request = serde_json::from_slice(body).ok().filter(Value::is_object).unwrap_or_default();
    let kind = UnitKind::of(operation, &request);
    let (answer, consumed) = match kind {
        Some(_) if request.is_object() => call_with_consumption(engine, target, request.clone()),
        _ => (dispatch::call(engine, target, body), Value::Null),
    };
    let error = answer.as_ref().err().map(ApiError::name);
    let mut charges = match (kind, error.as_deref()) {
        (Some(kind), None) => entries(&consumed).flat_map(|entry| kind.charges(entry)).collect(),
        (Some(UnitKind::Write), Some("ConditionalCheckFailedException")) => {
            charges_of_refused_writes(engine, [&request], 1.0)
        }
        (Some(UnitKind::Write), Some("TransactionCanceledException")) => {
            let actions = members(&request["TransactItems"]);
            charges_of_refused_writes(engine, actions, TRANSACTIONAL_CAPACITY_FACTOR)
        }
        (_, None | Some(_)) => Vec::new(),
    };
    if charges.is_empty() {
        charges = uncharged(&request);
    }
    // The engine lists the tables of a batch in arbitrary order; sorting makes the ledger deterministic.
    charges.sort_by(|a, b| a.table.cmp(&b.table));
    (answer, Call { operation: operation.to_owned(), charges, error })
}

/// Returns the ledger record of a call that a fault refused before the call took effect.
pub(super) fn refused_call(operation: &str, request: &Value, error: &ApiError) -> Call {
    Call { operation: operation.to_owned(), charges: uncharged(request), error: Some(error.name()) }
}

/// Returns `Read` or `Write`, the kind of capacity units that the operation consumes; `None` if it consumes none.
pub(super) fn kind(operation: &str, request: &Value) -> Option<&'static str> {
    UnitKind::of(operation, request).map(|kind| match kind {
        UnitKind::Read => "Read",
        UnitKind::Write => "Write",
    })
}

/// Kind of capacity units that an operation consumes. Operations that manage tables consume none and have no kind.
#[derive(Clone, Copy, Debug)]
enum UnitKind {
    Read,
    Write,
}

impl UnitKind {
    fn of(operation: &str, request: &Value) -> Option<Self> {
        match operation {
            "GetItem" | "BatchGetItem" | "TransactGetItems" | "Query" | "Scan" => Some(Self::Read),
            "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" | "TransactWriteItems" => {
                Some(Self::Write)
            }
            "ExecuteStatement" => Some(Self::of_statement(request)),
            // The statements of one request either all read or all write, so the first statement decides.
            "BatchExecuteStatement" => Some(Self::of_statement(&request["Statements"][0])),
            "ExecuteTransaction" => Some(Self::of_statement(&request["TransactStatements"][0])),
            _ => None,
        }
    }

    fn of_statement(request: &Value) -> Self {
        let statement = request["Statement"].as_str().unwrap_or_default();
        match statement.split_whitespace().next() {
            Some(first) if first.eq_ignore_ascii_case("SELECT") => Self::Read,
            Some(_) | None => Self::Write,
        }
    }

    fn charge(self, table: &str, index: Option<&str>, units: f64) -> Charge {
        let (read_units, write_units) = match self {
            Self::Read => (units, 0.0),
            Self::Write => (0.0, units),
        };
        Charge { table: table.to_owned(), index: index.map(str::to_owned), read_units, write_units }
    }

    /// Converts one entry of `ConsumedCapacity` to charges: first the table's own charge, then the charges of its
    /// indexes, sorted by name.
    fn charges(self, entry: &Value) -> Vec<Charge> {
        let table = entry["TableName"].as_str().unwrap_or_default();
        let units = |of: &Value| of["CapacityUnits"].as_f64().unwrap_or_default();
        let indexes: BTreeMap<&str, f64> = ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"]
            .iter()
            .filter_map(|kind| entry[kind].as_object())
            .flatten()
            .map(|(name, detail)| (name.as_str(), units(detail)))
            .collect();
        let mut charges = Vec::new();
        let own = units(&entry["Table"]);
        if own > 0.0 || indexes.is_empty() {
            charges.push(self.charge(table, None, own));
        }
        charges.extend(indexes.into_iter().map(|(name, units)| self.charge(table, Some(name), units)));
        charges
    }
}

/// Runs a call with `ReturnConsumedCapacity` set to `INDEXES`.
///
/// Returns the answer in the form that the caller requested, and the engine's `ConsumedCapacity`.
fn call_with_consumption(
    engine: &mut Engine,
    target: &str,
    mut request: Value,
) -> (Result<Vec<u8>, ApiError>, Value) {
    let requested = request[REQUEST_MEMBER].as_str().map(str::to_owned);
    // An unknown value stays in the request, so that the engine refuses the request.
    if request[REQUEST_MEMBER].is_null() || matches!(requested.as_deref(), Some("NONE" | "TOTAL")) {
        request[REQUEST_MEMBER] = json!("INDEXES");
    }
    let answer = match dispatch::call(engine, target, request.to_string().as_bytes()) {
        Ok(answer) => answer,
        Err(error) => return (Err(error), Value::Null),
    };
    let Ok(mut response) = serde_json::from_slice::<Map<String, Value>>(&answer) else {
        return (Ok(answer), Value::Null);
    };
    let consumed = response.get(ANSWER_MEMBER).cloned().unwrap_or_default();
    match requested.as_deref() {
        Some("INDEXES") => return (Ok(answer), consumed),
        Some("TOTAL") => {
            response.get_mut(ANSWER_MEMBER).into_iter().flat_map(entries_mut).for_each(keep_total);
        }
        Some(_) | None => {
            response.shift_remove(ANSWER_MEMBER);
        }
    }
    (write(&response), consumed)
}

/// Returns the entries of `ConsumedCapacity`, which is one object for an operation on one table, and an array for an
/// operation on several tables.
fn entries(consumed: &Value) -> impl Iterator<Item = &Value> {
    let entries = consumed.as_array().map_or(slice::from_ref(consumed), Vec::as_slice);
    entries.iter().filter(|entry| entry.is_object())
}

fn entries_mut(consumed: &mut Value) -> impl Iterator<Item = &mut Value> {
    match consumed {
        Value::Array(entries) => entries.iter_mut(),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            slice::from_mut(consumed).iter_mut()
        }
    }
}

fn keep_total(entry: &mut Value) {
    if let Some(entry) = entry.as_object_mut() {
        entry.retain(|name, _| name.ends_with("Units") || name == "TableName");
    }
}

/// Returns the charges of writes whose condition failed. AWS charges such a write by the size of the stored item.
fn charges_of_refused_writes<'a>(
    engine: &Engine,
    writes: impl IntoIterator<Item = &'a Value>,
    factor: f64,
) -> Vec<Charge> {
    let mut units: BTreeMap<&str, f64> = BTreeMap::new();
    for write in writes {
        if let Some(table) = write["TableName"].as_str() {
            let stored = stored_size(engine, table, write);
            *units.entry(table).or_default() += factor * table_write_capacity_units(stored, None);
        }
    }
    units.into_iter().map(|(table, units)| UnitKind::Write.charge(table, None, units)).collect()
}

/// Returns the size in bytes of the stored item that a write addresses; `None` if no such item is stored.
fn stored_size(engine: &Engine, table: &str, write: &Value) -> Option<usize> {
    let key = match write.get("Key") {
        Some(key) => key.clone(),
        None => key_of(engine, table, &write["Item"])?,
    };
    let get = json!({ "TableName": table, "Key": key, "ConsistentRead": true });
    let get: GetItemRequest = serde_json::from_value(get).ok()?;
    let found = pollster::block_on(get_item::execute(engine.storage(), get)).ok()?;
    found.item.as_ref().map(item_size)
}

pub(super) fn key_of(engine: &Engine, table: &str, item: &Value) -> Option<Value> {
    let meta = engine.storage().get_table_metadata(table).ok()??;
    let schema: Value = serde_json::from_str(&meta.key_schema).ok()?;
    let names = schema.as_array()?.iter().filter_map(|entry| entry["AttributeName"].as_str());
    Some(names.map(|name| (name.to_owned(), item[name].clone())).collect())
}

/// Returns the charges of a call that consumes no capacity: zero units for each table that the call names.
fn uncharged(request: &Value) -> Vec<Charge> {
    let named = request["TableName"].as_str().map(|table| (table, request["IndexName"].as_str()));
    let batched = request["RequestItems"].as_object().into_iter().flat_map(Map::keys);
    let transacted = members(&request["TransactItems"]).filter_map(|action| action["TableName"].as_str());
    let mut tables: Vec<_> = named
        .into_iter()
        .chain(batched.map(String::as_str).chain(transacted).map(|table| (table, None)))
        .map(|(table, index)| UnitKind::Read.charge(table, index, 0.0))
        .collect();
    tables.sort_by(|a, b| a.table.cmp(&b.table));
    tables.dedup();
    tables
}

/// Returns the actions of a transaction, each unwrapped from its `Put`, `Update`, `Delete`, `ConditionCheck` or `Get`.
pub(super) fn members(actions: &Value) -> impl Iterator<Item = &Value> {
    actions.as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(Map::values)
}
