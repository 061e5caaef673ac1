//! Reads event source mappings: a function's `DynamoDB` events, and `AWS::Lambda::EventSourceMapping`.

use std::time::Duration;

use serde_json::Value;

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::diagnostics::Place;
use super::events::StreamEvent;
use super::fields::{Fields, Reader};
use super::function::{Function, function_name};
use super::node::Kind;
use super::queue::Queue;
use super::resource::{EVENT_SOURCE_MAPPING, Resource, of_type};
use super::table::Table;

/// Lambda's maximum number of filters for one mapping.
const MAX_FILTERS: usize = 5;

/// Maximum number of concurrent readers of one shard. DynamoDB throttles additional readers.
const MAX_READERS: usize = 2;

/// An event source mapping: reads a table's stream in batches and invokes a function with each batch.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSourceMapping {
    /// Name of the function that is invoked with the batches.
    pub function: String,
    /// Name of the table whose stream is read.
    pub table: String,
    /// Maximum number of records in a batch: 1 to 10,000. Default: 100.
    pub batch_size: u32,
    /// Maximum wait for a batch to fill up: 0 to 300 s. Default: 0.
    pub maximum_batching_window: Duration,
    /// Position in the stream at which a new mapping starts.
    pub starting_position: StartingPosition,
    /// Maximum number of concurrent batches of one shard: 1 to 10. Default: 1.
    pub parallelization_factor: u32,
    /// Maximum number of retries of a batch: 0 to 10,000; `None` to retry until the records expire.
    pub maximum_retry_attempts: Option<u32>,
    /// Maximum age of a record. Older records are skipped; `None` for no limit.
    pub maximum_record_age: Option<Duration>,
    /// True if a failed batch is split in two before the retry.
    pub bisect_batch_on_function_error: bool,
    /// True if the function's reply lists the failed records (`ReportBatchItemFailures`).
    pub report_batch_item_failures: bool,
    /// Patterns of `FilterCriteria`. A record is delivered if it matches at least one pattern, or if there
    /// are no patterns.
    pub filter_patterns: Vec<Value>,
    /// ARN of the destination for reports about batches that are no longer retried; `None` if there is no
    /// destination.
    pub on_failure: Option<String>,
    /// True if the mapping is enabled. A disabled mapping reads no records.
    pub enabled: bool,
}

/// Position in a stream at which a new mapping starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StartingPosition {
    /// The oldest record that the stream still holds.
    TrimHorizon,
    /// The first record written after the mapping was created.
    Latest,
}

/// Reads the event source mappings that are declared as events of functions or as separate resources.
pub(super) fn read(
    resources: &[Resource<'_>],
    events: Vec<StreamEvent>,
    functions: &[Function],
    tables: &[Table],
    queues: &[Queue],
    reader: &mut Reader<'_>,
) -> Vec<EventSourceMapping> {
    let mut mappings = Vec::new();
    for StreamEvent { function, mut properties } in events {
        let table = stream_table(&mut properties, "Stream", tables, reader);
        let place = properties.place.clone();
        mappings.extend(mapping(properties, Some(function), table, queues, reader));
        too_many_readers(&mappings, &place, reader);
    }
    for resource in of_type(resources, EVENT_SOURCE_MAPPING) {
        let Some(mut properties) = resource.properties(reader) else { continue };
        let table = stream_table(&mut properties, "EventSourceArn", tables, reader);
        let called = properties.required_text("FunctionName", "the name or ARN of a function", reader);
        let function = called.as_deref().and_then(|called| {
            let function = functions.iter().find(|function| function.name == function_name(called));
            if function.is_none() {
                let message = format!("the template has no function {called:?}");
                reader.report.problem(&properties.place("FunctionName"), message);
            }
            function.map(|function| function.name.clone())
        });
        let place = properties.place.clone();
        mappings.extend(mapping(properties, function, table, queues, reader));
        too_many_readers(&mappings, &place, reader);
    }
    mappings
}

/// Reports a finding if the last of `mappings` exceeds the maximum number of readers of its stream.
fn too_many_readers(mappings: &[EventSourceMapping], place: &Place, reader: &mut Reader<'_>) {
    let Some(latest) = mappings.last() else { return };
    let readers = mappings.iter().filter(|mapping| mapping.enabled && mapping.table == latest.table).count();
    if latest.enabled && readers > MAX_READERS {
        let message = format!(
            "this mapping is reader {readers} of the stream of table {}; AWS throttles more than \
             {MAX_READERS} readers, the local stage does not",
            latest.table
        );
        reader.report.finding(place, NotEmulated, message);
    }
}

/// Returns the name of the table whose stream ARN is the value of `property`.
fn stream_table(
    fields: &mut Fields,
    property: &'static str,
    tables: &[Table],
    reader: &mut Reader<'_>,
) -> Option<String> {
    let before = reader.report.problems.len();
    let node = fields.node(property, reader);
    let place = fields.place(property);
    let Some(node) = node else {
        if reader.report.problems.len() == before {
            reader.report.problem(
                &place,
                "required, but missing; expected a stream ARN such as !GetAtt RequestsTable.StreamArn",
            );
        }
        return None;
    };
    let table = match &node.kind {
        Kind::StreamArn(id) => tables.iter().find(|table| table.logical_id == *id),
        Kind::Scalar(arn) => {
            let name = arn
                .split(":table/")
                .nth(1)
                .and_then(|rest| rest.split_once("/stream/"))
                .map(|(name, _)| name);
            tables.iter().find(|table| name == Some(table.name.as_str()))
        }
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    };
    match table {
        Some(table) if table.layout.stream.is_some() => Some(table.name.clone()),
        Some(table) => {
            let message =
                format!("table {} has no stream; add a StreamSpecification to the table", table.logical_id);
            reader.report.problem(&place, message);
            None
        }
        None => {
            let message =
                format!("expected the stream ARN of a table in this template, found {}", node.describe());
            reader.report.problem(&place, message);
            None
        }
    }
}

fn mapping(
    mut fields: Fields,
    function: Option<String>,
    table: Option<String>,
    queues: &[Queue],
    reader: &mut Reader<'_>,
) -> Option<EventSourceMapping> {
    let batch_size = fields.count("BatchSize", "records", 1..=10_000, reader).unwrap_or(100);
    let window = fields.count("MaximumBatchingWindowInSeconds", "seconds", 0..=300, reader).unwrap_or(0);
    let parallelization_factor =
        fields.count("ParallelizationFactor", "batches", 1..=10, reader).unwrap_or(1);
    let retries = fields.number("MaximumRetryAttempts", "attempts (-1: no limit)", -1..=10_000, reader);
    let age = fields.number("MaximumRecordAgeInSeconds", "seconds (-1: no limit)", -1..=604_800, reader);
    if let Some(age @ 0..60) = age {
        let message = format!("expected -1 (no limit) or 60 to 604800 seconds, found {age}");
        reader.report.problem(&fields.place("MaximumRecordAgeInSeconds"), message);
    }
    let starting_position = starting_position(&mut fields, reader);
    let bisect = fields.flag("BisectBatchOnFunctionError", reader).unwrap_or(false);
    let enabled = fields.flag("Enabled", reader).unwrap_or(true);
    let report_batch_item_failures = response_types(&mut fields, reader);
    let filter_patterns = filter_patterns(&mut fields, reader);
    let on_failure = on_failure(&mut fields, queues, reader);
    fields.finish(
        &[
            ("KmsKeyArn", Harmless, "nothing is encrypted locally"),
            ("MetricsConfig", Harmless, "there are no metrics locally"),
            ("Tags", Harmless, "tags have no effect locally"),
        ],
        reader,
    );
    Some(EventSourceMapping {
        function: function?,
        table: table?,
        batch_size,
        maximum_batching_window: Duration::from_secs(window.into()),
        starting_position: starting_position?,
        parallelization_factor,
        maximum_retry_attempts: retries.and_then(|retries| u32::try_from(retries).ok()),
        maximum_record_age: age.and_then(|age| u64::try_from(age).ok()).map(Duration::from_secs),
        bisect_batch_on_function_error: bisect,
        report_batch_item_failures,
        filter_patterns,
        on_failure,
        enabled,
    })
}

fn starting_position(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<StartingPosition> {
    match fields.required_text("StartingPosition", "TRIM_HORIZON or LATEST", reader)?.as_str() {
        "TRIM_HORIZON" => Some(StartingPosition::TrimHorizon),
        "LATEST" => Some(StartingPosition::Latest),
        other => {
            let message = format!("expected TRIM_HORIZON or LATEST, found {other:?}");
            reader.report.problem(&fields.place("StartingPosition"), message);
            None
        }
    }
}

fn response_types(fields: &mut Fields, reader: &mut Reader<'_>) -> bool {
    let mut reports = false;
    for node in fields.list("FunctionResponseTypes", reader) {
        if node.scalar() == Some("ReportBatchItemFailures") {
            reports = true;
        } else {
            let message = format!("expected ReportBatchItemFailures, found {}", node.describe());
            reader.report.problem(&node.place, message);
        }
    }
    reports
}

fn filter_patterns(fields: &mut Fields, reader: &mut Reader<'_>) -> Vec<Value> {
    let mut patterns = Vec::new();
    let Some(mut criteria) = fields.fields("FilterCriteria", reader) else { return patterns };
    let filters = criteria.list("Filters", reader);
    if filters.len() > MAX_FILTERS {
        let message = format!("expected at most {MAX_FILTERS} filters, found {}", filters.len());
        reader.report.problem(&criteria.place("Filters"), message);
    }
    criteria.finish(&[], reader);
    for node in filters {
        let Some(mut filter) = Fields::of(&node, reader) else { continue };
        if let Some(text) = filter.required_text("Pattern", "a text that holds a JSON object", reader) {
            match serde_json::from_str::<Value>(&text) {
                Ok(pattern @ Value::Object(_)) => patterns.push(pattern),
                Ok(_) => reader
                    .report
                    .problem(&filter.place("Pattern"), "expected a JSON object, found another JSON value"),
                Err(error) => {
                    reader.report.problem(
                        &filter.place("Pattern"),
                        format!("expected a JSON object, found invalid JSON ({error})"),
                    );
                }
            }
        }
        filter.finish(&[], reader);
    }
    patterns
}

fn on_failure(fields: &mut Fields, queues: &[Queue], reader: &mut Reader<'_>) -> Option<String> {
    let mut config = fields.fields("DestinationConfig", reader)?;
    let destination = config.fields("OnFailure", reader).and_then(|mut on_failure| {
        // `Type` has no local effect: SAM derives only a permission from it, and permissions are not checked
        // locally.
        on_failure.text("Type", reader);
        let destination = on_failure.required_text("Destination", "the ARN of a queue or topic", reader);
        if destination.as_ref().is_some_and(|arn| queues.iter().all(|queue| queue.arn != *arn)) {
            let message =
                "the destination is not a queue of this template; the local stage logs the record instead";
            reader.report.finding(&on_failure.place("Destination"), NotEmulated, message);
        }
        on_failure.finish(&[], reader);
        destination
    });
    config.finish(&[], reader);
    destination
}
