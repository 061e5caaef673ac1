//! What happens to a function in process amid an invocation: it dies, or stands still.

use std::future::{pending, poll_fn};
use std::task::Poll;

use bytes::Bytes;
use tokio::time::sleep;

use super::invoke::{Invocation, InvokeError};
use crate::faults::{CallContext, Caller, Effect, Faults, MidwayFault};

/// Runs an invocation up to the await at which `midway_fault` comes to pass, and on from there if it goes on. It does not where
/// `caller` has died, or stands still for good: whoever runs it sees to that.
pub(super) async fn with_midway_fault(
    mut invocation: Invocation<'_>,
    caller: &Caller,
    faults: &Faults,
    midway_fault: MidwayFault,
) -> Result<Bytes, InvokeError> {
    let (Effect::KillMidway { awaits } | Effect::Freeze { awaits, .. } | Effect::Hang { awaits }) =
        midway_fault.effect
    else {
        return invocation.await;
    };
    let mut left = awaits;
    let ended = poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        match invocation.as_mut().poll(context) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending => {
                left -= 1;
                if left == 0 { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    });
    if let Some(reply) = ended.await {
        return reply;
    }
    if !faults.inject_midway(&midway_fault, CallContext::INVOKE, &format!("{caller:?}")) {
        return invocation.await;
    }
    match midway_fault.effect {
        Effect::Freeze { time, .. } => {
            caller.freeze();
            tokio::select! {
                biased;
                // Somebody may have it go on before.
                () = caller.running() => {}
                () = sleep(time) => caller.thaw(),
            }
        }
        Effect::Hang { .. } => {
            caller.freeze();
            caller.running().await;
        }
        // The others do not happen amid an invocation.
        Effect::KillMidway { .. }
        | Effect::Throttle
        | Effect::Fail
        | Effect::FailAfterApply
        | Effect::LoseAnswer
        | Effect::Delay(_)
        | Effect::Conflict
        | Effect::Stale(_)
        | Effect::Gone
        | Effect::Deny
        | Effect::Duplicate
        | Effect::Kill
        | Effect::Skew(_) => {
            caller.kill();
            pending().await
        }
    }
    invocation.await
}
