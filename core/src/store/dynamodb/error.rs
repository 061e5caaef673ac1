//! Mapping of failed DynamoDB calls to [`StoreError`]s.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;

use super::codec::Item;
use crate::store::{StoreError, StoreErrorKind};

/// A DynamoDB call that failed for a reason other than its condition.
pub(super) struct Failure {
    kind: StoreErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(super) fn new(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// Converts the failure to an error whose text is `context`, such as `get request acme/ann/r1 in table requests`.
    pub(super) fn in_context(self, context: impl Into<String>) -> StoreError {
        StoreError::new(self.kind, context).with_source(self.source)
    }
}

impl<E> From<SdkError<E>> for Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        Self::new(kind_of(&error), error)
    }
}

/// Converts the failure of an unconditional call to an error. `context` names the operation, the item and the table.
pub(super) fn store_error<E>(context: String, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    Failure::from(error).in_context(context)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the SDK's error enum is non-exhaustive; all variants not named here have the same kind"
)]
fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> StoreErrorKind {
    match error.code() {
        Some(
            "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException"
            | "LimitExceededException",
        ) => StoreErrorKind::Throttled,
        Some(
            "InternalServerError"
            | "ServiceUnavailable"
            | "ReplicatedWriteConflictException"
            | "TransactionConflictException"
            | "TransactionInProgressException",
        ) => StoreErrorKind::Unavailable,
        Some("ItemCollectionSizeLimitExceededException") => StoreErrorKind::TooLarge,
        // DynamoDB has no separate error code for an item above 400 KB: only the message identifies the error.
        Some("ValidationException") if error.message().is_some_and(|text| text.contains("Item size")) => {
            StoreErrorKind::TooLarge
        }
        Some(_) => match error {
            SdkError::ServiceError(service) if service.raw().status().is_server_error() => {
                StoreErrorKind::Unavailable
            }
            _ => StoreErrorKind::Misuse,
        },
        None => match error {
            SdkError::ConstructionFailure(_) => StoreErrorKind::Misuse,
            _ => StoreErrorKind::Unavailable,
        },
    }
}

/// Reason why a conditional write failed.
pub(super) enum Refusal {
    /// The write's condition failed. The value is the existing item, if the call requested it and the item exists.
    Condition(Option<Item>),
    /// The call failed for a reason other than its condition.
    Other(Failure),
}

macro_rules! refusal_of {
    ($($error:ident)*) => {$(
        impl From<SdkError<$error>> for Refusal {
            fn from(error: SdkError<$error>) -> Self {
                match error.as_service_error() {
                    Some($error::ConditionalCheckFailedException(failed)) => Self::Condition(failed.item.clone()),
                    _ => Self::Other(error.into()),
                }
            }
        }
    )*};
}

refusal_of!(DeleteItemError PutItemError UpdateItemError);

/// A cancelled transaction has one cancellation reason per write. Only the first write of our transactions has a
/// condition.
impl From<SdkError<TransactWriteItemsError>> for Refusal {
    fn from(error: SdkError<TransactWriteItemsError>) -> Self {
        let reasons = reasons(&error);
        if let Some(failed) = reasons.first().filter(|reason| reason.code() == Some("ConditionalCheckFailed"))
        {
            return Self::Condition(failed.item.clone());
        }
        let kind = reasons.iter().find_map(|reason| match reason.code()? {
            "TransactionConflict" => Some(StoreErrorKind::Unavailable),
            "ProvisionedThroughputExceeded" | "ThrottlingError" => Some(StoreErrorKind::Throttled),
            "ItemCollectionSizeLimitExceeded" => Some(StoreErrorKind::TooLarge),
            "ValidationError" if reason.message()?.contains("Item size") => Some(StoreErrorKind::TooLarge),
            _ => None,
        });
        Self::Other(Failure::new(kind.unwrap_or_else(|| kind_of(&error)), error))
    }
}

fn reasons(error: &SdkError<TransactWriteItemsError>) -> &[CancellationReason] {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons()
        }
        _ => &[],
    }
}
