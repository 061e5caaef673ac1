//! What was found wrong.

use std::collections::BTreeSet;
use std::fmt;

use streamer::ports::Timestamp;

use crate::event::BEGIN;

/// Something that must not be, and was.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Violation {
    /// Which rule was broken, such as `2: a terminal state never changes`.
    pub rule: String,
    /// When it showed, on the world's clock.
    pub at: Timestamp,
    /// The request that it is about, if it is about one, as `tenant/user/id`.
    pub request: Option<String>,
    /// What was seen.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, request, message } = self;
        let at = at.since(BEGIN).as_secs_f64();
        write!(f, "{rule}, at {at:.3} s")?;
        if let Some(request) = request {
            write!(f, ", of {request}")?;
        }
        write!(f, ": {message}")
    }
}

/// What was found wrong: of one request the first break of each rule, which is what the others follow from.
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
