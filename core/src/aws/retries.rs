//! Retries for DynamoDB errors that the SDK does not retry by default, such as conflicts with transactions.

use aws_sdk_dynamodb::config::interceptors::InterceptorContext;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;

/// Retry classifier that retries writes and transactions that conflict with another transaction, and transactions
/// that are throttled. The SDK's standard classifiers do not retry these errors.
///
/// A retry of a transaction sends the same client request token. If an earlier try has succeeded, DynamoDB
/// recognizes the token, and does not execute the transaction a second time. If the earlier try was cancelled,
/// DynamoDB executes the transaction.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RetryTransactions;

impl ClassifyRetry for RetryTransactions {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(error)) = context.output_or_error() else { return RetryAction::NoActionIndicated };
        let Some(error) = error.as_operation_error() else { return RetryAction::NoActionIndicated };
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.downcast_ref() {
            return after_cancellation(cancelled.cancellation_reasons());
        }
        let codes = [
            error.downcast_ref::<PutItemError>().and_then(ProvideErrorMetadata::code),
            error.downcast_ref::<UpdateItemError>().and_then(ProvideErrorMetadata::code),
            error.downcast_ref::<DeleteItemError>().and_then(ProvideErrorMetadata::code),
        ];
        if codes.contains(&Some("TransactionConflictException")) {
            RetryAction::transient_error()
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "transaction conflicts"
    }
}

/// Returns the retry action for a transaction that was cancelled for these reasons, one reason per write.
///
/// A transaction with a failed condition or an invalid value is not retried, because another try would fail too.
fn after_cancellation(reasons: &[CancellationReason]) -> RetryAction {
    let mut action = RetryAction::NoActionIndicated;
    for reason in reasons {
        match reason.code() {
            None | Some("None") => {}
            Some("TransactionConflict") if action == RetryAction::NoActionIndicated => {
                action = RetryAction::transient_error();
            }
            Some("TransactionConflict") => {}
            Some("ProvisionedThroughputExceeded" | "ThrottlingError") => {
                action = RetryAction::throttling_error();
            }
            Some(_) => return RetryAction::NoActionIndicated,
        }
    }
    action
}
