//! Fault injection into DynamoDB calls: which faults apply to a call, and how a fault changes the call's outcome.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::database::DynamoDb;
use super::dispatch::STREAMS_TARGET;
use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};
use super::ledger::Ledgers;
use super::response::Response;
use super::{capacity, stale};
use crate::faults::{CallContext, Caller, Effect, Effects, Service};
use crate::observe::{Answer, Observation};

const TRANSACTIONS: [&str; 3] = ["TransactWriteItems", "TransactGetItems", "ExecuteTransaction"];

impl DynamoDb {
    /// Answers one call. `target` is the header `x-amz-target`, such as `DynamoDB_20120810.PutItem`, and `body` is the
    /// request as JSON.
    ///
    /// Open ledgers record the call. No fault is injected: faults apply only to calls by an SDK client or over HTTP.
    #[must_use]
    pub fn handle(&self, target: &str, body: &[u8]) -> Response {
        respond(capacity::call(&mut self.lock(), target, body))
    }
}

/// Returns the effects of all fault rules that match a call.
pub(super) fn effects(db: &DynamoDb, caller: Option<&Caller>, target: &str, body: &[u8]) -> Effects {
    let operation = operation(target);
    let service = if target.starts_with(STREAMS_TARGET) { Service::Streams } else { Service::DynamoDb };
    let faults = db.settings.faults.as_ref();
    let Some(faults) = faults.filter(|faults| faults.concern(service, operation)) else {
        return Effects::default();
    };
    let request = CallResources::of(body);
    let context = CallContext {
        service,
        operation,
        resources: &request.tables(),
        index: request.index.as_deref(),
        caller: caller.map(Caller::function),
    };
    let can_be_stale = can_be_stale(db, operation, &request);
    faults.inject(&context, |effect| {
        effect.applies_to_any_call(caller)
            || (effect == Effect::Conflict && can_conflict(operation))
            || (matches!(effect, Effect::Stale(_)) && can_be_stale)
    })
}

/// Answers a call under the effects of faults; `None` if a fault drops the answer.
///
/// `effects.delay` and `Effect::Kill` are ignored, because the HTTP layer carries them out before this function runs.
pub(super) fn call_with(
    db: &DynamoDb,
    caller: Option<&Caller>,
    effects: &Effects,
    target: &str,
    body: &[u8],
) -> Option<Response> {
    let answer = {
        let engine = &mut *db.lock();
        engine.set_caller(caller.cloned());
        let answer = answer(engine, effects, target, body);
        engine.set_caller(None);
        answer
    };
    notify(db, caller, target, body, answer.as_ref());
    answer
}

/// Answers a call to which no fault applies.
pub(super) fn call(db: &DynamoDb, caller: Option<&Caller>, target: &str, body: &[u8]) -> Response {
    let answer = {
        let engine = &mut *db.lock();
        engine.set_caller(caller.cloned());
        let answer = respond(capacity::call(engine, target, body));
        engine.set_caller(None);
        answer
    };
    notify(db, caller, target, body, Some(&answer));
    answer
}

/// Reports a call to the observers. `answer` is `None` if a fault drops the answer.
fn notify(db: &DynamoDb, caller: Option<&Caller>, target: &str, body: &[u8], answer: Option<&Response>) {
    let Some(faults) = &db.settings.faults else { return };
    faults.notify(|| {
        let request = CallResources::of(body);
        Observation::Called {
            caller: caller.cloned(),
            operation: operation(target).to_owned(),
            tables: request.tables().join(","),
            index: request.index,
            answer: match answer {
                None => Answer::Never,
                Some(answer) if answer.status == 200 => Answer::Done,
                Some(answer) => Answer::Refused(error_name(answer)),
            },
        }
    });
}

/// Returns the name of the error in an error answer, without the namespace; the HTTP status if the name is missing.
fn error_name(answer: &Response) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let name = body["__type"].as_str().and_then(|name| name.rsplit('#').next());
    name.map_or_else(|| answer.status.to_string(), str::to_owned)
}

fn answer(engine: &mut Engine, effects: &Effects, target: &str, body: &[u8]) -> Option<Response> {
    if engine.is_released() {
        // The stage ended while a fault delayed this call. Another stage may use the folder now, so nothing is written.
        return None;
    }
    if let (Some(Effect::Throttle | Effect::Fail), Some(table)) = (effects.effect, &effects.resource)
        && let Some(batch) = Batch::without(table, target, body)
    {
        return Some(respond(batch.run(engine, target)));
    }
    match effects.effect {
        Some(Effect::Throttle) => Some(refuse(engine, target, body, throttled)),
        Some(Effect::Fail) => Some(refuse(engine, target, body, |_, _, _| failed())),
        Some(Effect::Conflict) => Some(refuse(engine, target, body, conflicted)),
        Some(Effect::FailAfterApply) => {
            let _ = capacity::call(engine, target, body);
            Some(failed().into_response())
        }
        Some(Effect::LoseAnswer) => {
            let _ = capacity::call(engine, target, body);
            None
        }
        Some(Effect::Stale(lag)) => {
            let request = CallResources::of(body);
            let table = request.tables().first().copied().unwrap_or_default();
            let index = request.index.as_deref().unwrap_or_default();
            Some(respond(stale::read(engine, table, index, lag, |engine| {
                capacity::call(engine, target, body)
            })))
        }
        // These effects do not apply to DynamoDB calls, or the HTTP layer has carried them out already.
        Some(
            Effect::Delay(_)
            | Effect::Gone
            | Effect::Deny
            | Effect::Duplicate
            | Effect::Kill
            | Effect::KillMidway { .. }
            | Effect::Freeze { .. }
            | Effect::Hang { .. }
            | Effect::Skew(_),
        )
        | None => Some(respond(capacity::call(engine, target, body))),
    }
}

pub(super) fn respond(answer: Result<Vec<u8>, ApiError>) -> Response {
    match answer {
        Ok(body) => Response { status: 200, body: body.into() },
        Err(error) => error.into_response(),
    }
}

/// Refuses a call without running it. Open ledgers record the call with zero units.
fn refuse(
    engine: &mut Engine,
    target: &str,
    body: &[u8],
    error: impl FnOnce(&Engine, &str, &Value) -> ApiError,
) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = error(engine, operation(target), &request);
    let call = capacity::refused_call(operation(target), &request, &error);
    Ledgers::record(engine.ledgers(), &call);
    error.into_response()
}

fn operation(target: &str) -> &str {
    target.rsplit('.').next().unwrap_or_default()
}

/// Tables and index that a call names. All other members of the request are skipped, to keep parsing cheap.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CallResources {
    table_name: Option<String>,
    stream_arn: Option<String>,
    shard_iterator: Option<String>,
    request_items: BTreeMap<String, IgnoredAny>,
    transact_items: Vec<BTreeMap<String, Action>>,
    #[serde(rename = "IndexName")]
    index: Option<String>,
}

/// One action of a transaction.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Action {
    table_name: Option<String>,
}

impl CallResources {
    /// Parses a request body. The result for an invalid body is empty; the engine refuses the call later.
    fn of(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Returns the names of the request's tables, given by name or by ARN. Tables that only PartiQL statements name are
    /// not included.
    fn tables(&self) -> Vec<&str> {
        let named = [&self.table_name, &self.stream_arn, &self.shard_iterator];
        let transacted =
            self.transact_items.iter().flat_map(BTreeMap::values).map(|action| &action.table_name);
        let named = named.into_iter().chain(transacted).flatten();
        let mut tables: Vec<_> = named.chain(self.request_items.keys()).map(|table| name(table)).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }
}

/// Returns a table's name, given the name, the table's ARN, or the ARN of the table's stream.
fn name(table: &str) -> &str {
    let resource = table.split_once(":table/").map_or(table, |(_, resource)| resource);
    resource.split('/').next().unwrap_or_default()
}

fn can_conflict(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem") || TRANSACTIONS.contains(&operation)
}

/// Returns whether a fault can make this read stale. Only queries and scans of a global index can be stale.
fn can_be_stale(db: &DynamoDb, operation: &str, request: &CallResources) -> bool {
    let (Some(index), "Query" | "Scan") = (request.index.as_deref(), operation) else { return false };
    let table = request.table_name.as_deref().map(name).unwrap_or_default();
    stale::is_watched(&db.lock(), table, index)
}

/// A batch call in which a fault refuses the entries of one table. The engine runs the entries of all other tables, and
/// the answer lists the refused entries as unprocessed.
struct Batch {
    request: Value,
    unprocessed: Map<String, Value>,
    member: &'static str,
}

impl Batch {
    /// Removes the entries of the refused table from a batch call. Returns `None`, so that the whole call fails, unless
    /// the call is a batch with entries both of the refused table and of another table.
    fn without(table: &str, target: &str, body: &[u8]) -> Option<Self> {
        let member = match operation(target) {
            "BatchGetItem" => "UnprocessedKeys",
            "BatchWriteItem" => "UnprocessedItems",
            _ => return None,
        };
        let mut request: Value = serde_json::from_slice(body).ok()?;
        let items = std::mem::take(request.get_mut("RequestItems")?.as_object_mut()?);
        let (unprocessed, rest): (Map<_, _>, Map<_, _>) =
            items.into_iter().partition(|(named, _)| name(named) == table);
        if unprocessed.is_empty() || rest.is_empty() {
            return None;
        }
        request["RequestItems"] = rest.into();
        Some(Self { request, unprocessed, member })
    }

    fn run(self, engine: &mut Engine, target: &str) -> Result<Vec<u8>, ApiError> {
        let answer = capacity::call(engine, target, self.request.to_string().as_bytes())?;
        let mut answer: Value = read(operation(target), &answer)?;
        match answer[self.member].as_object_mut() {
            Some(others) => others.extend(self.unprocessed),
            None => answer[self.member] = self.unprocessed.into(),
        }
        write(&answer)
    }
}

fn failed() -> ApiError {
    ApiError::internal("Internal server error")
}

/// Returns the error of a throttled call: `ThrottlingException` for an on-demand table, and
/// `ProvisionedThroughputExceededException` for a provisioned table.
///
/// A throttled transaction is cancelled, with the throttling as its cancellation reason. SDKs retry each of these
/// errors as a throttling error.
fn throttled(engine: &Engine, operation: &str, request: &Value) -> ApiError {
    const ON_DEMAND: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically \
                             scaling your table or index so please try again shortly. If exceptions persist, check if \
                             you have a hot key: \
                             https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html";
    const PROVISIONED: &str = "The level of configured provisioned throughput for the table was exceeded. Consider \
                               increasing your provisioning level with the UpdateTable API.";
    let named = CallResources::deserialize(request).unwrap_or_default();
    let tables = named.tables();
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

/// Returns the number of actions or statements in a transaction.
fn actions(request: &Value) -> usize {
    ["TransactItems", "TransactStatements"]
        .iter()
        .find_map(|member| request[member].as_array())
        .map_or(0, Vec::len)
}
