//! What happens to records that a mapping gives up on.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::batch::Item;
use crate::aws_format::iso_8601;
use crate::destination::Destination;

/// Where failure records go: a mapping's on-failure destination.
pub trait OnFailure: fmt::Debug + Send + Sync {
    /// Takes the record of one batch that was given up on.
    fn give_up(&self, record: FailureRecord);
}

/// Writes failure records to the log, for a stage without a destination.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFailures;

impl OnFailure for LogFailures {
    fn give_up(&self, record: FailureRecord) {
        let text = serde_json::to_string(&record).unwrap_or_else(|error| error.to_string());
        tracing::error!(record = text, "stream records were given up on");
    }
}

/// Sends failure records to a queue, as Lambda does. One that cannot be sent is logged.
#[derive(Clone, Debug)]
pub struct SendFailures {
    destination: Arc<dyn Destination>,
    arn: String,
}

impl SendFailures {
    /// To what `arn` names at `destination`.
    #[must_use]
    pub fn new(destination: Arc<dyn Destination>, arn: impl Into<String>) -> Self {
        Self { destination, arn: arn.into() }
    }
}

impl OnFailure for SendFailures {
    fn give_up(&self, record: FailureRecord) {
        let sent = serde_json::to_string(&record)
            .map_err(|error| error.to_string())
            .and_then(|text| self.destination.send(&self.arn, text).map_err(|error| error.to_string()));
        if let Err(error) = sent {
            tracing::error!(error, "a failure record cannot be sent");
            LogFailures.give_up(record);
        }
    }
}

/// The message that Lambda sends to an SQS queue for a batch that it gave up on. The records themselves are
/// not in it: they are still in the stream, under the sequence numbers given.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureRecord {
    /// The invocation that failed last.
    pub request_context: RequestContext,
    /// What the function answered; absent when the records were not tried because of their age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_context: Option<ResponseContext>,
    /// Always `1.0`.
    pub version: String,
    /// When the batch was given up on, in ISO 8601.
    pub timestamp: String,
    /// Where the records are found.
    #[serde(rename = "DDBStreamBatchInfo")]
    pub batch_info: BatchInfo,
}

/// The `requestContext` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestContext {
    /// The id of the last invocation, which is the one that the function saw.
    pub request_id: String,
    /// The function.
    pub function_arn: String,
    /// Why the records were given up on.
    pub condition: Condition,
    /// How often the function was invoked with them.
    pub approximate_invoke_count: u32,
}

/// Why records were given up on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Condition {
    /// They failed once more than they may be retried.
    RetryAttemptsExhausted,
    /// They grew older than they may.
    RecordAgeExceeded,
}

/// The `responseContext` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseContext {
    /// The status of the invocation, 200.
    pub status_code: u16,
    /// The version that ran, `$LATEST`.
    pub executed_version: String,
    /// `Unhandled`, or nothing when the function itself reported the failures.
    pub function_error: Option<String>,
}

/// The `DDBStreamBatchInfo` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchInfo {
    /// The shard.
    pub shard_id: String,
    /// The first record.
    pub start_sequence_number: String,
    /// The last record.
    pub end_sequence_number: String,
    /// When the first record was written, in ISO 8601.
    pub approximate_arrival_of_first_record: String,
    /// When the last record was written, in ISO 8601.
    pub approximate_arrival_of_last_record: String,
    /// How many records there are.
    pub batch_size: usize,
    /// The stream.
    pub stream_arn: String,
}

impl BatchInfo {
    /// Describes `items`, if there are any.
    pub(super) fn of(shard: &str, items: &[Item]) -> Option<Self> {
        let (first, last) = (items.first()?, items.last()?);
        Some(Self {
            shard_id: shard.to_owned(),
            start_sequence_number: first.sequence_number.clone(),
            end_sequence_number: last.sequence_number.clone(),
            approximate_arrival_of_first_record: iso_8601(first.approximate_creation),
            approximate_arrival_of_last_record: iso_8601(last.approximate_creation),
            batch_size: items.len(),
            stream_arn: first.stream_arn.clone(),
        })
    }
}
