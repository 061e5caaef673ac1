use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::outline::{BYTE_ORDER_MARK, Outline};
use crate::{ErrorBody, ErrorCode, MAX_FRAME_BYTES, RequestId};

/// What a client sends.
///
/// A text is read as JSON's readers do: of a key that stands twice, the last counts; a number that is no 64-bit
/// integer is a double, and may come out rounded.
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
    /// How deep objects and arrays may lie within one another, the message itself counted.
    pub const MAX_DEPTH: usize = 64;
    /// The most entries that `metadata` may have.
    pub const MAX_METADATA_ENTRIES: usize = 32;
    /// The most bytes that the keys and values of `metadata` may have together.
    pub const MAX_METADATA_BYTES: usize = 2 * 1024;

    /// Reads a message; unknown keys are ignored.
    ///
    /// # Errors
    /// When the text is too large or too deep, is not a JSON object, or has no usable action, id or metadata: the
    /// error says what would be right. It names the request wherever its id can be made out, also where the rest
    /// of the message cannot.
    pub fn parse(text: &str) -> Result<Self, RejectedMessage> {
        let Outline { id, depth } = Outline::of(text);
        let rejected = |error| RejectedMessage { id: id.and_then(|id| RequestId::parse(&id).ok()), error };
        if text.len() > MAX_FRAME_BYTES {
            let message =
                format!("The message has {} bytes; at most {MAX_FRAME_BYTES} are taken", text.len());
            return Err(rejected(ErrorBody::new(ErrorCode::PayloadTooLarge, message)));
        }
        Self::read(text, depth)
            .map_err(|message| rejected(ErrorBody::new(ErrorCode::ValidationError, message)))
    }

    fn read(text: &str, depth: usize) -> Result<Self, String> {
        if text.starts_with(BYTE_ORDER_MARK) {
            return Err("The message begins with a byte order mark: send the JSON alone".into());
        }
        if depth > Self::MAX_DEPTH {
            let most = Self::MAX_DEPTH;
            return Err(format!("The message is nested {depth} levels deep; at most {most} are taken"));
        }
        let mut object: Map<String, Value> = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                return Err(format!("The message must be a JSON object, and is {}", json_type(&other)));
            }
            Err(error) => return Err(format!("The message is not valid JSON: {error}")),
        };
        Ok(Self {
            id: take_id(&mut object)?,
            action: take_action(&mut object)?,
            metadata: take_metadata(&mut object)?,
            payload: object.remove("payload").unwrap_or(Value::Null),
        })
    }
}

fn take_id(object: &mut Map<String, Value>) -> Result<Option<RequestId>, String> {
    match object.remove("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) => {
            RequestId::parse(&id).map(Some).map_err(|problem| format!("\"id\" {problem}"))
        }
        Some(other) => Err(format!("\"id\" must be a string, and is {}", json_type(&other))),
    }
}

fn take_action(object: &mut Map<String, Value>) -> Result<String, String> {
    match object.remove("action") {
        Some(Value::String(action)) if action.is_empty() => Err("\"action\" must not be empty".into()),
        Some(Value::String(action)) if action.chars().count() > Message::MAX_ACTION_CHARS => {
            Err(format!("\"action\" must have at most {} characters", Message::MAX_ACTION_CHARS))
        }
        Some(Value::String(action)) if action.chars().any(char::is_control) => {
            Err("\"action\" must not contain control characters".into())
        }
        Some(Value::String(action)) => Ok(action),
        None | Some(Value::Null) => Err("\"action\" is missing: it names what is asked for".into()),
        Some(other) => Err(format!("\"action\" must be a string, and is {}", json_type(&other))),
    }
}

/// Values that are no strings keep their JSON text: the Go system's own client sends `true` here.
fn take_metadata(object: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let entries = match object.remove("metadata") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            return Err(format!("\"metadata\" must be an object of strings, and is {}", json_type(&other)));
        }
    };
    let (count, most) = (entries.len(), Message::MAX_METADATA_ENTRIES);
    if count > most {
        return Err(format!("\"metadata\" has {count} entries; at most {most} are taken"));
    }
    let metadata: BTreeMap<String, String> = entries
        .into_iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) => (key, text.to_owned()),
            None => (key, value.to_string()),
        })
        .collect();
    let bytes: usize = metadata.iter().map(|(key, text)| key.len() + text.len()).sum();
    let most = Message::MAX_METADATA_BYTES;
    if bytes > most {
        return Err(format!("\"metadata\" has {bytes} bytes of keys and values; at most {most} are taken"));
    }
    Ok(metadata)
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

    fn shown(text: &str) -> String {
        let rejected = Message::parse(text).unwrap_err();
        let start: String = text.chars().take(48).collect();
        let id = rejected.id.map_or("-".into(), |id| id.to_string());
        format!("{start} => [{id}] {}: {}", rejected.error.code, rejected.error.message)
    }

    #[test]
    fn every_bad_message_is_refused_with_what_is_wrong_and_the_id_that_it_names() {
        let long_id = format!(r#"{{"action":"a","id":"{}"}}"#, "x".repeat(129));
        let long_action = format!(r#"{{"id":"r1","action":"{}"}}"#, "x".repeat(129));
        let (deep, closed) = ("[".repeat(10_000), "]".repeat(10_000));
        let nested = format!(r#"{{"action":"a","payload":{deep}{closed},"id":"r1"}}"#);
        let cut_off_deep = format!(r#"{{"id":"r1","action":"a","payload":{deep}"#);
        let many = (0..33).map(|n| format!(r#""k{n}":"v""#)).collect::<Vec<_>>().join(",");
        let many = format!(r#"{{"id":"r1","metadata":{{{many}}},"action":"a"}}"#);
        let much = format!(r#"{{"id":"r1","metadata":{{"k":"{}"}},"action":"a"}}"#, "é".repeat(1_024));
        let large = format!(r#"{{"action":"a","payload":"{}","id":"r1"}}"#, "x".repeat(MAX_FRAME_BYTES));
        let report = [
            "",
            "hello",
            "[1]",
            "null",
            "{}",
            "\u{feff}{\"id\":\"r1\",\"action\":\"a\"}",
            r#"{"id":"r1"}"#,
            r#"{"id":"r1","action":""}"#,
            r#"{"id":"r1","action":7}"#,
            r#"{"id":{"a":1},"action":"a"}"#,
            r#"{"id":"a\u0007b","action":"a"}"#,
            r#"{"id":"\ud800","action":"a"}"#,
            r#"{"id":"r1","action":"\udc00"}"#,
            r#"{"id":"r1","action":"a","payload":1e400}"#,
            r#"{"id":"r1","action":"a","payload":NaN}"#,
            r#"{"id":"r1","action":"a","payload":01}"#,
            r#"{"id":"r1","action":"a"} {}"#,
            r#"{"id":"r1","id":[],"action":"a"}"#,
            r#"{"id":"r1","action":"a","metadata":[]}"#,
            r#"{"id":"r1","action":"a","payload":{"#,
            r#"{"id":"r1","action":"#,
            r#"{"id":"r1","action":"a\u0007b"}"#,
            &long_id,
            &long_action,
            &nested,
            &cut_off_deep,
            &many,
            &much,
            &large,
        ]
        .map(shown);
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn what_is_odd_and_yet_json_is_taken_as_jsons_readers_take_it() {
        let deepest = format!(r#"{{"action":"a","payload":{}{}}}"#, "[".repeat(63), "]".repeat(63));
        let spacious = format!("{}{{\"action\":\"a\"}}{}", " ".repeat(60_000), "\n".repeat(60_000));
        for text in [deepest, spacious] {
            assert_eq!(Message::parse(&text).unwrap().action, "a");
        }
        let message = Message::parse(
            r#"{"id":"r2","action":"b","payload":{"a":1,"a":2},"id":"r1","action":"a","\u0070ayload":
            [18446744073709551615,18446744073709551616,-0,1e-400,0.1,"\ud83d\ude00","\u0000"]}"#,
        );
        let Message { id, action, payload, .. } = message.unwrap();
        assert_eq!((id, action.as_str()), (Some("r1".into()), "a"));
        let expected = json!([u64::MAX, 18_446_744_073_709_551_616.0, -0.0, 0.0, 0.1, "😀", "\0"]);
        assert_eq!(payload, expected);
    }

    #[test]
    fn a_message_above_128_kib_is_too_large_and_one_at_the_limit_is_not() {
        let shell = r#"{"action":"a","payload":""}"#;
        let of_bytes = |n: usize| shell.replace("\"\"", &format!("\"{}\"", "x".repeat(n - shell.len())));
        assert!(Message::parse(&of_bytes(MAX_FRAME_BYTES)).is_ok());
        let error = Message::parse(&of_bytes(MAX_FRAME_BYTES + 1)).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    }

    /// The message as a client would send it.
    fn written(message: &Message) -> String {
        let Message { id, action, payload, metadata } = message;
        json!({"id": id, "action": action, "payload": payload, "metadata": metadata}).to_string()
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Message::parse(&text);
        }

        #[test]
        fn what_is_taken_means_the_same_when_it_is_written_again(
            id in "\"?\\PC{0,10}\"?", action in "\"?[a-z]{1,10}\"?",
            payload in "(\\[)?-?[1-9][0-9]{0,24}(\\.[0-9]{1,24})?(e-?[0-9]{1,3})?(,\"[a-z\\\\]{0,3}\"\\])?",
            metadata in "(\\{(\"[a-z]\":(true|1|\"x\"),?){0,2}\\}|null)",
        ) {
            let text =
                format!(r#"{{"id":{id},"action":{action},"payload":{payload},"metadata":{metadata}}}"#);
            if let Ok(message) = Message::parse(&text) {
                prop_assert_eq!(Message::parse(&written(&message)), Ok(message));
            }
        }
    }
}
