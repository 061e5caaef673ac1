//! Faults in the middle of an invocation of an in-process function: the environment is killed, frozen, or
//! hangs.

use std::future::{pending, poll_fn};
use std::task::Poll;

use bytes::Bytes;
use tokio::time::sleep;

use super::invoke::{Invocation, InvokeError};
use crate::faults::{CallContext, Caller, Effect, Faults, MidwayFault};

/// Runs an invocation, and injects `midway_fault` at the await whose number the fault specifies.
///
/// After a freeze, the invocation continues. If the fault kills or hangs `caller`, this future stays pending.
/// The task that polls the future must drop it when the caller is killed or the timeout is reached.
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
                // The environment may be thawed before `time` has passed.
                () = caller.running() => {}
                () = sleep(time) => caller.thaw(),
            }
        }
        Effect::Hang { .. } => {
            caller.freeze();
            caller.running().await;
        }
        // Only `KillMidway` reaches this arm. For all other effects in this arm, the function has already
        // returned at the top.
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
