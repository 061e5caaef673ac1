use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::RequestKey;
use crate::store::Runner;
use crate::store::dynamodb::request_item::{KEY, PART, REQUEST_PART, WORKER};

/// The records that a DynamoDB stream's event source mapping hands over.
///
/// Each is decoded on its own, so that one that cannot be read costs the others nothing.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamBatch {
    #[serde(rename = "Records")]
    records: Vec<Value>,
}

/// The answer to a batch, as `ReportBatchItemFailures` has it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// The records that must come again.
    pub batch_item_failures: Vec<BatchItemFailure>,
}

/// A record that must come again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// Its sequence number; empty, where it has none, means the whole batch.
    pub item_identifier: String,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// A request was written, which waited for this runner then.
    Request { sequence_number: String, key: RequestKey, runner: Runner },
    /// Nothing that is to be run.
    Nothing,
    /// It cannot be read.
    Undecodable { sequence_number: String, problem: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    dynamodb: Change,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    keys: Keys,
    #[serde(default)]
    new_image: Option<Image>,
}

/// All that is read of an image: whatever else stands in it is decided by the claim.
#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    runner: Option<Value>,
}

#[derive(Deserialize)]
struct Keys {
    request_id: StringAttribute,
    part: StringAttribute,
}

#[derive(Deserialize)]
struct StringAttribute {
    #[serde(rename = "S")]
    text: String,
}

impl StreamBatch {
    pub(super) fn into_records(self) -> impl Iterator<Item = Read> {
        self.records.into_iter().map(read)
    }
}

fn read(record: Value) -> Read {
    let sequence_number =
        record.pointer("/dynamodb/SequenceNumber").and_then(Value::as_str).unwrap_or_default().to_owned();
    match serde_path_to_error::deserialize::<_, Record>(record) {
        Ok(Record { event_name, dynamodb: Change { keys, new_image } })
            if event_name != "REMOVE" && keys.part.text == REQUEST_PART =>
        {
            let runner = new_image.and_then(|image| image.runner);
            let is_for_worker = runner.is_some_and(|runner| runner["S"] == WORKER);
            let runner = if is_for_worker { Runner::Worker } else { Runner::Processor };
            Read::Request { sequence_number, key: RequestKey::from_stored(keys.request_id.text), runner }
        }
        Ok(_) => Read::Nothing,
        Err(error) => {
            let problem = format!("{}: {} (the keys are {KEY} and {PART})", error.path(), error.inner());
            Read::Undecodable { sequence_number, problem }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_one(record: Value) -> Read {
        let batch: StreamBatch = serde_json::from_value(json!({"Records": [record]})).unwrap();
        batch.into_records().next().unwrap()
    }

    #[test]
    fn a_record_is_read_by_its_keys_alone() {
        let record = |event: &str, part: &str| {
            json!({"eventName": event, "dynamodb": {
                "Keys": {"request_id": {"S": "acme/ann/r1"}, "part": {"S": part}}, "SequenceNumber": "1",
            }})
        };
        let request = Read::Request {
            sequence_number: "1".into(),
            key: RequestKey::from_stored("acme/ann/r1"),
            runner: Runner::Processor,
        };
        assert_eq!(read_one(record("INSERT", "request")), request);
        assert_eq!(read_one(record("MODIFY", "request")), request);
        assert_eq!(read_one(record("REMOVE", "request")), Read::Nothing);
        assert_eq!(read_one(record("INSERT", "payload")), Read::Nothing);
    }

    #[test]
    fn an_image_says_who_runs_the_request_and_nothing_else_is_read_of_it() {
        let runner = |image: Value| {
            let read = read_one(json!({"eventName": "MODIFY", "dynamodb": {
                "Keys": {"request_id": {"S": "acme/ann/r1"}, "part": {"S": "request"}}, "SequenceNumber": "1",
                "NewImage": image,
            }}));
            let Read::Request { runner, .. } = read else { panic!("{read:?}") };
            runner
        };
        assert_eq!(runner(json!({"runner": {"S": "worker"}, "status": 7})), Runner::Worker);
        for other in [json!({}), json!(null), json!({"runner": {"S": "else"}}), json!({"runner": 1})] {
            assert_eq!(runner(other), Runner::Processor, "the claim says who is right");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_says_where() {
        let read = read_one(json!({"eventName": "INSERT", "dynamodb": {
            "Keys": {"request_id": {"N": "1"}, "part": {"S": "request"}}, "SequenceNumber": "7",
        }}));
        let Read::Undecodable { sequence_number, problem } = read else { panic!("{read:?}") };
        assert_eq!(sequence_number, "7");
        assert!(problem.starts_with("dynamodb.Keys.request_id: missing field `S`"), "{problem}");
        assert!(
            matches!(read_one(json!(3)), Read::Undecodable { sequence_number, .. } if sequence_number.is_empty())
        );
    }

    #[test]
    fn the_answer_has_the_shape_that_lambda_reads() {
        let failures = vec![BatchItemFailure { item_identifier: "7".into() }];
        let answer = serde_json::to_value(BatchResponse { batch_item_failures: failures }).unwrap();
        assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "7"}]}));
    }
}
