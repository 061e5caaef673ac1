//! Parses the body of a call.

use serde::de::DeserializeOwned;

use super::error::ApiError;

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(field) => ApiError::missing(field),
            None => ApiError::serialization(&text),
        }
    })
}
