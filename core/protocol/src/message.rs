use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::outline::{BYTE_ORDER_MARK, Outline};
use crate::{ErrorBody, ErrorCode, MAX_FRAME_BYTES, RequestId};

/// A message from a client, which requests an action.
///
/// [`parse`](Self::parse) treats unusual JSON like most parsers. If a key occurs twice, its last value is used. A
/// number that does not fit into a 64-bit integer is parsed as a double, and may be rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Id that the client chose for the request; `None` if the client sent no id.
    pub id: Option<RequestId>,
    /// Name of the requested action, such as `echo`.
    pub action: String,
    /// Input of the action; `null` if the client sent no payload.
    pub payload: Value,
    /// Key-value pairs that are stored with the request and passed to the handler.
    pub metadata: BTreeMap<String, String>,
}

/// The error for a message that was rejected, and the request id from the message.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedMessage {
    /// Request id from the rejected message; `None` if the message has no valid id.
    pub id: Option<RequestId>,
    /// Error to send to the client.
    pub error: ErrorBody,
}

impl Message {
    /// Maximum length of an action name, in characters.
    pub const MAX_ACTION_CHARS: usize = 128;
    /// Maximum nesting depth of objects and arrays; the message itself is level 1.
    pub const MAX_DEPTH: usize = 64;
    /// Maximum number of entries in `metadata`.
    pub const MAX_METADATA_ENTRIES: usize = 32;
    /// Maximum total size of the keys and values in `metadata`, in bytes.
    pub const MAX_METADATA_BYTES: usize = 2 * 1024;

    /// Parses a message; unknown keys are ignored.
    ///
    /// # Errors
    /// [`RejectedMessage`] if the text is too large, nested too deeply or not a JSON object, or if its action, id or
    /// metadata is invalid. The error contains the request id if the id is readable, even if the rest of the text is
    /// not valid JSON.
    pub fn parse(text: &str) -> Result<Self, RejectedMessage> {
        let Outline { id, depth } = Outline::of(text);
        let rejected = |error| RejectedMessage { id: id.and_then(|id| RequestId::parse(&id).ok()), error };
        if text.len() > MAX_FRAME_BYTES {
            let message =
                format!("The message has {} bytes; at most {MAX_FRAME_BYTES} are allowed", text.len());
            return Err(rejected(ErrorBody::new(ErrorCode::PayloadTooLarge, message)));
        }
        Self::parse_json(text, depth)
            .map_err(|message| rejected(ErrorBody::new(ErrorCode::ValidationError, message)))
    }

    fn parse_json(text: &str, depth: usize) -> Result<Self, String> {
        if text.starts_with(BYTE_ORDER_MARK) {
            return Err("The message begins with a byte order mark; send the JSON text without it".into());
        }
        if depth > Self::MAX_DEPTH {
            let most = Self::MAX_DEPTH;
            return Err(format!("The message is nested {depth} levels deep; at most {most} are allowed"));
        }
        let mut object: Map<String, Value> = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                return Err(format!("The message must be a JSON object, but is {}", json_type(&other)));
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
        Some(other) => Err(format!("\"id\" must be a string, but is {}", json_type(&other))),
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
        None | Some(Value::Null) => Err("\"action\" is missing; expected the name of an action".into()),
        Some(other) => Err(format!("\"action\" must be a string, but is {}", json_type(&other))),
    }
}

/// Removes the key `metadata` from the message, and returns its entries. A value that is not a string is converted to
/// its JSON text, because the client of the published Go implementation sends `true` as a value.
fn take_metadata(object: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let entries = match object.remove("metadata") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            return Err(format!("\"metadata\" must be an object of strings, but is {}", json_type(&other)));
        }
    };
    let (count, most) = (entries.len(), Message::MAX_METADATA_ENTRIES);
    if count > most {
        return Err(format!("\"metadata\" has {count} entries; at most {most} are allowed"));
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
        return Err(format!("\"metadata\" has {bytes} bytes of keys and values; at most {most} are allowed"));
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
    fn message_of_the_go_client_is_parsed() {
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
    fn omitted_message_fields_parse_as_empty() {
        let message = Message::parse(r#"{"action":"ping","id":null,"metadata":null}"#).unwrap();
        let empty =
            Message { id: None, action: "ping".into(), payload: Value::Null, metadata: BTreeMap::new() };
        assert_eq!(message, empty);
        assert_eq!(Message::parse(r#"{"action":"ping","id":""}"#).unwrap(), empty);
    }

    fn describe_rejection(text: &str) -> String {
        let rejected = Message::parse(text).unwrap_err();
        let start: String = text.chars().take(48).collect();
        let id = rejected.id.map_or("-".into(), |id| id.to_string());
        format!("{start} => [{id}] {}: {}", rejected.error.code, rejected.error.message)
    }

    #[test]
    fn invalid_message_is_rejected_with_its_id_and_the_reason() {
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
        .map(describe_rejection);
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn unusual_but_valid_json_message_parses_as_in_other_json_parsers() {
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
    fn message_of_128_kib_is_accepted_and_larger_message_is_rejected() {
        let shell = r#"{"action":"a","payload":""}"#;
        let message_of_size =
            |n: usize| shell.replace("\"\"", &format!("\"{}\"", "x".repeat(n - shell.len())));
        assert!(Message::parse(&message_of_size(MAX_FRAME_BYTES)).is_ok());
        let error = Message::parse(&message_of_size(MAX_FRAME_BYTES + 1)).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    }

    /// Serializes a message as a client would.
    fn to_json(message: &Message) -> String {
        let Message { id, action, payload, metadata } = message;
        json!({"id": id, "action": action, "payload": payload, "metadata": metadata}).to_string()
    }

    proptest! {
        #[test]
        fn message_parser_does_not_panic_on_arbitrary_text(text in "\\PC{0,200}") {
            let _ = Message::parse(&text);
        }

        #[test]
        fn message_is_unchanged_after_serializing_and_parsing_again(
            id in "\"?\\PC{0,10}\"?", action in "\"?[a-z]{1,10}\"?",
            payload in "(\\[)?-?[1-9][0-9]{0,24}(\\.[0-9]{1,24})?(e-?[0-9]{1,3})?(,\"[a-z\\\\]{0,3}\"\\])?",
            metadata in "(\\{(\"[a-z]\":(true|1|\"x\"),?){0,2}\\}|null)",
        ) {
            let text =
                format!(r#"{{"id":{id},"action":{action},"payload":{payload},"metadata":{metadata}}}"#);
            if let Ok(message) = Message::parse(&text) {
                prop_assert_eq!(Message::parse(&to_json(&message)), Ok(message));
            }
        }
    }
}
