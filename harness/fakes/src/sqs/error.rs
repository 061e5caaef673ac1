//! SQS's errors, in their wire format.

use std::fmt;

use serde_json::json;

use super::response::Response;

/// Error of a call: the error's shape in SQS's JSON protocol, and the error's code in the older query protocol. SDKs
/// report the code unless the code is empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ApiError {
    status: u16,
    shape: &'static str,
    code: &'static str,
    message: String,
}

const SQS: &str = "com.amazonaws.sqs";
const CORAL: &str = "com.amazon.coral.service";

impl ApiError {
    fn new(shape: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, shape, code, message: message.into() }
    }

    pub(super) fn no_queue() -> Self {
        Self::new(
            "QueueDoesNotExist",
            "AWS.SimpleQueueService.NonExistentQueue",
            "The specified queue does not exist.",
        )
    }

    pub(super) fn queue_exists(attribute: &str) -> Self {
        let message = format!(
            "A queue already exists with the same name and a different value for attribute {attribute}"
        );
        Self::new("QueueNameExists", "QueueAlreadyExists", message)
    }

    pub(super) fn purge_in_progress(queue: &str) -> Self {
        let message = format!("Only one PurgeQueue operation on {queue} is allowed every 60 seconds.");
        Self::new("PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", message)
    }

    pub(super) fn receipt_handle(handle: &str) -> Self {
        let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
        Self::new("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", message)
    }

    pub(super) fn not_in_flight(handle: &str) -> Self {
        let message = format!(
            "Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not \
             available for visibility timeout change."
        );
        Self::new("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", message)
    }

    pub(super) fn attribute_name(name: &str) -> Self {
        Self::new("InvalidAttributeName", "InvalidAttributeName", format!("Unknown Attribute {name}."))
    }

    pub(super) fn attribute_value(name: &str) -> Self {
        let message = format!("Invalid value for the parameter {name}.");
        Self::new("InvalidAttributeValue", "InvalidAttributeValue", message)
    }

    pub(super) fn message_contents() -> Self {
        let message = "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | \
                       #xE000 to #xFFFD | #x10000 to #x10FFFF.";
        Self::new("InvalidMessageContents", "InvalidMessageContents", message)
    }

    pub(super) fn empty_batch() -> Self {
        let message = "There should be at least one entry in the request.";
        Self::new("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", message)
    }

    pub(super) fn batch_too_many(entries: usize) -> Self {
        let message = format!("Maximum number of entries per request are 10. You have sent {entries}.");
        let code = "AWS.SimpleQueueService.TooManyEntriesInBatchRequest";
        Self::new("TooManyEntriesInBatchRequest", code, message)
    }

    pub(super) fn batch_id_twice(id: &str) -> Self {
        let code = "AWS.SimpleQueueService.BatchEntryIdsNotDistinct";
        Self::new("BatchEntryIdsNotDistinct", code, format!("Id {id} repeated."))
    }

    pub(super) fn batch_id() -> Self {
        let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can \
                       be at most 80 letters long.";
        Self::new("InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", message)
    }

    pub(super) fn batch_too_long(limit_bytes: usize, bytes: usize) -> Self {
        let message =
            format!("Batch requests cannot be longer than {limit_bytes} bytes. You have sent {bytes} bytes.");
        Self::new("BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", message)
    }

    pub(super) fn unsupported(message: &str) -> Self {
        Self::new("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
    }

    pub(super) fn no_resource(message: &str) -> Self {
        Self::new("ResourceNotFoundException", "ResourceNotFoundException", message)
    }

    pub(super) fn throttled() -> Self {
        Self::new("RequestThrottled", "RequestThrottled", "Rate exceeded.")
    }

    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let message = format!("The request must contain the parameter {parameter}.");
        Self::new("MissingRequiredParameterException", "MissingParameter", message)
    }

    pub(super) fn serialization(message: &str) -> Self {
        Self::new("SerializationException", "", message)
    }

    pub(super) fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", "", "")
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, ..Self::new("InternalFailure", "InternalFailure", message) }
    }

    /// Returns the code that the answer to a batch contains for a failed entry.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the caller caused the error, rather than SQS itself.
    pub(super) const fn is_sender_fault(&self) -> bool {
        self.status < 500
    }

    pub(super) fn into_response(self) -> Response {
        let namespace = match self.shape {
            "InvalidParameterValueException"
            | "MissingRequiredParameterException"
            | "SerializationException"
            | "UnknownOperationException"
            | "InternalFailure" => CORAL,
            _ => SQS,
        };
        let body = json!({ "__type": format!("{namespace}#{}", self.shape), "message": self.message });
        let blame = if self.is_sender_fault() { "Sender" } else { "Receiver" };
        let query_error = (!self.code.is_empty()).then(|| format!("{};{blame}", self.code));
        Response { status: self.status, body: body.to_string().into(), query_error }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shape, self.message)
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(error.to_string())
    }
}
