//! What a call consumes of its tables and indexes, in AWS's capacity units.
//!
//! The engine says what a call that succeeded has consumed, by AWS's rules. It is asked to in every metered call, and
//! the caller is told only what the caller asked for. Of a call that failed it says nothing, so that is computed
//! here: a write whose condition failed is charged by the item that stands, or one unit where none does.

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

/// Answers one call, and enters it in the ledgers that are open.
pub(super) fn call(engine: &mut Engine, target: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    if !engine.ledgers().is_open() {
        return dispatch::call(engine, target, body);
    }
    let (answer, call) = metered(engine, target, body);
    engine.ledgers().enter(&call);
    answer
}

/// Answers one call, and says what it cost.
fn metered(engine: &mut Engine, target: &str, body: &[u8]) -> (Result<Vec<u8>, ApiError>, Call) {
    let operation = target.rsplit('.').next().unwrap_or_default();
    // What is no JSON object is refused in any case, and in the engine's words.
    let request = serde_json::from_slice(body).ok().filter(Value::is_object).unwrap_or_default();
    let kind = UnitKind::of(operation, &request);
    let (answer, consumed) = match kind {
        Some(_) if request.is_object() => call_with_consumption(engine, target, request.clone()),
        _ => (dispatch::call(engine, target, body), Value::Null),
    };
    let error = answer.as_ref().err().map(ApiError::name);
    let mut charges = match (kind, error.as_deref()) {
        (Some(kind), None) => entries(&consumed).flat_map(|entry| kind.charges(entry)).collect(),
        (Some(UnitKind::Write), Some("ConditionalCheckFailedException")) => refused(engine, [&request], 1.0),
        (Some(UnitKind::Write), Some("TransactionCanceledException")) => {
            refused(engine, members(&request["TransactItems"]), TRANSACTIONAL_CAPACITY_FACTOR)
        }
        (_, None | Some(_)) => Vec::new(),
    };
    if charges.is_empty() {
        charges = uncharged(&request);
    }
    // The engine's batches name their tables in no order.
    charges.sort_by(|a, b| a.table.cmp(&b.table));
    (answer, Call { operation: operation.to_owned(), charges, error })
}

/// A call that was refused before it did anything.
pub(super) fn refused_call(operation: &str, request: &Value, error: &ApiError) -> Call {
    Call { operation: operation.to_owned(), charges: uncharged(request), error: Some(error.name()) }
}

/// `Read` or `Write`, if the operation consumes either.
pub(super) fn kind(operation: &str, request: &Value) -> Option<&'static str> {
    UnitKind::of(operation, request).map(|kind| match kind {
        UnitKind::Read => "Read",
        UnitKind::Write => "Write",
    })
}

/// Whether an operation consumes read or write units; those that manage tables consume none.
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
            // The statements of one request all read or all write.
            "BatchExecuteStatement" => Some(Self::of_statement(&request["Statements"][0])),
            "ExecuteTransaction" => Some(Self::of_statement(&request["TransactStatements"][0])),
            _ => None,
        }
    }

    fn of_statement(of: &Value) -> Self {
        let statement = of["Statement"].as_str().unwrap_or_default();
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

    /// What one entry of `ConsumedCapacity` says: the table's own, then its indexes by name.
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

/// Runs a call that is asked to say what it consumed; gives its answer as the caller wants it, and what it said.
fn call_with_consumption(
    engine: &mut Engine,
    target: &str,
    mut request: Value,
) -> (Result<Vec<u8>, ApiError>, Value) {
    let asked = request[REQUEST_MEMBER].as_str().map(str::to_owned);
    // A value that DynamoDB does not know is left for it to refuse.
    if request[REQUEST_MEMBER].is_null() || matches!(asked.as_deref(), Some("NONE" | "TOTAL")) {
        request[REQUEST_MEMBER] = json!("INDEXES");
    }
    let answer = match dispatch::call(engine, target, request.to_string().as_bytes()) {
        Ok(answer) => answer,
        Err(error) => return (Err(error), Value::Null),
    };
    let Ok(mut told) = serde_json::from_slice::<Map<String, Value>>(&answer) else {
        return (Ok(answer), Value::Null);
    };
    let consumed = told.get(ANSWER_MEMBER).cloned().unwrap_or_default();
    match asked.as_deref() {
        Some("INDEXES") => return (Ok(answer), consumed),
        Some("TOTAL") => told.get_mut(ANSWER_MEMBER).into_iter().flat_map(entries_mut).for_each(keep_total),
        Some(_) | None => {
            told.shift_remove(ANSWER_MEMBER);
        }
    }
    (write(&told), consumed)
}

/// An operation on one table has one entry, one on several a list.
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

/// What writes that were refused by a condition are charged: the items that stand are weighed all the same.
fn refused<'a>(engine: &Engine, writes: impl IntoIterator<Item = &'a Value>, factor: f64) -> Vec<Charge> {
    let mut units: BTreeMap<&str, f64> = BTreeMap::new();
    for write in writes {
        if let Some(table) = write["TableName"].as_str() {
            let stands = stored_size(engine, table, write);
            *units.entry(table).or_default() += factor * table_write_capacity_units(stands, None);
        }
    }
    units.into_iter().map(|(table, units)| UnitKind::Write.charge(table, None, units)).collect()
}

/// The size in bytes of the item that a write is about; `None` where there is none.
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

/// The tables that a call names, where nothing is charged.
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

/// The actions of a transaction, out of the members that say of what kind they are.
pub(super) fn members(actions: &Value) -> impl Iterator<Item = &Value> {
    actions.as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(Map::values)
}
