//! Which of DynamoDB's refusals are worth another try, beyond those that the SDK knows.

use aws_sdk_dynamodb::config::interceptors::InterceptorContext;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;

/// Retries what a transaction stands in the way of: another write of its item, and a transaction that meets another
/// or is throttled. The SDK alone gives up on each of them at once.
///
/// A retried transaction keeps its client request token. DynamoDB remembers what succeeded under one; what was
/// cancelled is run anew.
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
        "transactions in the way"
    }
}

/// What to do after a transaction was cancelled for these reasons, one for each of its writes: a condition that
/// failed, or a value that is not taken, is no better the next time.
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
