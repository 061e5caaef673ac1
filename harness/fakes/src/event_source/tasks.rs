//! Waiting for tasks that run for as long as their owner.

use std::future::pending;
use std::panic::resume_unwind;

use tokio::task::JoinSet;

/// Waits until one of `tasks` ends, and gives its result. A panic in a task panics here as well: a mapping that stood still
/// without a word would be harder to explain.
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
