//! Decodes batches of stream records, and encodes the response to a batch.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::RequestKey;
use crate::store::Runner;
use crate::store::dynamodb::request_item::{KEY, PART, REQUEST_PART, WORKER};

/// A batch of DynamoDB stream records, as the event source mapping passes it to the processor.
///
/// Each record is decoded separately, so that an undecodable record does not affect the other records.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamBatch {
    #[serde(rename = "Records")]
    records: Vec<Value>,
}

/// The response to a batch of stream records, in the format of Lambda's `ReportBatchItemFailures`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// The records that the event source mapping must deliver again.
    pub batch_item_failures: Vec<BatchItemFailure>,
}

/// A stream record that the event source mapping must deliver again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// The record's sequence number. Empty if the record has none; Lambda then treats the whole batch as
    /// failed.
    pub item_identifier: String,
}

/// A decoded stream record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Decoded {
    /// The record of a write to a request. `runner` is the function that the written item names.
    Request { sequence_number: String, key: RequestKey, runner: Runner },
    /// A record that requires no work, such as the record of a deletion.
    Ignored,
    /// A record that does not have the expected format. `problem` names the faulty field.
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

/// The new image (the item after the write) of a stream record. Only the attribute `runner` is decoded, because
/// the claim checks all other attributes in the stored item.
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
    pub(super) fn into_records(self) -> impl Iterator<Item = Decoded> {
        self.records.into_iter().map(decode)
    }
}

fn decode(record: Value) -> Decoded {
    let sequence_number =
        record.pointer("/dynamodb/SequenceNumber").and_then(Value::as_str).unwrap_or_default().to_owned();
    match serde_path_to_error::deserialize::<_, Record>(record) {
        Ok(Record { event_name, dynamodb: Change { keys, new_image } })
            if event_name != "REMOVE" && keys.part.text == REQUEST_PART =>
        {
            let runner = new_image.and_then(|image| image.runner);
            let is_for_worker = runner.is_some_and(|runner| runner["S"] == WORKER);
            let runner = if is_for_worker { Runner::Worker } else { Runner::Processor };
            Decoded::Request { sequence_number, key: RequestKey::from_stored(keys.request_id.text), runner }
        }
        Ok(_) => Decoded::Ignored,
        Err(error) => {
            let problem = format!("{}: {} (expected the keys {KEY} and {PART})", error.path(), error.inner());
            Decoded::Undecodable { sequence_number, problem }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode_one(record: Value) -> Decoded {
        let batch: StreamBatch = serde_json::from_value(json!({"Records": [record]})).unwrap();
        batch.into_records().next().unwrap()
    }

    #[test]
    fn stream_record_is_decoded_from_its_event_name_and_keys() {
        let record = |event: &str, part: &str| {
            json!({"eventName": event, "dynamodb": {
                "Keys": {"request_id": {"S": "acme/ann/r1"}, "part": {"S": part}}, "SequenceNumber": "1",
            }})
        };
        let request = Decoded::Request {
            sequence_number: "1".into(),
            key: RequestKey::from_stored("acme/ann/r1"),
            runner: Runner::Processor,
        };
        assert_eq!(decode_one(record("INSERT", "request")), request);
        assert_eq!(decode_one(record("MODIFY", "request")), request);
        assert_eq!(decode_one(record("REMOVE", "request")), Decoded::Ignored);
        assert_eq!(decode_one(record("INSERT", "payload")), Decoded::Ignored);
    }

    #[test]
    fn stream_record_decoder_reads_only_the_runner_from_a_new_image() {
        let runner = |image: Value| {
            let decoded = decode_one(json!({"eventName": "MODIFY", "dynamodb": {
                "Keys": {"request_id": {"S": "acme/ann/r1"}, "part": {"S": "request"}}, "SequenceNumber": "1",
                "NewImage": image,
            }}));
            let Decoded::Request { runner, .. } = decoded else { panic!("{decoded:?}") };
            runner
        };
        assert_eq!(runner(json!({"runner": {"S": "worker"}, "status": 7})), Runner::Worker);
        for other in [json!({}), json!(null), json!({"runner": {"S": "unknown"}}), json!({"runner": 1})] {
            assert_eq!(
                runner(other),
                Runner::Processor,
                "a missing or unknown runner counts as the processor"
            );
        }
    }

    #[test]
    fn error_for_an_undecodable_stream_record_names_the_faulty_field() {
        let decoded = decode_one(json!({"eventName": "INSERT", "dynamodb": {
            "Keys": {"request_id": {"N": "1"}, "part": {"S": "request"}}, "SequenceNumber": "7",
        }}));
        let Decoded::Undecodable { sequence_number, problem } = decoded else { panic!("{decoded:?}") };
        assert_eq!(sequence_number, "7");
        assert!(problem.starts_with("dynamodb.Keys.request_id: missing field `S`"), "{problem}");
        assert!(
            matches!(decode_one(json!(3)), Decoded::Undecodable { sequence_number, .. } if sequence_number.is_empty())
        );
    }

    #[test]
    fn batch_response_has_the_format_of_report_batch_item_failures() {
        let failures = vec![BatchItemFailure { item_identifier: "7".into() }];
        let response = serde_json::to_value(BatchResponse { batch_item_failures: failures }).unwrap();
        assert_eq!(response, json!({"batchItemFailures": [{"itemIdentifier": "7"}]}));
    }
}
