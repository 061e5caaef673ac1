//! `ClientRequestToken`: for ten minutes, a transaction repeated under its token is answered without being run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use streamer::ports::Timestamp;

use super::engine::{Engine, read};
use super::error::ApiError;

/// How long DynamoDB remembers a token after the request that used it ended.
const WINDOW: Duration = Duration::from_secs(600);

const MAX_TOKEN_LENGTH: usize = 36;

/// Transactions that succeeded, by operation and token.
#[derive(Debug, Default)]
pub(super) struct ClientTokens(BTreeMap<(String, String), Remembered>);

#[derive(Debug)]
struct Remembered {
    ended: Timestamp,
    /// The canonical JSON of what was asked, since another payload under the same token is an error.
    payload: String,
    answer: Vec<u8>,
}

/// Runs `TransactWriteItems` or `ExecuteTransaction`, or repeats the answer that its token already has.
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
    let tokens = &mut engine.client_tokens().0;
    tokens.retain(|_, remembered| now.since(remembered.ended) < WINDOW);
    let key = (operation.to_owned(), token);
    match tokens.get(&key) {
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
    engine.client_tokens().0.insert(key, Remembered { ended: now, payload, answer: answer.clone() });
    Ok(answer)
}
