//! `CreateTable`, `UpdateTable`, `DeleteTable` and `DescribeTable`.
//!
//! The engine answers these operations. This module puts the stage's region, account, time and streams into the
//! answers.

use dynoxide::storage::TableMetadata;
use serde_json::{Value, json};

use super::engine::Engine;
use super::error::ApiError;
use super::json::{read, write};
use super::stale;
use super::streams::StreamViewType;
use super::streams::store::{self, NewStream};
use crate::aws_format::stream_label;

/// Prefix of every ARN that the engine returns.
const ENGINE_ARN_PREFIX: &str = "arn:aws:dynamodb:dynoxide:000000000000:";

/// Stream view type with which the engine writes records to its outbox. The view type of the user's stream is applied
/// later, when a record moves from the outbox into the stream.
const ENGINE_VIEW_TYPE: &str = "NEW_AND_OLD_IMAGES";

pub(super) fn call(engine: &Engine, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    if operation == "UpdateTable" {
        check_stream_change(engine, &read(operation, body)?)?;
    }
    let mut answer: Value = read(operation, &engine.run(operation, body)?)?;
    let member = if operation == "DescribeTable" { "Table" } else { "TableDescription" };
    let description = &mut answer[member];
    let Some(table) = description["TableName"].as_str().map(str::to_owned) else {
        return Err(ApiError::internal("the engine described a table without a name"));
    };
    match operation {
        "CreateTable" => {
            stamp(engine, &table, description)?;
            stale::watch(engine)?;
        }
        "UpdateTable" => stale::watch(engine)?,
        "DeleteTable" => {
            store::close_stream_of(engine.conn(), &table, engine.now())?;
            stale::watch(engine)?;
        }
        _ => {}
    }
    if operation != "DeleteTable" {
        reconcile_stream(engine, &table)?;
        describe_stream(engine, &table, description)?;
    }
    set_arns(engine, description);
    write(&answer)
}

/// Refuses to enable a stream that is enabled, or to disable a stream that is disabled, as AWS does.
fn check_stream_change(engine: &Engine, request: &Value) -> Result<(), ApiError> {
    let (Some(table), Some(enable)) =
        (request["TableName"].as_str(), request["StreamSpecification"]["StreamEnabled"].as_bool())
    else {
        return Ok(());
    };
    let Ok(Some(meta)) = engine.storage().get_table_metadata(table) else { return Ok(()) };
    match (enable, meta.stream_enabled) {
        (true, true) => {
            Err(ApiError::validation(&format!("Table already has an enabled stream: TableName: {table}")))
        }
        (false, false) => {
            Err(ApiError::validation(&format!("Table already has a disabled stream: TableName: {table}")))
        }
        (true, false) | (false, true) => Ok(()),
    }
}

/// Sets a new table's creation time and id from the stage's clock and entropy. The engine itself uses the machine's
/// clock and entropy.
fn stamp(engine: &Engine, table: &str, description: &mut Value) -> Result<(), ApiError> {
    let mut id = [0; 16];
    engine.settings().entropy.fill(&mut id);
    let hex = format!("{:032x}", u128::from_be_bytes(id));
    let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    let created_secs = engine.now().as_secs();
    engine.conn().execute(
        "UPDATE _tables SET created_at = ?1, table_id = ?2 WHERE table_name = ?3",
        rusqlite::params![i64::try_from(created_secs).unwrap_or(i64::MAX), id, table],
    )?;
    // The engine caches a table's metadata. Storing the default time to live makes the engine drop the cached metadata.
    engine.storage().update_ttl_config(table, None, false)?;
    description["CreationDateTime"] = json!(created_secs);
    description["TableId"] = json!(id);
    Ok(())
}

/// Creates or closes a table's stream, so that the stored streams agree with the engine's metadata of the table.
pub(super) fn reconcile_stream(engine: &Engine, table: &str) -> Result<(), ApiError> {
    let Some(meta) = engine.storage().get_table_metadata(table)? else { return Ok(()) };
    let ours = store::open_stream_of(engine.conn(), table)?;
    match (meta.stream_enabled, ours) {
        (true, None) => begin_stream(engine, &meta),
        (false, Some(_)) => Ok(store::close_stream_of(engine.conn(), table, engine.now())?),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

fn begin_stream(engine: &Engine, meta: &TableMetadata) -> Result<(), ApiError> {
    let settings = engine.settings();
    let table = &meta.table_name;
    let view_type = meta.stream_view_type.as_deref().unwrap_or(ENGINE_VIEW_TYPE);
    let view_type: StreamViewType = view_type.parse().map_err(|()| {
        ApiError::internal(&format!(
            "the engine's table metadata has the unknown stream view type {view_type}"
        ))
    })?;
    let arn = |label: &str| format!("{}table/{table}/stream/{label}", arn_prefix(engine));
    // A table that is created again within the same millisecond needs a stream with a different ARN.
    let mut created = engine.now();
    while store::stream_by_arn(engine.conn(), &arn(&stream_label(created)))?.is_some() {
        created = created + std::time::Duration::from_millis(1);
    }
    let label = stream_label(created);
    store::begin_stream(
        engine.conn(),
        &NewStream {
            arn: &arn(&label),
            table,
            label: &label,
            view_type,
            key_schema: &meta.key_schema,
            shards: settings.shards_per_stream,
            created,
        },
    )?;
    engine.storage().enable_stream(table, ENGINE_VIEW_TYPE, &label)?;
    Ok(())
}

fn describe_stream(engine: &Engine, table: &str, description: &mut Value) -> Result<(), ApiError> {
    if let Some(stream) = store::open_stream_of(engine.conn(), table)? {
        description["StreamSpecification"] =
            json!({ "StreamEnabled": true, "StreamViewType": stream.view_type.as_str() });
        description["LatestStreamLabel"] = json!(stream.label);
        description["LatestStreamArn"] = json!(stream.arn);
    }
    Ok(())
}

pub(super) fn arn_prefix(engine: &Engine) -> String {
    format!("arn:aws:dynamodb:{}:{}:", engine.settings().region, engine.settings().account_id)
}

/// Replaces the engine's region and account with the stage's region and account in every ARN of a description.
fn set_arns(engine: &Engine, value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(resource) = text.strip_prefix(ENGINE_ARN_PREFIX) {
                *text = format!("{}{resource}", arn_prefix(engine));
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| set_arns(engine, element)),
        Value::Object(members) => members.values_mut().for_each(|member| set_arns(engine, member)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
