//! Parses and writes the JSON of DynamoDB's protocol.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Parses a request. The error for a malformed request has the type that DynamoDB would return.
pub(super) fn read<T: DeserializeOwned>(operation: &str, body: &[u8]) -> Result<T, ApiError> {
    // Serde's derived decoders also accept a JSON array of the members in order, which DynamoDB refuses.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::serialization(None));
    }
    serde_json::from_slice(body).map_err(|error| {
        if !error.is_data() {
            return ApiError::serialization(None);
        }
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _position)| message);
        classify(operation, text)
    })
}

/// Converts a decoding error to the error that DynamoDB would return.
///
/// The engine's decoders put the error type at the start of the message, such as `VALIDATION:`.
fn classify(operation: &str, text: &str) -> ApiError {
    match text.split_once(':') {
        Some(("VALIDATION" | "VALIDATION_AS_READ", message)) => ApiError::validation(message),
        Some(("VALIDATION_REQUEST", message)) => {
            if matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem") {
                ApiError::validation(&format!("1 validation error detected: {message}"))
            } else {
                ApiError::validation(message)
            }
        }
        Some(("SERIALIZATION" | "SERIALIZATION_AS_READ", message)) => {
            ApiError::serialization((!message.is_empty()).then_some(message))
        }
        _ if text.starts_with("invalid type") => ApiError::serialization(Some(text)),
        _ => ApiError::validation(text),
    }
}

pub(super) fn write<T: Serialize>(answer: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(answer).map_err(|error| ApiError::internal(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_a_decoding_error_decides_its_dynamodb_error_type() {
        let error = |operation: &str, text: &str| classify(operation, text).to_string();
        let validation = error("PutItem", "VALIDATION_REQUEST:too much");
        assert!(validation.contains("validate#ValidationException"), "{validation}");
        assert!(validation.contains("1 validation error detected: too much"), "{validation}");
        assert!(error("Query", "VALIDATION_REQUEST:too much").contains(r#""message":"too much""#));
        assert!(error("Query", "VALIDATION:none").contains(r#""message":"none""#));
        assert!(error("Query", "SERIALIZATION:not a list").contains(r#""Message":"not a list""#));
        let bare = r#"{"__type":"com.amazon.coral.service#SerializationException"}"#;
        assert_eq!(error("Query", "SERIALIZATION:"), bare);
        assert!(error("Query", "invalid type: map, expected a string").contains("SerializationException"));
        assert!(error("Query", "missing field `TableName`").contains("ValidationException"));
    }
}
