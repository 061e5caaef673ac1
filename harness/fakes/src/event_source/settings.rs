//! How a mapping behaves, in the words of Lambda's API.

use std::fmt;
use std::time::Duration;

use super::filter::FilterPattern;

/// Where a mapping without a checkpoint starts to read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StartingPosition {
    /// At the oldest record.
    #[default]
    TrimHorizon,
    /// After the newest record.
    Latest,
}

/// How long to wait before the same records are tried again.
///
/// AWS does not document it. With a record age of 60 s and unlimited retries, 8 invocations have been seen: the default
/// is fitted to that. They come after 0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75 and 31.75 s, and a ninth would after 63.75 s.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The first wait (default 250 ms); each further one is twice as long.
    pub initial: Duration,
    /// The longest wait (default 60 s).
    pub maximum: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(250), maximum: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` failed tries in a row, of which there is at least one.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.initial.saturating_mul(factor).min(self.maximum)
    }
}

/// The settings of a mapping, with Lambda's defaults and bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mapping's own id, which names it in logs.
    pub uuid: String,
    /// The function's name.
    pub function: String,
    /// The function's ARN, which failure records carry.
    pub function_arn: String,
    /// The most records in a batch (default 100, 1 to 10,000).
    pub batch_size: usize,
    /// How long to gather a batch (default 0 s, at most 300 s).
    pub maximum_batching_window: Duration,
    /// Where to start to read (default: the oldest record).
    pub starting_position: StartingPosition,
    /// How many batches of one shard may run at once (default 1, at most 10).
    pub parallelization_factor: usize,
    /// How often a failed batch is tried again (default `None`, without end; at most 10,000).
    pub maximum_retry_attempts: Option<u32>,
    /// How old a record may grow (default `None`, for as long as its stream keeps it; 60 s to 7 days, of which the
    /// stream's 24 hours are the most that counts).
    pub maximum_record_age: Option<Duration>,
    /// Whether to split a failed batch in two (default no).
    pub bisect_batch_on_function_error: bool,
    /// Whether the function's reply says which records failed (default no).
    pub report_batch_item_failures: bool,
    /// Which records the function is to see: those that match any of these; without any, all (at most 5).
    pub filters: Vec<FilterPattern>,
    /// Whether filters may use `suffix` and `equals-ignore-case` (default yes): no source settles whether AWS takes
    /// them for streams.
    pub unsettled_operators: bool,
    /// Whether the mapping polls at all (default yes).
    pub enabled: bool,
    /// How often each shard is read (default 250 ms, more than 0).
    pub poll_interval: Duration,
    /// How long to wait between tries.
    pub backoff: Backoff,
}

impl Settings {
    /// Lambda's defaults, for one function.
    #[must_use]
    pub fn new(
        uuid: impl Into<String>,
        function: impl Into<String>,
        function_arn: impl Into<String>,
    ) -> Self {
        Self {
            uuid: uuid.into(),
            function: function.into(),
            function_arn: function_arn.into(),
            batch_size: 100,
            maximum_batching_window: Duration::ZERO,
            starting_position: StartingPosition::TrimHorizon,
            parallelization_factor: 1,
            maximum_retry_attempts: None,
            maximum_record_age: None,
            bisect_batch_on_function_error: false,
            report_batch_item_failures: false,
            filters: Vec::new(),
            unsettled_operators: true,
            enabled: true,
            poll_interval: Duration::from_millis(250),
            backoff: Backoff::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let age = self.maximum_record_age;
        let checks = [
            (
                (1..=10_000).contains(&self.batch_size),
                format!("BatchSize is {}: Lambda takes 1 to 10,000", self.batch_size),
            ),
            (
                self.maximum_batching_window <= Duration::from_secs(300),
                format!(
                    "MaximumBatchingWindowInSeconds is {}: Lambda takes 0 to 300",
                    self.maximum_batching_window.as_secs_f64()
                ),
            ),
            (
                (1..=10).contains(&self.parallelization_factor),
                format!("ParallelizationFactor is {}: Lambda takes 1 to 10", self.parallelization_factor),
            ),
            (
                self.maximum_retry_attempts.is_none_or(|attempts| attempts <= 10_000),
                format!(
                    "MaximumRetryAttempts is {}: Lambda takes -1 to 10,000",
                    self.maximum_retry_attempts.unwrap_or_default()
                ),
            ),
            (
                age.is_none_or(|age| (60..=604_800).contains(&age.as_secs())),
                format!(
                    "MaximumRecordAgeInSeconds is {}: Lambda takes -1, or 60 to 604,800",
                    age.unwrap_or_default().as_secs_f64()
                ),
            ),
            (
                self.filters.len() <= 5,
                format!("FilterCriteria has {} filters: Lambda takes 5", self.filters.len()),
            ),
            (
                self.unsettled_operators || !self.filters.iter().any(FilterPattern::uses_unsettled_operators),
                "FilterCriteria uses suffix or equals-ignore-case, which AWS may not take for streams"
                    .to_owned(),
            ),
            (
                !self.poll_interval.is_zero(),
                "the poll interval is 0 s: anything longer will do, 250 ms as on AWS".to_owned(),
            ),
        ];
        let problems: Vec<_> =
            checks.into_iter().filter(|(right, _)| !*right).map(|(_, problem)| problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { problems }) }
    }
}

/// Which settings Lambda would refuse, all of them at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    problems: Vec<String>,
}

impl SettingsError {
    /// One sentence for each setting to mend.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_row_are_lambdas() {
        let settings = Settings::new("u", "f", "arn");
        assert_eq!(settings.batch_size, 100);
        assert_eq!(settings.maximum_batching_window, Duration::ZERO);
        assert_eq!(settings.maximum_record_age, None);
        assert_eq!(settings.maximum_retry_attempts, None);
        assert_eq!(settings.parallelization_factor, 1);
        assert!(!settings.bisect_batch_on_function_error);
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn every_setting_out_of_bounds_is_reported_at_once() {
        let everything = FilterPattern::parse("{}").unwrap();
        let bad = Settings {
            batch_size: 0,
            maximum_batching_window: Duration::from_secs(301),
            parallelization_factor: 11,
            maximum_retry_attempts: Some(10_001),
            maximum_record_age: Some(Duration::from_secs(59)),
            filters: vec![everything; 6],
            poll_interval: Duration::ZERO,
            ..Settings::new("u", "f", "arn")
        };
        let error = bad.check().unwrap_err();
        let expected = [
            "BatchSize is 0: Lambda takes 1 to 10,000",
            "MaximumBatchingWindowInSeconds is 301: Lambda takes 0 to 300",
            "ParallelizationFactor is 11: Lambda takes 1 to 10",
            "MaximumRetryAttempts is 10001: Lambda takes -1 to 10,000",
            "MaximumRecordAgeInSeconds is 59: Lambda takes -1, or 60 to 604,800",
            "FilterCriteria has 6 filters: Lambda takes 5",
            "the poll interval is 0 s: anything longer will do, 250 ms as on AWS",
        ];
        assert_eq!(error.problems(), expected);
        assert_eq!(error.to_string(), expected.join("\n"));
    }

    #[test]
    fn backoff_row_the_wait_doubles_up_to_its_maximum() {
        let waits = |failures| Backoff::default().after(failures).as_millis();
        assert_eq!(
            [1, 2, 3, 8, 9, 40, u32::MAX].map(waits),
            [250, 500, 1_000, 32_000, 60_000, 60_000, 60_000]
        );
    }
}
