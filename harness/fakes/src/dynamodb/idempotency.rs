//! Handles `ClientRequestToken`. A transaction that is repeated with the same token within ten minutes does not run
//! again: the call returns the first answer.

use serde_json::Value;

use super::client_tokens::{Remembered, Transaction};
use super::engine::Engine;
use super::error::ApiError;
use super::json::read;

const MAX_TOKEN_LENGTH: usize = 36;

/// Runs `TransactWriteItems` or `ExecuteTransaction`, or returns the answer that is remembered for its token.
pub(super) fn call(engine: &mut Engine, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut request: Value = read(operation, body)?;
    let Some(token) = request["ClientRequestToken"].as_str().map(str::to_owned) else {
        return engine.run(operation, body);
    };
    if token.is_empty() || token.len() > MAX_TOKEN_LENGTH {
        let bound = if token.is_empty() { "greater than or equal to 1" } else { "less than or equal to 36" };
        return Err(ApiError::validation(&format!(
            "1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: \
             Member must have length {bound}"
        )));
    }
    let member = if operation == "TransactWriteItems" { "TransactItems" } else { "TransactStatements" };
    let mut payload = request[member].take();
    payload.sort_all_objects();
    let payload = payload.to_string();

    let now = engine.now();
    let transaction = Transaction { operation: operation.to_owned(), token };
    match engine.client_tokens().find(&transaction, now) {
        Some(remembered) if remembered.payload == payload => return Ok(remembered.answer.clone()),
        Some(_) => {
            return Err(ApiError::idempotent_parameter_mismatch(
                "An error occurred (IdempotentParameterMismatchException): the token was used with another \
                 payload",
            ));
        }
        None => {}
    }
    let answer = engine.run(operation, body)?;
    let remembered = Remembered { completed: now, payload, answer: answer.clone() };
    engine.client_tokens().remember(transaction, remembered);
    Ok(answer)
}
