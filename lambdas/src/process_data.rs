//! Demo action `process_data`: reads a dataset page by page, with progress.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// Handler of `process_data`, which reads a generated dataset page by page, drops invalid and duplicate
/// records, and returns statistics of the remaining records.
#[derive(Debug)]
pub struct ProcessData;

/// Payload of a `process_data` request.
#[derive(Debug, Deserialize)]
pub struct Job {
    /// Id of the dataset, from which its records are generated.
    dataset_id: String,
    /// Operation on each record. Default `transform`.
    #[serde(default)]
    operation: Operation,
    /// Number of records in the dataset. Default 50,000, at most 1,000,000.
    #[serde(default = "default_records")]
    records: u32,
}

/// Operation that `process_data` applies to the value of each record.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Divides each value by 1,000.
    #[default]
    Transform,
    /// Uses each value unchanged.
    Aggregate,
}

/// Result of a `process_data` request: counts and statistics of the records.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Id of the dataset, from the payload.
    dataset_id: String,
    /// Number of records that were read.
    records: u32,
    /// Number of records that are neither invalid nor duplicates.
    valid: u32,
    /// Number of records whose value is out of range.
    invalid: u32,
    /// Number of records whose id had appeared before.
    duplicates: u32,
    /// Mean of the values of the valid records.
    mean: f64,
    /// Sample standard deviation of the values of the valid records; 0 for fewer than two records.
    standard_deviation: f64,
}

const fn default_records() -> u32 {
    50_000
}

/// Number of records per page.
const PAGE: u32 = 1_000;

impl Handler for ProcessData {
    type Input = Job;
    type Output = Summary;

    fn validate(&self, input: &Job) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if input.dataset_id.is_empty() {
            errors.push(FieldError::new("dataset_id", "must not be empty"));
        }
        if !(1..=1_000_000).contains(&input.records) {
            errors.push(FieldError::new(
                "records",
                format!("must be from 1 to 1000000, not {}", input.records),
            ));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Returns more than the router's threshold for queueing (default 5 s), because only queued requests report
    /// progress.
    fn estimated_duration(&self, input: &Job) -> Duration {
        Duration::from_secs(6) + Duration::from_millis(50) * input.records.div_ceil(PAGE)
    }

    async fn process(&self, input: Job, context: Context) -> Result<Summary, HandlerError> {
        let Job { dataset_id, operation, records } = input;
        context.progress.set_metadata("dataset_id", &dataset_id)?;
        let mut numbers = Numbers::named(&dataset_id);
        let mut seen = HashSet::new();
        let (mut invalid, mut duplicates, mut valid) = (0, 0, 0_u32);
        let (mut mean, mut squares) = (0.0, 0.0);
        let mut done = 0;
        while done < records {
            page_latency().await;
            for _ in 0..PAGE.min(records - done) {
                let (id, raw) = (numbers.below(u64::from(records) * 20), numbers.below(10_500));
                if raw >= 10_000 {
                    invalid += 1;
                } else if !seen.insert(id) {
                    duplicates += 1;
                } else {
                    valid += 1;
                    let value = match operation {
                        Operation::Transform => raw as f64 / 1_000.0,
                        Operation::Aggregate => raw as f64,
                    };
                    // Welford's method computes mean and variance in one pass, without large sums that lose
                    // precision.
                    let delta = value - mean;
                    mean += delta / f64::from(valid);
                    squares += delta * (value - mean);
                }
                done += 1;
            }
            context.progress.set_metadata("processed", done)?;
            let percentage = f64::from(done) / f64::from(records) * 100.0;
            context.progress.report(percentage, format!("Processed {done} of {records} records"))?;
        }
        let standard_deviation = if valid > 1 { (squares / f64::from(valid - 1)).sqrt() } else { 0.0 };
        Ok(Summary { dataset_id, records, valid, invalid, duplicates, mean, standard_deviation })
    }
}
