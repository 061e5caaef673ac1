//! `process_data`: a dataset, read page by page.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// `process_data`: reads a dataset page by page, drops what is invalid or double, and sums up the rest.
#[derive(Debug)]
pub struct ProcessData;

/// What `process_data` is asked with.
#[derive(Debug, Deserialize)]
pub struct Job {
    dataset_id: String,
    #[serde(default)]
    operation: Operation,
    /// How many records the dataset has. Default 50,000, at most 1,000,000.
    #[serde(default = "default_records")]
    records: u32,
}

/// What is done with each record.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Values are scaled to thousandths.
    #[default]
    Transform,
    /// Values are taken as they are.
    Aggregate,
}

/// What `process_data` answers with.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    dataset_id: String,
    records: u32,
    valid: u32,
    invalid: u32,
    duplicates: u32,
    mean: f64,
    standard_deviation: f64,
}

const fn default_records() -> u32 {
    50_000
}

const PAGE: u32 = 1_000;

impl Handler for ProcessData {
    type Input = Job;
    type Output = Summary;

    fn validate(&self, input: &Job) -> Result<(), Vec<FieldError>> {
        let mut wrong = Vec::new();
        if input.dataset_id.is_empty() {
            wrong.push(FieldError::new("dataset_id", "must not be empty"));
        }
        if !(1..=1_000_000).contains(&input.records) {
            wrong.push(FieldError::new(
                "records",
                format!("must be from 1 to 1000000, and is {}", input.records),
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Always above the router's threshold: whoever processes a dataset wants to watch it.
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
                    // Welford's method: one pass, and no large sums.
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
