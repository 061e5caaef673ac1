use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::measure::{Failure, Metric};

/// Counts of the requests and failures of a whole run.
///
/// Goose also counts, but by default it resets its counts when the last user has started. Failures before that
/// moment would be lost.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    failed: u64,
    failures: BTreeMap<(&'static str, String), u64>,
}

impl Tally {
    /// Counts one measurement, which failed if `failure` is `Some`.
    pub(crate) fn count(&self, metric: Metric, failure: Option<&Failure>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        if let Some(failure) = failure {
            counts.failed += 1;
            *counts.failures.entry((metric.name(), failure.to_string())).or_default() += 1;
        }
    }

    /// Returns `Ok` if at least one request was measured and none failed.
    pub(crate) fn verdict(&self) -> Result<(), Verdict> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.requests == 0 {
            return Err(Verdict("no request was measured, because no client tried to connect".to_owned()));
        }
        if counts.failed == 0 {
            return Ok(());
        }
        let mut text = format!("{} of {} requests failed:", counts.failed, counts.requests);
        for ((metric, failure), times) in &counts.failures {
            text.push_str(&format!("\n  {times} × {metric}: {failure}"));
        }
        Err(Verdict(text))
    }
}

/// Reason why a run failed: the failures with their counts, or the lack of measurements.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Verdict(String);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Verdict {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_run_succeeds_only_with_measurements_and_without_failures() {
        let tally = Tally::default();
        assert!(tally.verdict().unwrap_err().to_string().starts_with("no request was measured"));
        tally.count(Metric::Echo, None);
        assert_eq!(tally.verdict(), Ok(()));
        tally.count(Metric::Echo, Some(&Failure::new("late")));
        tally.count(Metric::Connect, Some(&Failure::new("refused")));
        tally.count(Metric::Echo, Some(&Failure::new("late")));
        assert_eq!(
            tally.verdict().unwrap_err().to_string(),
            "3 of 4 requests failed:\n  1 × $connect: refused\n  2 × echo: late"
        );
    }
}
