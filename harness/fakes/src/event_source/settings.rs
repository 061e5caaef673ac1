//! Settings of an event source mapping, with the names, defaults and bounds of Lambda's API.

use std::fmt;
use std::time::Duration;

use super::filter::FilterPattern;

/// Position in the stream at which a mapping without a checkpoint starts to read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StartingPosition {
    /// The mapping starts with the oldest record of each shard.
    #[default]
    TrimHorizon,
    /// The mapping starts after the newest record of each shard.
    Latest,
}

/// Exponential backoff between two invocations with the same records.
///
/// AWS does not document the backoff. With a maximum record age of 60 s and unlimited retries, 8 invocations have
/// been observed on AWS, and the default matches this number. The 8 invocations take place after 0, 0.25, 0.75, 1.75,
/// 3.75, 7.75, 15.75 and 31.75 s; a ninth would take place after 63.75 s.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// Delay before the first retry; default 250 ms. The delay doubles with each further retry.
    pub initial: Duration,
    /// Maximum delay before a retry; default 60 s.
    pub maximum: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(250), maximum: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// Returns the delay before the next retry, after `failures` consecutive failures (at least 1).
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.initial.saturating_mul(factor).min(self.maximum)
    }
}

/// Settings of an event source mapping.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Id of the event source mapping, which identifies the mapping in logs.
    pub uuid: String,
    /// Name of the function that the mapping invokes.
    pub function: String,
    /// ARN of the function, which the mapping puts into failure records.
    pub function_arn: String,
    /// Maximum number of records in a batch: 1 to 10,000; default 100.
    pub batch_size: usize,
    /// Maximum time to gather records for a batch: 0 to 300 s; default 0 s.
    pub maximum_batching_window: Duration,
    /// Position in the stream at which a new mapping starts; default [`StartingPosition::TrimHorizon`], the oldest
    /// record.
    pub starting_position: StartingPosition,
    /// Maximum number of batches of one shard that are processed concurrently: 1 to 10; default 1.
    pub parallelization_factor: usize,
    /// Maximum number of retries of a failed batch: 0 to 10,000; the default `None` means no limit.
    pub maximum_retry_attempts: Option<u32>,
    /// Maximum age of a record, from 60 s to 7 days; the mapping drops older records. The default `None` means the
    /// stream's retention of 24 hours, which is the effective maximum in any case.
    pub maximum_record_age: Option<Duration>,
    /// Whether a failed batch is split in two before it is retried; default `false`.
    pub bisect_batch_on_function_error: bool,
    /// Whether the function's reply lists the failed records of a batch (`ReportBatchItemFailures`); default
    /// `false`.
    pub report_batch_item_failures: bool,
    /// Filters, at most 5. The function receives the records that match at least one filter. Without filters, which
    /// is the default, the function receives all records.
    pub filters: Vec<FilterPattern>,
    /// Whether filters may use the operators `suffix` and `equals-ignore-case`; default `true`. No source states
    /// whether AWS supports these operators for streams.
    pub undocumented_operators: bool,
    /// Whether the mapping polls the stream; default `true`. A disabled mapping does nothing.
    pub enabled: bool,
    /// Interval between two reads of a shard, more than 0; default 250 ms.
    pub poll_interval: Duration,
    /// Backoff between two invocations with the same records; see [`Backoff`] for the default.
    pub backoff: Backoff,
}

impl Settings {
    /// Creates settings for one function, with Lambda's defaults.
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
            undocumented_operators: true,
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
                format!("BatchSize is {}; expected 1 to 10,000", self.batch_size),
            ),
            (
                self.maximum_batching_window <= Duration::from_secs(300),
                format!(
                    "MaximumBatchingWindowInSeconds is {}; expected 0 to 300",
                    self.maximum_batching_window.as_secs_f64()
                ),
            ),
            (
                (1..=10).contains(&self.parallelization_factor),
                format!("ParallelizationFactor is {}; expected 1 to 10", self.parallelization_factor),
            ),
            (
                self.maximum_retry_attempts.is_none_or(|attempts| attempts <= 10_000),
                format!(
                    "MaximumRetryAttempts is {}; expected -1 to 10,000",
                    self.maximum_retry_attempts.unwrap_or_default()
                ),
            ),
            (
                age.is_none_or(|age| (60..=604_800).contains(&age.as_secs())),
                format!(
                    "MaximumRecordAgeInSeconds is {}; expected -1, or 60 to 604,800",
                    age.unwrap_or_default().as_secs_f64()
                ),
            ),
            (
                self.filters.len() <= 5,
                format!("FilterCriteria has {} filters; expected at most 5", self.filters.len()),
            ),
            (
                self.undocumented_operators
                    || !self.filters.iter().any(FilterPattern::uses_undocumented_operators),
                "FilterCriteria uses suffix or equals-ignore-case, which AWS may not support for streams"
                    .to_owned(),
            ),
            (
                !self.poll_interval.is_zero(),
                "poll interval is 0 s; expected more than 0 s, such as 250 ms as on AWS".to_owned(),
            ),
        ];
        let problems: Vec<_> =
            checks.into_iter().filter(|(valid, _)| !*valid).map(|(_, problem)| problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { problems }) }
    }
}

/// Error that lists all invalid settings of an event source mapping.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    problems: Vec<String>,
}

impl SettingsError {
    /// Returns one message for each invalid setting.
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
    fn default_event_source_mapping_settings_equal_the_defaults_of_lambda() {
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
    fn all_event_source_mapping_settings_out_of_bounds_are_reported_together() {
        let match_all = FilterPattern::parse("{}").unwrap();
        let bad = Settings {
            batch_size: 0,
            maximum_batching_window: Duration::from_secs(301),
            parallelization_factor: 11,
            maximum_retry_attempts: Some(10_001),
            maximum_record_age: Some(Duration::from_secs(59)),
            filters: vec![match_all; 6],
            poll_interval: Duration::ZERO,
            ..Settings::new("u", "f", "arn")
        };
        let error = bad.check().unwrap_err();
        let expected = [
            "BatchSize is 0; expected 1 to 10,000",
            "MaximumBatchingWindowInSeconds is 301; expected 0 to 300",
            "ParallelizationFactor is 11; expected 1 to 10",
            "MaximumRetryAttempts is 10001; expected -1 to 10,000",
            "MaximumRecordAgeInSeconds is 59; expected -1, or 60 to 604,800",
            "FilterCriteria has 6 filters; expected at most 5",
            "poll interval is 0 s; expected more than 0 s, such as 250 ms as on AWS",
        ];
        assert_eq!(error.problems(), expected);
        assert_eq!(error.to_string(), expected.join("\n"));
    }

    #[test]
    fn backoff_of_an_event_source_mapping_doubles_up_to_its_maximum() {
        let delay = |failures| Backoff::default().after(failures).as_millis();
        assert_eq!(
            [1, 2, 3, 8, 9, 40, u32::MAX].map(delay),
            [250, 500, 1_000, 32_000, 60_000, 60_000, 60_000]
        );
    }
}
