//! Waiting for the background tasks of an event source mapping.

use std::future::pending;
use std::panic::resume_unwind;

use tokio::task::JoinSet;

/// Waits until one of `tasks` ends, and returns the task's result. Never returns if `tasks` is empty.
///
/// A panic in a task is resumed in the caller. Otherwise the mapping would silently stop delivering records.
pub(super) async fn next_ended<T: 'static>(tasks: &mut JoinSet<T>) -> T {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => return result,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
    pending().await
}
