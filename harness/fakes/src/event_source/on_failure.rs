//! Failure records, which describe the stream records that a mapping stops retrying, and their destinations.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::batch::Item;
use crate::aws_format::iso_8601;
use crate::destination::Destination;

/// The on-failure destination of an event source mapping, which receives failure records.
pub trait OnFailure: fmt::Debug + Send + Sync {
    /// Accepts the failure record of one batch that the mapping has stopped retrying.
    fn give_up(&self, record: FailureRecord);
}

/// Destination that writes failure records to the log, for a mapping without an on-failure destination.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFailures;

impl OnFailure for LogFailures {
    fn give_up(&self, record: FailureRecord) {
        let text = serde_json::to_string(&record).unwrap_or_else(|error| error.to_string());
        tracing::error!(record = text, "stream records failed for good; not retried");
    }
}

/// Destination that sends failure records to a queue or function, as Lambda does. A failure record that cannot be
/// sent is logged.
#[derive(Clone, Debug)]
pub struct SendFailures {
    destination: Arc<dyn Destination>,
    arn: String,
}

impl SendFailures {
    /// Creates a destination that sends failure records through `destination` to the queue or function with this
    /// ARN.
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
            tracing::error!(error, "failure record not sent; logged instead");
            LogFailures.give_up(record);
        }
    }
}

/// Failure record: the message that Lambda sends to an SQS queue when it stops retrying a batch.
///
/// The failure record does not contain the stream records. The stream still contains the records, under the given
/// sequence numbers, until the stream's retention of 24 hours ends.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureRecord {
    /// The last failed invocation, and the reason why the mapping stopped retrying the batch.
    pub request_context: RequestContext,
    /// Response of the last invocation; `None` if the records were dropped because of their age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_context: Option<ResponseContext>,
    /// Version of the failure record's format, always `1.0`.
    pub version: String,
    /// Time in ISO 8601 at which the mapping stopped retrying the batch.
    pub timestamp: String,
    /// Position of the failed records in the stream.
    #[serde(rename = "DDBStreamBatchInfo")]
    pub batch_info: BatchInfo,
}

/// The `requestContext` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestContext {
    /// Request id of the last invocation with the failed records, as the function received the id; empty if the
    /// function was never invoked with the records.
    pub request_id: String,
    /// ARN of the mapping's function.
    pub function_arn: String,
    /// Reason why the mapping stopped retrying the records.
    pub condition: Condition,
    /// Number of invocations of the function with the failed records.
    pub approximate_invoke_count: u32,
}

/// Reason why a mapping stops retrying stream records.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Condition {
    /// The records failed, and all `MaximumRetryAttempts` retries are used up.
    RetryAttemptsExhausted,
    /// The records are older than `MaximumRecordAgeInSeconds` or the stream's retention of 24 hours.
    RecordAgeExceeded,
}

/// The `responseContext` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseContext {
    /// HTTP status of the last invocation, always 200.
    pub status_code: u16,
    /// Version of the function that ran, always `$LATEST`.
    pub executed_version: String,
    /// `Unhandled` if the invocation failed; `None` if the function's reply reported the failed records.
    pub function_error: Option<String>,
}

/// The `DDBStreamBatchInfo` of a failure record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchInfo {
    /// Id of the shard that contains the failed records.
    pub shard_id: String,
    /// Sequence number of the first failed record.
    pub start_sequence_number: String,
    /// Sequence number of the last failed record.
    pub end_sequence_number: String,
    /// Time of the write that produced the first failed record, in ISO 8601.
    pub approximate_arrival_of_first_record: String,
    /// Time of the write that produced the last failed record, in ISO 8601.
    pub approximate_arrival_of_last_record: String,
    /// Number of failed records.
    pub batch_size: usize,
    /// ARN of the stream that contains the failed records.
    pub stream_arn: String,
}

impl BatchInfo {
    /// Returns the batch information of failed records; `None` if `items` is empty.
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
