//! DynamoDB's errors, in their wire format.

use std::fmt;

use dynoxide::DynoxideError;
use serde_json::{Value, json};

use super::response::Response;

const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810";
const CORAL: &str = "com.amazon.coral.service";

/// Error of a call: the HTTP status and JSON body of the answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: u16,
    body: String,
}

impl ApiError {
    fn new(error_type: &str, message: Option<&str>) -> Self {
        // Among the errors of DynamoDB's front end, only `SerializationException` writes `Message` with a capital M.
        let member = if error_type.ends_with("#SerializationException") { "Message" } else { "message" };
        let mut body = json!({ "__type": error_type });
        if let Some(message) = message {
            body[member] = message.into();
        }
        Self { status: 400, body: body.to_string() }
    }

    /// The error for a missing `x-amz-target` header, or for a header that names an unknown operation.
    pub(super) fn unknown_operation() -> Self {
        Self::new(&format!("{CORAL}#UnknownOperationException"), None)
    }

    /// The error for a body that is not a JSON object, or that has a member of the wrong type. `message` is `None` if
    /// the body is not a JSON object, because DynamoDB then sends no message.
    pub(super) fn serialization(message: Option<&str>) -> Self {
        Self::new(&format!("{CORAL}#SerializationException"), message)
    }

    pub(super) fn validation(message: &str) -> Self {
        Self::new("com.amazon.coral.validate#ValidationException", Some(message))
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::new(&format!("{DYNAMODB}#ResourceNotFoundException"), Some(message))
    }

    pub(super) fn expired_iterator() -> Self {
        Self::new(&format!("{DYNAMODB}#ExpiredIteratorException"), Some("Iterator expired."))
    }

    pub(super) fn trimmed_data_access(message: &str) -> Self {
        Self::new(&format!("{DYNAMODB}#TrimmedDataAccessException"), Some(message))
    }

    pub(super) fn idempotent_parameter_mismatch(message: &str) -> Self {
        Self::new(&format!("{DYNAMODB}#IdempotentParameterMismatchException"), Some(message))
    }

    /// The error for a throttled call. `reasons` are pairs of a throttling reason and the throttled resource's ARN.
    pub(super) fn throttling(message: &str, reasons: &[(String, String)]) -> Self {
        Self::new("com.amazon.coral.availability#ThrottlingException", Some(message))
            .with("throttlingReasons", reasons)
    }

    pub(super) fn provisioned_throughput_exceeded(message: &str, reasons: &[(String, String)]) -> Self {
        Self::new(&format!("{DYNAMODB}#ProvisionedThroughputExceededException"), Some(message))
            .with("ThrottlingReasons", reasons)
    }

    fn with(self, member: &str, reasons: &[(String, String)]) -> Self {
        let mut body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        if !reasons.is_empty() {
            body[member] = reasons
                .iter()
                .map(|(reason, resource)| json!({ "reason": reason, "resource": resource }))
                .collect();
        }
        Self { body: body.to_string(), ..self }
    }

    pub(super) fn transaction_conflict(message: &str) -> Self {
        Self::new(&format!("{DYNAMODB}#TransactionConflictException"), Some(message))
    }

    /// The error for a transaction in which every action was refused for the same reason.
    pub(super) fn transaction_canceled(actions: usize, code: &str, message: &str) -> Self {
        let codes = vec![code; actions].join(", ");
        let text = format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
        );
        let reasons = vec![json!({ "Code": code, "Message": message }); actions];
        let error_type = format!("{DYNAMODB}#TransactionCanceledException");
        // `TransactionCanceledException` also writes `Message` with a capital M.
        let body = json!({ "__type": error_type, "Message": text, "CancellationReasons": reasons });
        Self { status: 400, body: body.to_string() }
    }

    pub(super) fn request_too_large(limit_bytes: usize) -> Self {
        let message = format!("Request body is larger than {limit_bytes} bytes");
        Self { status: 413, ..Self::new(&format!("{CORAL}#RequestEntityTooLargeException"), Some(&message)) }
    }

    pub(super) fn internal(message: &str) -> Self {
        Self { status: 500, ..Self::new(&format!("{DYNAMODB}#InternalServerError"), Some(message)) }
    }

    /// Returns the error's name without its namespace, such as `ValidationException`.
    pub(super) fn name(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let error_type = body["__type"].as_str().unwrap_or_default();
        error_type.rsplit('#').next().unwrap_or_default().to_owned()
    }

    pub(super) fn into_response(self) -> Response {
        Response { status: self.status, body: self.body.into() }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.body)
    }
}

impl From<DynoxideError> for ApiError {
    fn from(error: DynoxideError) -> Self {
        Self { status: error.status_code(), body: error.to_json() }
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(&error.to_string())
    }
}
