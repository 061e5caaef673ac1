use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::ports::Timestamp;

/// Measurements of one thing that happened, as one line in CloudWatch's embedded metric format.
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
#[must_use = "a line that is not written measures nothing"]
pub struct MetricLine {
    at: Timestamp,
    dimensions: Vec<&'static str>,
    metrics: Vec<Value>,
    /// The values of both, and what is searched for without being a metric.
    members: Map<String, Value>,
}

impl MetricLine {
    /// The CloudWatch namespace of every metric.
    pub const NAMESPACE: &str = "Streamer";
    /// The longest value of a dimension that CloudWatch takes, in bytes.
    const MAX_DIMENSION_BYTES: usize = 1024;

    /// A line about what happened at this time.
    pub fn at(at: Timestamp) -> Self {
        Self { at, dimensions: Vec::new(), metrics: Vec::new(), members: Map::new() }
    }

    /// Counts this apart from other values of `dimension`. Each value that occurs is metrics of its own, which are paid for:
    /// it must come from a small set, and never from a client.
    pub fn by(mut self, dimension: &'static str, value: &str) -> Self {
        // CloudWatch drops the whole line for a value that is empty or is not printable ASCII.
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let value: String = value.trim().chars().map(printable).take(Self::MAX_DIMENSION_BYTES).collect();
        self.dimensions.push(dimension);
        self.members.insert(dimension.into(), if value.is_empty() { "none".into() } else { value.into() });
        self
    }

    /// Adds how many of something there were.
    pub fn count(self, name: &'static str, count: u64) -> Self {
        self.metric(name, "Count", count)
    }

    /// Adds how long something took, in milliseconds.
    pub fn duration(self, name: &'static str, duration: Duration) -> Self {
        self.metric(name, "Milliseconds", u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Adds a fact to search the log by; it makes no metric, and may have any value.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    fn metric(mut self, name: &'static str, unit: &str, value: u64) -> Self {
        self.metrics.push(json!({"Name": name, "Unit": unit}));
        self.members.insert(name.into(), value.into());
        self
    }

    /// The line, without its end.
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

/// Where metrics are written to.
pub trait MetricSink: fmt::Debug + Send + Sync {
    /// Takes a line. It must not wait: what is measured would.
    fn write(&self, line: &MetricLine);
}

/// Standard output, which Lambda hands to CloudWatch.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardOutput;

impl MetricSink for StandardOutput {
    fn write(&self, line: &MetricLine) {
        // Where nobody reads the output, nobody misses the line.
        let _ = writeln!(std::io::stdout().lock(), "{}", line.to_json());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_cloudwatch_makes_metrics_of() {
        let line = MetricLine::at(Timestamp::from_millis(1_700_000_000_123))
            .by("Action", "echo")
            .by("Phase", "routing")
            .count("Calls", 1)
            .duration("Duration", Duration::from_micros(12_900))
            .with("connection", "c1");
        insta::assert_snapshot!(line.to_json(), @r#"{"_aws":{"Timestamp":1700000000123,"CloudWatchMetrics":[{"Namespace":"Streamer","Dimensions":[["Action","Phase"]],"Metrics":[{"Name":"Calls","Unit":"Count"},{"Name":"Duration","Unit":"Milliseconds"}]}]},"Action":"echo","Phase":"routing","Calls":1,"Duration":12,"connection":"c1"}"#);
    }

    #[test]
    fn a_dimension_has_a_value_that_cloudwatch_takes_whatever_it_is_given() {
        for (given, taken) in
            [("", "none"), (" \n ", "none"), ("gelöscht\u{7}", "gel?scht?"), (" a b ", "a b")]
        {
            let line: Value = serde_json::from_str(
                &MetricLine::at(Timestamp::default()).by("Action", given).count("Calls", 1).to_json(),
            )
            .unwrap();
            assert_eq!(line["Action"], taken);
        }
        let longest = MetricLine::at(Timestamp::default()).by("Action", &"x".repeat(5_000));
        assert_eq!(longest.members["Action"].as_str().unwrap().len(), 1024);
    }
}
