//! The four operations of the DynamoDB Streams API.

use serde::Deserialize;
use serde_json::{Value, json};

use super::iterator::ShardIterator;
use super::record::StreamRecord;
use super::sequence_number::SequenceNumber;
use super::shards::{self, Shard};
use super::store;
use crate::dynamodb::engine::Engine;
use crate::dynamodb::error::ApiError;

/// Maximum number of records in one `GetRecords` answer.
const MAX_RECORDS: usize = 1_000;

/// Maximum total size of the records in one `GetRecords` answer, in bytes.
const MAX_RECORDS_BYTES: u64 = 1024 * 1024;

/// Maximum number of streams in one `ListStreams` answer, and of shards in one `DescribeStream` answer.
const MAX_PAGE: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::dynamodb) struct ListStreams {
    table_name: Option<String>,
    limit: Option<usize>,
    exclusive_start_stream_arn: Option<String>,
}

pub(in crate::dynamodb) fn list_streams(engine: &Engine, request: ListStreams) -> Result<Value, ApiError> {
    let limit = limit(request.limit, MAX_PAGE)?;
    let start = request.exclusive_start_stream_arn.unwrap_or_default();
    let mut streams = store::streams(engine.conn(), engine.now())?;
    streams.retain(|stream| {
        request.table_name.as_ref().is_none_or(|table| *table == stream.table) && stream.arn > start
    });
    let more = streams.len() > limit;
    streams.truncate(limit);
    let mut answer = json!({ "Streams": streams.iter().map(|stream| json!({
        "StreamArn": stream.arn, "TableName": stream.table, "StreamLabel": stream.label,
    })).collect::<Vec<_>>() });
    if let Some(last) = streams.last().filter(|_| more) {
        answer["LastEvaluatedStreamArn"] = json!(last.arn);
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::dynamodb) struct DescribeStream {
    stream_arn: String,
    limit: Option<usize>,
    exclusive_start_shard_id: Option<String>,
}

pub(in crate::dynamodb) fn describe_stream(
    engine: &Engine,
    request: DescribeStream,
) -> Result<Value, ApiError> {
    let limit = limit(request.limit, MAX_PAGE)?;
    let stream = store::readable(engine.conn(), &request.stream_arn, engine.now())?;
    let mut shards = shards::all(engine.conn(), &stream, engine.now())?;
    if let Some(start) = &request.exclusive_start_shard_id {
        let start = shards::by_name(engine.conn(), &stream, start, engine.now())?;
        shards.retain(|shard| shard.number > start.number);
    }
    let page = &shards[..shards.len().min(limit)];
    let key_schema: Value = serde_json::from_str(&stream.key_schema).unwrap_or_default();
    let mut description = json!({
        "StreamArn": stream.arn,
        "StreamLabel": stream.label,
        "StreamStatus": if stream.closed.is_some() { "DISABLED" } else { "ENABLED" },
        "StreamViewType": stream.view_type.as_str(),
        "CreationRequestDateTime": stream.created.as_secs(),
        "TableName": stream.table,
        "KeySchema": key_schema,
        "Shards": page.iter().map(describe_shard).collect::<Vec<_>>(),
    });
    if let Some(last) = page.last().filter(|_| page.len() < shards.len()) {
        description["LastEvaluatedShardId"] = json!(last.id.as_str());
    }
    Ok(json!({ "StreamDescription": description }))
}

fn describe_shard(shard: &Shard) -> Value {
    let mut range = json!({ "StartingSequenceNumber": shard.first.to_string() });
    if let Some(last) = shard.last {
        range["EndingSequenceNumber"] = json!(last.to_string());
    }
    let mut described = json!({ "ShardId": shard.id.as_str(), "SequenceNumberRange": range });
    if let Some(parent) = &shard.parent {
        described["ParentShardId"] = json!(parent.as_str());
    }
    described
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::dynamodb) struct GetShardIterator {
    stream_arn: String,
    shard_id: String,
    shard_iterator_type: ShardIteratorType,
    sequence_number: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ShardIteratorType {
    TrimHorizon,
    Latest,
    AtSequenceNumber,
    AfterSequenceNumber,
}

pub(in crate::dynamodb) fn get_shard_iterator(
    engine: &Engine,
    request: GetShardIterator,
) -> Result<Value, ApiError> {
    let stream = store::readable(engine.conn(), &request.stream_arn, engine.now())?;
    let shard = shards::by_name(engine.conn(), &stream, &request.shard_id, engine.now())?;
    let trimmed = store::trim(engine.conn(), &stream, shard.number, engine.now())?;
    let after = match request.shard_iterator_type {
        ShardIteratorType::TrimHorizon => trimmed,
        ShardIteratorType::Latest => stream.last,
        ShardIteratorType::AtSequenceNumber => sequence_number(&request)?.before(),
        ShardIteratorType::AfterSequenceNumber => sequence_number(&request)?,
    };
    check_not_trimmed(after, trimmed)?;
    let iterator =
        ShardIterator { stream_arn: stream.arn, shard: request.shard_id, after, issued: engine.now() };
    Ok(json!({ "ShardIterator": iterator.encode() }))
}

fn sequence_number(request: &GetShardIterator) -> Result<SequenceNumber, ApiError> {
    let Some(text) = &request.sequence_number else {
        return Err(ApiError::validation(
            "SequenceNumber is required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER",
        ));
    };
    text.parse().map_err(|error| ApiError::validation(&format!("Invalid SequenceNumber {text}: {error}")))
}

fn check_not_trimmed(after: SequenceNumber, trimmed: SequenceNumber) -> Result<(), ApiError> {
    if after < trimmed {
        return Err(ApiError::trimmed_data_access(&format!(
            "The operation attempted to read past the oldest stream record in a shard: the oldest is after \
             {trimmed}"
        )));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::dynamodb) struct GetRecords {
    shard_iterator: String,
    limit: Option<usize>,
}

pub(in crate::dynamodb) fn get_records(engine: &Engine, request: GetRecords) -> Result<Value, ApiError> {
    let now = engine.now();
    let limit = limit(request.limit, MAX_RECORDS)?;
    let mut iterator = ShardIterator::decode(&request.shard_iterator, now)?;
    let stream = store::readable(engine.conn(), &iterator.stream_arn, engine.now())?;
    let shard = shards::by_name(engine.conn(), &stream, &iterator.shard, now)?;
    check_not_trimmed(iterator.after, store::trim(engine.conn(), &stream, shard.number, now)?)?;
    let mut records =
        store::read(engine.conn(), &stream, shard.number, iterator.after, limit, &engine.settings().region)?;
    let mut bytes = 0;
    // The first record is returned even if it exceeds the limit, so that a reader always makes progress.
    let fitting = records.iter().take_while(|record| {
        bytes += record.size_bytes;
        bytes <= MAX_RECORDS_BYTES || bytes == record.size_bytes
    });
    let fitting = fitting.count();
    let at_end = fitting == records.len() && records.len() < limit;
    records.truncate(fitting);

    let mut answer =
        json!({ "Records": records.iter().map(StreamRecord::to_api_record).collect::<Vec<_>>() });
    // Only a closed shard that was read to its end has no next iterator.
    if shard.closed.is_none() || !at_end {
        if let Some(last) = records.last() {
            iterator.after = last.sequence_number;
        }
        iterator.issued = now;
        answer["NextShardIterator"] = json!(iterator.encode());
    }
    Ok(answer)
}

fn limit(limit: Option<usize>, max: usize) -> Result<usize, ApiError> {
    match limit {
        None => Ok(max),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::validation(&format!(
            "1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must \
             have value between 1 and {max}"
        ))),
    }
}
