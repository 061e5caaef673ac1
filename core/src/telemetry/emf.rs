use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::ports::Timestamp;

/// A log line with the metrics of one measured event, in CloudWatch's embedded metric format.
///
/// ```
/// use std::time::Duration;
/// use streamer::ports::Timestamp;
/// use streamer::telemetry::MetricLine;
///
/// let line = MetricLine::at(Timestamp::from_secs(1_700_000_000))
///     .by("Action", "echo")
///     .count("Calls", 1)
///     .duration("Duration", Duration::from_millis(12))
///     .with("connection", "R1kmxcLQtjMCFxw=");
/// assert!(line.to_json().starts_with(r#"{"_aws":{"Timestamp":1700000000000,"#));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a metric line has no effect until a `MetricSink` writes it"]
pub struct MetricLine {
    at: Timestamp,
    dimensions: Vec<&'static str>,
    metrics: Vec<Value>,
    /// Top-level members of the line's JSON object: values of dimensions and metrics, and searchable values that are
    /// not metrics.
    members: Map<String, Value>,
}

impl MetricLine {
    /// CloudWatch namespace of all metrics.
    pub const NAMESPACE: &str = "Streamer";
    /// Maximum length of a dimension value in CloudWatch, in bytes.
    const MAX_DIMENSION_BYTES: usize = 1024;

    /// Creates a line without dimensions and metrics, for a measured event that happened at the time `at`.
    pub fn at(at: Timestamp) -> Self {
        Self { at, dimensions: Vec::new(), metrics: Vec::new(), members: Map::new() }
    }

    /// Adds a dimension, such as `Action`, with its value.
    ///
    /// CloudWatch creates and charges a separate metric for each value of a dimension. So `value` must come from a
    /// small set, and never from a client. Characters that CloudWatch does not accept are replaced by `?`.
    pub fn by(mut self, dimension: &'static str, value: &str) -> Self {
        // If a dimension value is empty or not printable ASCII, CloudWatch ignores all metrics of the line.
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let value: String = value.trim().chars().map(printable).take(Self::MAX_DIMENSION_BYTES).collect();
        self.dimensions.push(dimension);
        self.members.insert(dimension.into(), if value.is_empty() { "none".into() } else { value.into() });
        self
    }

    /// Adds a metric with the unit `Count`.
    pub fn count(self, name: &'static str, count: u64) -> Self {
        self.metric(name, "Count", count)
    }

    /// Adds a metric with the unit `Milliseconds`.
    pub fn duration(self, name: &'static str, duration: Duration) -> Self {
        self.metric(name, "Milliseconds", u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Adds a value that is searchable in the log but is not a metric. Unlike a dimension, it may come from a client.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    fn metric(mut self, name: &'static str, unit: &str, value: u64) -> Self {
        self.metrics.push(json!({"Name": name, "Unit": unit}));
        self.members.insert(name.into(), value.into());
        self
    }

    /// Returns the line as JSON, without a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut line = Map::new();
        line.insert(
            "_aws".into(),
            json!({
                "Timestamp": self.at.as_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": Self::NAMESPACE, "Dimensions": [self.dimensions], "Metrics": self.metrics,
                }],
            }),
        );
        line.extend(self.members.clone());
        Value::Object(line).to_string()
    }
}

/// A destination to which metric lines are written.
pub trait MetricSink: fmt::Debug + Send + Sync {
    /// Writes a metric line. This method must not block, because it would delay the code that is measured.
    fn write(&self, line: &MetricLine);
}

/// The [`MetricSink`] that writes to standard output, which Lambda forwards to CloudWatch Logs.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardOutput;

impl MetricSink for StandardOutput {
    fn write(&self, line: &MetricLine) {
        // Ignored: an error means that standard output is closed, so nobody reads the metrics.
        let _ = writeln!(std::io::stdout().lock(), "{}", line.to_json());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_line_has_the_embedded_metric_format_of_cloudwatch() {
        let line = MetricLine::at(Timestamp::from_millis(1_700_000_000_123))
            .by("Action", "echo")
            .by("Phase", "routing")
            .count("Calls", 1)
            .duration("Duration", Duration::from_micros(12_900))
            .with("connection", "c1");
        insta::assert_snapshot!(line.to_json(), @r#"{"_aws":{"Timestamp":1700000000123,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["Action","Phase"]],"Metrics":[{"Name":"Calls","Unit":"Count"},{"Name":"Duration","Unit":"Milliseconds"}]}]},"Action":"echo","Phase":"routing","Calls":1,"Duration":12,"connection":"c1"}"#);
    }

    #[test]
    fn dimension_value_is_sanitized_to_printable_ascii_of_at_most_1024_bytes() {
        for (given, sanitized) in
            [("", "none"), (" \n ", "none"), ("gelöscht\u{7}", "gel?scht?"), (" a b ", "a b")]
        {
            let line: Value = serde_json::from_str(
                &MetricLine::at(Timestamp::default()).by("Action", given).count("Calls", 1).to_json(),
            )
            .unwrap();
            assert_eq!(line["Action"], sanitized);
        }
        let longest = MetricLine::at(Timestamp::default()).by("Action", &"x".repeat(5_000));
        assert_eq!(longest.members["Action"].as_str().unwrap().len(), 1024);
    }
}
