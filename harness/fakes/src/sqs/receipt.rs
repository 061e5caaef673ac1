//! Receipt handles, and the operations on a received message: delete, and change the visibility timeout.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::error::ApiError;
use super::queues::Queues;
use super::state::State;
use super::store::{Queue, Stored};

const MAX_VISIBILITY_SECS: u64 = 43_200;

/// Request to delete a received message, or to change its visibility timeout.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReceiptRequest {
    receipt_handle: String,
    visibility_timeout: Option<u64>,
}

impl Queues {
    /// Deletes a message by the receipt handle of its latest receive. An older handle has no effect and is not an
    /// error.
    pub(super) fn delete(
        &self,
        state: &State,
        queue: &Queue,
        request: &ReceiptRequest,
    ) -> Result<(), ApiError> {
        if let Some(message) = find_by_receipt(state, queue, &request.receipt_handle)? {
            state.store.delete(message.number)?;
        }
        Ok(())
    }

    pub(super) fn change_visibility(
        &self,
        state: &State,
        queue: &Queue,
        request: &ReceiptRequest,
    ) -> Result<(), ApiError> {
        let timeout = request.visibility_timeout.ok_or_else(|| ApiError::missing("VisibilityTimeout"))?;
        let (timeout, now) = (visibility(timeout)?, self.now());
        match find_by_receipt(state, queue, &request.receipt_handle)? {
            Some(message) if message.visible > now => {
                Ok(state.store.set_visible(message.number, now + timeout)?)
            }
            Some(_) | None => Err(ApiError::not_in_flight(&request.receipt_handle)),
        }
    }
}

pub(super) fn visibility(secs: u64) -> Result<Duration, ApiError> {
    if secs > MAX_VISIBILITY_SECS {
        return Err(ApiError::parameter(format!(
            "Value {secs} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200."
        )));
    }
    Ok(Duration::from_secs(secs))
}

/// Returns a new receipt handle, which names the queue, the message's number, and a nonce for this receive.
pub(super) fn receipt(message: &Stored, nonce: &str) -> String {
    BASE64_STANDARD.encode(format!("{}/{}/{nonce}", message.queue, message.number))
}

/// Returns the message whose latest receive has the receipt handle `handle`. `None` if the message was deleted, or was
/// received again later.
fn find_by_receipt(state: &State, queue: &Queue, handle: &str) -> Result<Option<Stored>, ApiError> {
    let number = || {
        let text = String::from_utf8(BASE64_STANDARD.decode(handle).ok()?).ok()?;
        let mut parts = text.split('/');
        let (name, number) = (parts.next()?, parts.next()?.parse::<i64>().ok()?);
        (name == queue.name && parts.next().is_some()).then_some(number)
    };
    let number = number().ok_or_else(|| ApiError::receipt_handle(handle))?;
    let message = state.store.message(number)?;
    Ok(message.filter(|message| message.queue == queue.name && message.handle.as_deref() == Some(handle)))
}
