//! Violations of the simulator's rules.

use std::collections::BTreeSet;
use std::fmt;

use streamer::ports::Timestamp;

use crate::event::BEGIN;

/// A rule that a simulated run broke, with the time and a description of the violation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Violation {
    /// Text of the broken rule, such as `2: a terminal state never changes`, or the name of a user's check. A
    /// leading number is that of the invariant in `ARCHITECTURE.md`.
    pub rule: String,
    /// Time at which the violation was detected, on the run's virtual clock.
    pub at: Timestamp,
    /// Key of the request that broke the rule, as `tenant/user/id`; `None` if the violation concerns no
    /// particular request.
    pub request: Option<String>,
    /// Description of the violation: the observed event or state that the rule forbids.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, request, message } = self;
        let at = at.since(BEGIN).as_secs_f64();
        write!(f, "{rule}, at {at:.3} s")?;
        if let Some(request) = request {
            write!(f, ", request {request}")?;
        }
        write!(f, ": {message}")
    }
}

/// Violations found so far. For each request, only the first violation of each rule is kept, because later
/// violations of the rule usually have the same cause.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) violations: Vec<Violation>,
    known: BTreeSet<(&'static str, Option<String>)>,
}

impl Found {
    pub(super) fn broken(
        &mut self,
        rule: &'static str,
        at: Timestamp,
        request: Option<&str>,
        message: String,
    ) {
        let request = request.map(str::to_owned);
        if self.known.insert((rule, request.clone())) {
            self.violations.push(Violation { rule: rule.to_owned(), at, request, message });
        }
    }
}
