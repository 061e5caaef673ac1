//! Calls that go wrong on request: which faults a call can have, and what becomes of it then.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::ledger::{self, Ledgers};
use super::{DynamoDb, Response, capacity, stale};
use crate::dynamodb::engine::{Engine, STREAMS_TARGET};
use crate::faults::{Caller, Effect, Effects, Occasion, Service};

const TRANSACTIONS: [&str; 3] = ["TransactWriteItems", "TransactGetItems", "ExecuteTransaction"];

/// What is to go wrong with a call.
pub(super) fn strike(db: &DynamoDb, caller: Option<&Caller>, target: &str, body: &[u8]) -> Effects {
    let Some(faults) = db.settings.faults.as_ref().filter(|faults| faults.any()) else {
        return Effects::default();
    };
    let operation = operation(target);
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let service = if target.starts_with(STREAMS_TARGET) { Service::Streams } else { Service::DynamoDb };
    let occasion = Occasion {
        service,
        operation,
        resources: &tables(&request),
        index: request["IndexName"].as_str(),
        caller: caller.map(Caller::function),
    };
    faults.strike_where(&occasion, |effect| match effect {
        Effect::Throttle | Effect::Fail | Effect::FailAfterApply | Effect::LoseAnswer | Effect::Delay(_) => {
            true
        }
        Effect::Conflict => can_conflict(operation),
        Effect::Stale(_) => reads_an_index(operation, &request),
        Effect::Kill => caller.is_some(),
        Effect::Gone | Effect::Deny | Effect::Duplicate => false,
    })
}

/// Answers a call with which something goes wrong, or leaves it without an answer. Whoever calls it has waited for
/// its delay, and has killed whom it should.
pub(super) fn suffer(db: &DynamoDb, effect: Option<Effect>, target: &str, body: &[u8]) -> Option<Response> {
    let engine = &mut *db.lock();
    match effect {
        Some(Effect::Throttle) => Some(refuse(engine, target, body, throttled)),
        Some(Effect::Fail) => Some(refuse(engine, target, body, |_, _, _| failed())),
        Some(Effect::Conflict) => Some(refuse(engine, target, body, conflicted)),
        Some(Effect::FailAfterApply) => {
            let _ = ledger::call(engine, target, body);
            Some(failed().into_response())
        }
        Some(Effect::LoseAnswer) => {
            let _ = ledger::call(engine, target, body);
            None
        }
        Some(Effect::Stale(lag)) => {
            let request: Value = serde_json::from_slice(body).unwrap_or_default();
            let table = tables(&request).first().copied().unwrap_or_default().to_owned();
            let index = request["IndexName"].as_str().unwrap_or_default();
            Some(respond(stale::read(engine, &table, index, lag, |engine| {
                ledger::call(engine, target, body)
            })))
        }
        Some(Effect::Delay(_) | Effect::Gone | Effect::Deny | Effect::Duplicate | Effect::Kill) | None => {
            Some(respond(ledger::call(engine, target, body)))
        }
    }
}

pub(super) fn respond(answer: Result<Vec<u8>, ApiError>) -> Response {
    match answer {
        Ok(body) => Response { status: 200, body: body.into() },
        Err(error) => error.into_response(),
    }
}

/// A call without effect: it is in the ledger, and charged nothing.
fn refuse(
    engine: &mut Engine,
    target: &str,
    body: &[u8],
    error: impl FnOnce(&Engine, &str, &Value) -> ApiError,
) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = error(engine, operation(target), &request);
    let call = capacity::refused_call(operation(target), &request, &error);
    Ledgers::enter(engine.ledgers(), &call);
    error.into_response()
}

fn operation(target: &str) -> &str {
    target.rsplit('.').next().unwrap_or_default()
}

/// The tables that a call names, whether by name or by ARN; those of PartiQL's statements are not looked for.
fn tables(request: &Value) -> Vec<&str> {
    let named = ["TableName", "StreamArn", "ShardIterator"].map(|member| &request[member]);
    let batched = request["RequestItems"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    let transacted = capacity::members(&request["TransactItems"]).map(|action| &action["TableName"]);
    let mut tables: Vec<_> =
        named.into_iter().chain(transacted).filter_map(Value::as_str).chain(batched).map(name).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// The name of a table that may be given as an ARN, or as that of its stream.
fn name(table: &str) -> &str {
    let resource = table.split_once(":table/").map_or(table, |(_, resource)| resource);
    resource.split('/').next().unwrap_or_default()
}

fn can_conflict(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem") || TRANSACTIONS.contains(&operation)
}

fn reads_an_index(operation: &str, request: &Value) -> bool {
    matches!(operation, "Query" | "Scan") && request["IndexName"].is_string()
}

fn failed() -> ApiError {
    ApiError::internal("Internal server error")
}

/// An on-demand table says `ThrottlingException`, a provisioned one `ProvisionedThroughputExceededException`, and
/// within a transaction either is a reason of its cancellation; SDKs retry all of them as throttling.
fn throttled(engine: &Engine, operation: &str, request: &Value) -> ApiError {
    const ON_DEMAND: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically \
                             scaling your table or index so please try again shortly. If exceptions persist, check if \
                             you have a hot key: \
                             https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html";
    const PROVISIONED: &str = "The level of configured provisioned throughput for the table was exceeded. Consider \
                               increasing your provisioning level with the UpdateTable API.";
    let tables = tables(request);
    let Some(kind) = capacity::kind(operation, request) else {
        return ApiError::throttling("Rate of requests exceeds the allowed throughput.", &[]);
    };
    let on_demand = tables.iter().all(|table| {
        let meta = engine.storage().get_table_metadata(table).ok().flatten();
        meta.is_none_or(|meta| meta.billing_mode.as_deref() == Some("PAY_PER_REQUEST"))
    });
    if TRANSACTIONS.contains(&operation) {
        let (code, message) = if on_demand {
            ("ThrottlingError", ON_DEMAND)
        } else {
            ("ProvisionedThroughputExceeded", PROVISIONED)
        };
        return ApiError::transaction_canceled(actions(request), code, message);
    }
    let index = request["IndexName"].as_str();
    let scope = if index.is_some() { "Index" } else { "Table" };
    let arn = |table: &str| {
        let arn = format!("{}table/{table}", super::tables::arn_prefix(engine));
        index.map_or_else(|| arn.clone(), |index| format!("{arn}/index/{index}"))
    };
    let limit = if on_demand { "KeyRangeThroughputExceeded" } else { "ProvisionedThroughputExceeded" };
    let reasons: Vec<_> = tables.iter().map(|table| (format!("{scope}{kind}{limit}"), arn(table))).collect();
    if on_demand {
        ApiError::throttling(ON_DEMAND, &reasons)
    } else {
        ApiError::provisioned_throughput_exceeded(PROVISIONED, &reasons)
    }
}

fn conflicted(_: &Engine, operation: &str, request: &Value) -> ApiError {
    const ONGOING: &str = "Transaction is ongoing for the item";
    if TRANSACTIONS.contains(&operation) {
        ApiError::transaction_canceled(actions(request), "TransactionConflict", ONGOING)
    } else {
        ApiError::transaction_conflict(ONGOING)
    }
}

/// How many actions or statements a transaction has.
fn actions(request: &Value) -> usize {
    ["TransactItems", "TransactStatements"]
        .iter()
        .find_map(|member| request[member].as_array())
        .map_or(0, Vec::len)
}
