//! The ports on DynamoDB: one table for connections, one for requests, one for shared rate limits.

mod codec;
#[doc(hidden)]
pub mod connection_item;
mod connections;
mod index;
#[doc(hidden)]
pub mod part_item;
#[doc(hidden)]
pub mod rate_limit_item;
mod rate_limits;
#[doc(hidden)]
pub mod request_item;
mod requests;
mod stream_image;
#[cfg(test)]
pub(crate) mod test_answers;

#[doc(hidden)]
pub use codec::{Corrupt, Item};
pub use connections::DynamoConnectionStore;
pub use rate_limits::DynamoRateLimits;
pub use requests::{DynamoRequestQueue, QueueSettings};
#[doc(hidden)]
pub use stream_image::{InvalidImage, item_of_image};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;

use super::{StoreError, StoreErrorKind};

/// What an SDK call's failure means, apart from a failed condition, which each call reads itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enum is open: what is not named is alike")]
fn store_error<E>(context: String, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let kind = match error.code() {
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
        // DynamoDB has no code of its own for an item above 400 KB, only this text.
        Some("ValidationException") if error.message().is_some_and(|text| text.contains("Item size")) => {
            StoreErrorKind::TooLarge
        }
        Some(_) => match &error {
            SdkError::ServiceError(service) if service.raw().status().is_server_error() => {
                StoreErrorKind::Unavailable
            }
            _ => StoreErrorKind::Misuse,
        },
        None => match &error {
            SdkError::ConstructionFailure(_) => StoreErrorKind::Misuse,
            _ => StoreErrorKind::Unavailable,
        },
    };
    StoreError::new(kind, context).with_source(error)
}

/// Why a conditional write was refused.
enum Refusal<E> {
    /// Its condition failed, on this item, where the call asked for it.
    Condition(Option<Item>),
    /// Another reason.
    Other(SdkError<E>),
}

macro_rules! refusal_of {
    ($($error:ident)*) => {$(
        impl From<SdkError<$error>> for Refusal<$error> {
            fn from(error: SdkError<$error>) -> Self {
                match error.as_service_error() {
                    Some($error::ConditionalCheckFailedException(failed)) => Self::Condition(failed.item.clone()),
                    _ => Self::Other(error),
                }
            }
        }
    )*};
}

refusal_of!(DeleteItemError PutItemError UpdateItemError);
