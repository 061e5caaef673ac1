//! Connects event source mappings to the streams of the stage's tables.

use super::StageError;
use crate::template;
use streamer_fakes::dynamodb::{DynamoDb, SequenceNumber, ShardId, ShardInfo, Streams};
use streamer_fakes::event_source::{
    FilterPattern, Record, RecordSource, Settings, Shard, SourceError, StartingPosition,
};
use streamer_fakes::watch;

/// Returns `settings` together with the stream of `table`, which the mapping reads.
pub(super) fn of(
    table: &str,
    settings: Settings,
    dynamodb: &DynamoDb,
) -> Result<(Settings, TableStream), StageError> {
    let streams = dynamodb.streams();
    let Some(stream_arn) = streams.latest_stream_arn(table) else {
        return Err(StageError::Mapping(format!(
            "function {} is mapped to the stream of table {table}, but the table has no stream; add a \
             StreamSpecification to the table",
            settings.function
        )));
    };
    let mapping = settings.uuid.clone();
    Ok((settings, TableStream { streams, stream_arn, mapping }))
}

/// Returns the settings of a mapping of the template, together with the stream that the mapping reads.
pub(super) fn of_template(
    mapping: &template::EventSourceMapping,
    dynamodb: &DynamoDb,
) -> Result<(Settings, TableStream), StageError> {
    let filters =
        mapping.filter_patterns.iter().map(FilterPattern::from_value).collect::<Result<_, _>>().map_err(
            |error| {
                StageError::Mapping(format!(
                    "invalid filter pattern in the event source mapping of function {}: {error}",
                    mapping.function
                ))
            },
        )?;
    // Checkpoints are stored under this id, so it must be the same after a restart.
    let uuid = format!("{}/{}", mapping.function, mapping.table);
    let settings = Settings {
        batch_size: usize_from(mapping.batch_size),
        maximum_batching_window: mapping.maximum_batching_window,
        starting_position: match mapping.starting_position {
            template::StartingPosition::TrimHorizon => StartingPosition::TrimHorizon,
            template::StartingPosition::Latest => StartingPosition::Latest,
        },
        parallelization_factor: usize_from(mapping.parallelization_factor),
        maximum_retry_attempts: mapping.maximum_retry_attempts,
        maximum_record_age: mapping.maximum_record_age,
        bisect_batch_on_function_error: mapping.bisect_batch_on_function_error,
        report_batch_item_failures: mapping.report_batch_item_failures,
        filters,
        enabled: mapping.enabled,
        ..Settings::new(uuid, &mapping.function, "")
    };
    of(&mapping.table, settings, dynamodb)
}

fn usize_from(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The stream of one table, as the record source of a mapping.
#[derive(Debug)]
pub(super) struct TableStream {
    streams: Streams,
    stream_arn: String,
    mapping: String,
}

fn failed(error: impl ToString) -> SourceError {
    SourceError::new(error.to_string())
}

fn parse(sequence_number: &str) -> Result<SequenceNumber, SourceError> {
    sequence_number.parse().map_err(failed)
}

impl RecordSource for TableStream {
    fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        let shards = self.streams.shard_infos(&self.stream_arn).map_err(failed)?;
        let name = |id: &ShardId| id.as_str().to_owned();
        let shard = |shard: &ShardInfo| Shard {
            id: name(&shard.id),
            parent: shard.parent.as_ref().map(name),
            closed: shard.closed,
        };
        Ok(shards.iter().map(shard).collect())
    }

    fn read(&self, shard: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, SourceError> {
        let after = after.map(parse).transpose()?;
        let records = self
            .streams
            .read(&self.stream_arn, &ShardId::new(shard), after.as_ref(), limit)
            .map_err(failed)?;
        Ok(records
            .iter()
            .map(|record| Record {
                sequence_number: record.sequence_number.to_string(),
                approximate_creation: record.approximate_creation,
                event: record.to_event_record(),
            })
            .collect())
    }

    fn latest(&self, shard: &str) -> Result<Option<String>, SourceError> {
        Ok(self.streams.latest(&self.stream_arn, &ShardId::new(shard)).map(|number| number.to_string()))
    }

    fn checkpoint(&self, shard: &str) -> Result<Option<String>, SourceError> {
        let checkpoint = self.streams.checkpoint(&self.mapping, &ShardId::new(shard)).map_err(failed)?;
        Ok(checkpoint.map(|number| number.to_string()))
    }

    fn save_checkpoint(&self, shard: &str, sequence_number: &str) -> Result<(), SourceError> {
        let number = parse(sequence_number)?;
        self.streams.save_checkpoint(&self.mapping, &ShardId::new(shard), &number).map_err(failed)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.streams.changes())
    }
}
