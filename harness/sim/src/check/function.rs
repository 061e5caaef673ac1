//! Which of the stage's functions has made a call.

use streamer_fakes::faults::Caller;

/// How the stage's functions are told apart, by their template's names.
pub(super) const SWEEPER: &str = "SweeperFunction";
pub(super) const ROUTER: &str = "RouterFunction";
pub(super) const CONNECT: &str = "ConnectFunction";
pub(super) const DISCONNECT: &str = "DisconnectFunction";
pub(super) const PROCESSOR: &str = "ProcessorFunction";
pub(super) const WORKER: &str = "WorkerFunction";

/// Whether the caller is this function.
pub(super) fn is_of(caller: &Caller, function: &str) -> bool {
    caller.function().ends_with(function)
}

/// Whether the caller is a function that runs requests.
pub(super) fn runs_requests(caller: &Caller) -> bool {
    is_of(caller, PROCESSOR) || is_of(caller, WORKER)
}

/// Whether what a function calls is in the budget of requests: the sweeper looks around whether there are any or not.
pub(super) fn pays(caller: &Caller) -> bool {
    [ROUTER, PROCESSOR, WORKER].iter().any(|function| is_of(caller, function))
}
