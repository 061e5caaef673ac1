//! Identifies the function that made a call.

use streamer_fakes::faults::Caller;

// Suffixes of the functions' names in `lambdas/template.yaml`.
pub(super) const SWEEPER: &str = "SweeperFunction";
pub(super) const ROUTER: &str = "RouterFunction";
pub(super) const CONNECT: &str = "ConnectFunction";
pub(super) const DISCONNECT: &str = "DisconnectFunction";
pub(super) const PROCESSOR: &str = "ProcessorFunction";
pub(super) const WORKER: &str = "WorkerFunction";

/// Returns true if the caller is the function with this name suffix.
pub(super) fn is_of(caller: &Caller, function: &str) -> bool {
    caller.function().ends_with(function)
}

/// Returns whether the caller is the processor or the worker, which run requests.
pub(super) fn runs_requests(caller: &Caller) -> bool {
    is_of(caller, PROCESSOR) || is_of(caller, WORKER)
}

/// Returns true if the caller's calls count against the cost budget of the requests. The sweeper's calls do
/// not count, because the sweeper polls even if there are no requests.
pub(super) fn is_billed(caller: &Caller) -> bool {
    [ROUTER, PROCESSOR, WORKER].iter().any(|function| is_of(caller, function))
}
