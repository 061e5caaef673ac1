use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ErrorBody, ErrorCode, MAX_FRAME_BYTES};
use crate::ids::RequestId;

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The client's own name for the request.
    pub id: Option<RequestId>,
    /// What is asked for.
    pub action: String,
    /// What it is asked with; null where the client sent nothing.
    pub payload: Value,
    /// What the client wants to have kept with the request.
    pub metadata: BTreeMap<String, String>,
}

/// A message that was refused, and the request it was about, as far as it said.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedMessage {
    /// The request's id, if the message has a usable one.
    pub id: Option<RequestId>,
    /// What is wrong with the message.
    pub error: ErrorBody,
}

impl Message {
    /// The longest action, in characters.
    pub const MAX_ACTION_CHARS: usize = 128;

    /// Reads a message; unknown keys are ignored.
    ///
    /// # Errors
    /// When the text is too large, is not a JSON object, or has no usable action or id: the error
    /// says what would be right.
    pub fn parse(text: &str) -> Result<Self, RejectedMessage> {
        if text.len() > MAX_FRAME_BYTES {
            let message =
                format!("The message has {} bytes; at most {MAX_FRAME_BYTES} are taken", text.len());
            return Err(RejectedMessage {
                id: None,
                error: ErrorBody::new(ErrorCode::PayloadTooLarge, message),
            });
        }
        let mut object: Map<String, Value> = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                let found = json_type(&other);
                return Err(rejected(None, format!("The message must be a JSON object, and is {found}")));
            }
            Err(error) => return Err(rejected(None, format!("The message is not valid JSON: {error}"))),
        };
        let id = take_id(&mut object)?;
        let action = match take_action(&mut object) {
            Ok(action) => action,
            Err(message) => return Err(rejected(id, message)),
        };
        let metadata = match take_metadata(&mut object) {
            Ok(metadata) => metadata,
            Err(message) => return Err(rejected(id, message)),
        };
        let payload = object.remove("payload").unwrap_or(Value::Null);
        Ok(Self { id, action, payload, metadata })
    }
}

fn take_id(object: &mut Map<String, Value>) -> Result<Option<RequestId>, RejectedMessage> {
    let id = match object.remove("id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(id)) if id.is_empty() => return Ok(None),
        Some(Value::String(id)) => id,
        Some(other) => {
            return Err(rejected(None, format!("\"id\" must be a string, and is {}", json_type(&other))));
        }
    };
    RequestId::parse(&id).map(Some).map_err(|problem| rejected(None, format!("\"id\" {problem}")))
}

fn take_action(object: &mut Map<String, Value>) -> Result<String, String> {
    match object.remove("action") {
        Some(Value::String(action)) if action.is_empty() => Err("\"action\" must not be empty".into()),
        Some(Value::String(action)) if action.chars().count() > Message::MAX_ACTION_CHARS => {
            Err(format!("\"action\" must have at most {} characters", Message::MAX_ACTION_CHARS))
        }
        Some(Value::String(action)) => Ok(action),
        None | Some(Value::Null) => Err("\"action\" is missing: it names what is asked for".into()),
        Some(other) => Err(format!("\"action\" must be a string, and is {}", json_type(&other))),
    }
}

/// Values that are no strings keep their JSON text: the Go system's own client sends `true` here.
fn take_metadata(object: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    match object.remove("metadata") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => Ok(entries
            .into_iter()
            .map(|(key, value)| match value.as_str() {
                Some(text) => (key, text.to_owned()),
                None => (key, value.to_string()),
            })
            .collect()),
        Some(other) => {
            Err(format!("\"metadata\" must be an object of strings, and is {}", json_type(&other)))
        }
    }
}

fn rejected(id: Option<RequestId>, message: impl Into<String>) -> RejectedMessage {
    RejectedMessage { id, error: ErrorBody::new(ErrorCode::ValidationError, message) }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_of_the_go_systems_client_is_read() {
        let text = r#"{"id":"req-1","action":"process_data","payload":{"dataset_id":"d"},
            "metadata":{"client_version":"1.0.0","demo_client":true},"type":"request","extra":[1]}"#;
        let message = Message::parse(text).unwrap();
        assert_eq!(message.id, Some("req-1".into()));
        assert_eq!(message.action, "process_data");
        assert_eq!(message.payload, json!({"dataset_id": "d"}));
        assert_eq!(message.metadata["client_version"], "1.0.0");
        assert_eq!(message.metadata["demo_client"], "true");
    }

    #[test]
    fn what_a_client_may_leave_out_is_empty() {
        let message = Message::parse(r#"{"action":"ping","id":null,"metadata":null}"#).unwrap();
        let empty =
            Message { id: None, action: "ping".into(), payload: Value::Null, metadata: BTreeMap::new() };
        assert_eq!(message, empty);
        assert_eq!(Message::parse(r#"{"action":"ping","id":""}"#).unwrap(), empty);
    }

    #[test]
    fn every_bad_message_is_refused_with_what_is_wrong() {
        let long_id = format!(r#"{{"action":"a","id":"{}"}}"#, "x".repeat(129));
        let long_action = format!(r#"{{"id":"r1","action":"{}"}}"#, "x".repeat(129));
        let nested = format!(r#"{{"id":"r1","action":"a","payload":{}"#, "[".repeat(10_000));
        let refused = [
            "",
            "hello",
            "[1]",
            "null",
            "{}",
            r#"{"id":"r1"}"#,
            r#"{"id":"r1","action":""}"#,
            r#"{"id":"r1","action":7}"#,
            r#"{"id":{"a":1},"action":"a"}"#,
            r#"{"id":"a\u0007b","action":"a"}"#,
            r#"{"id":"r1","action":"a","metadata":[]}"#,
            &long_id,
            &long_action,
            &nested,
        ];
        let report: Vec<String> = refused
            .iter()
            .map(|text| {
                let rejected = Message::parse(text).unwrap_err();
                assert_eq!(rejected.error.code, ErrorCode::ValidationError);
                let shown: String = text.chars().take(48).collect();
                let id = rejected.id.map_or("-".into(), |id| id.to_string());
                format!("{shown} => [{id}] {}", rejected.error.message)
            })
            .collect();
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn a_message_above_128_kib_is_too_large_and_one_at_the_limit_is_not() {
        let shell = r#"{"action":"a","payload":""}"#;
        let of_bytes = |n: usize| shell.replace("\"\"", &format!("\"{}\"", "x".repeat(n - shell.len())));
        assert!(Message::parse(&of_bytes(MAX_FRAME_BYTES)).is_ok());
        let error = Message::parse(&of_bytes(MAX_FRAME_BYTES + 1)).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Message::parse(&text);
        }

        #[test]
        fn no_object_makes_the_parser_panic(
            id in "\"?\\PC{0,10}\"?", action in "\"?[a-z]{0,10}\"?", payload in "[\\[\\]{}\",:0-9a]{0,30}",
        ) {
            let _ = Message::parse(&format!(r#"{{"id":{id},"action":{action},"payload":{payload}}}"#));
        }
    }
}
