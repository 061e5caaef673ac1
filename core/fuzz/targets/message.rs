//! Fuzzes the parser of client messages. No text makes the parser panic, and a parsed message is unchanged after it
//! is serialized and parsed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use streamer::ids::RequestId;
use streamer::protocol::{Frame, Message, RejectedMessage};

fuzz_target!(|text: &str| match Message::parse(text) {
    Ok(message) => {
        let Message { id, action, payload, metadata } = &message;
        let written = json!({"id": id, "action": action, "payload": payload, "metadata": metadata});
        // A serialized number can be longer than the number in the input. So the only possible error is that the
        // serialized message is too large.
        match Message::parse(&written.to_string()) {
            Ok(again) => assert_eq!(again, message),
            Err(rejected) => assert_eq!(rejected.error.code.as_str(), "PAYLOAD_TOO_LARGE"),
        }
    }
    Err(RejectedMessage { id, error }) => {
        assert!(
            id.as_ref().is_none_or(|id| RequestId::parse(id.as_str()).is_ok()),
            "rejected message has a valid id or none: {id:?}"
        );
        let frame = Frame::Error { request_id: id, error, timestamp: 0, seq: None }.to_json();
        assert!(frame.len() < 4_096, "error frame is shorter than 4 KiB: {frame}");
    }
});
