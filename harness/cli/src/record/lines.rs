//! Extracts recorded events from log lines.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// JSON key that marks a log line as a recording. The value of the key is `event` or `reply`.
const MARK: &str = "streamer_record";

/// Texts by which the log lines of Lambda itself are recognized among the lines of a function.
const PLATFORM_MARKS: [&str; 9] = [
    "INIT_START ",
    "INIT_REPORT ",
    "START RequestId",
    "END RequestId",
    "REPORT RequestId",
    "XRAY TraceId",
    "EXTENSION\t",
    "LOGS\t",
    "RESTORE_",
];

/// The contents of a log: its recorded events, and the problems found.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Recorded events in the order of the log, followed by the events that were split into several lines.
    pub(super) events: Vec<Recorded>,
    /// Number of skipped lines: replies, other JSON lines, Lambda's own lines, and empty lines.
    pub(super) others: usize,
    /// Error messages, one for each unusable line or event. Each message begins with a position, such as
    /// `line 3: `.
    pub(super) problems: Vec<String>,
}

/// One event that a function received.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) event: Value,
}

#[derive(Debug, Deserialize)]
struct Line {
    streamer_record: String,
    request_id: String,
    part: usize,
    parts: usize,
    json: Option<Value>,
    text: Option<String>,
}

/// The pieces of an event or reply that was too long for one log line, and the position of the first piece.
#[derive(Debug, Default)]
struct Pieces {
    at: String,
    parts: usize,
    texts: BTreeMap<usize, String>,
}

/// Reads a log as lines, or as the JSON of `aws logs filter-log-events` or `get-log-events`.
pub(super) fn read(text: &str) -> Log {
    let mut log = Log::default();
    let mut pieces = BTreeMap::new();
    if let Some(messages) = filtered(text) {
        for (index, message) in messages.iter().enumerate() {
            log.line(&format!("event {}", index + 1), message.as_deref(), &mut pieces);
        }
    } else {
        for (index, line) in text.lines().enumerate() {
            log.line(&format!("line {}", index + 1), Some(line), &mut pieces);
        }
    }
    for ((_, kind), Pieces { at, parts, texts }) in pieces {
        if texts.len() < parts {
            log.problems.push(format!("{at}: {kind} is incomplete, found {} of {parts} parts", texts.len()));
        } else if kind == "event" {
            match serde_json::from_str(&texts.into_values().collect::<String>()) {
                Ok(event) => log.events.push(Recorded { event }),
                Err(error) => log.problems.push(format!("{at}: event is not valid JSON: {error}")),
            }
        }
    }
    log
}

/// Returns the messages in the JSON of `filter-log-events` or `get-log-events`, or `None` if the text has a
/// different format.
fn filtered(text: &str) -> Option<Vec<Option<String>>> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let events = answer.get("events")?.as_array()?;
    Some(events.iter().map(|event| event["message"].as_str().map(str::to_owned)).collect())
}

impl Log {
    fn line(&mut self, at: &str, line: Option<&str>, pieces: &mut BTreeMap<(String, String), Pieces>) {
        let Some(line) = line else {
            self.problems.push(format!("{at}: log event has no message"));
            return;
        };
        let object = line.find('{').map(|start| serde_json::from_str(line[start..].trim_end()));
        let mut object: Map<String, Value> = match object {
            Some(Ok(object)) => object,
            Some(Err(error)) if line.contains(MARK) => {
                self.problems.push(format!("{at}: recording cannot be parsed: {error}"));
                return;
            }
            _ if is_platform_line(line) => {
                self.others += 1;
                return;
            }
            _ => {
                self.problems.push(format!(
                    "{at}: unknown line; expected a recording, JSON, or a line that Lambda itself writes"
                ));
                return;
            }
        };
        if !object.contains_key(MARK) {
            if !line.contains(MARK) {
                self.others += 1;
                return;
            }
            // The line is a JSON log event whose `message` may hold the recording.
            match object.remove("message").or_else(|| object.remove("@message")) {
                Some(Value::String(message)) if message.contains(MARK) => {
                    self.line(at, Some(&message), pieces);
                }
                _ => self.problems.push(format!(
                    "{at}: misplaced `{MARK}`; expected the key in the JSON object itself, or in its `message`"
                )),
            }
            return;
        }
        let read = match Line::deserialize(Value::Object(object)) {
            Ok(read) => read,
            Err(error) => {
                self.problems.push(format!("{at}: recording cannot be parsed: {error}"));
                return;
            }
        };
        match read {
            Line { streamer_record, json: Some(event), .. } if streamer_record == "event" => {
                self.events.push(Recorded { event });
            }
            Line { json: Some(_), .. } => self.others += 1,
            Line { streamer_record, request_id, part, parts, text: Some(text), .. } => {
                let whole = pieces.entry((request_id, streamer_record)).or_default();
                if whole.texts.is_empty() {
                    (whole.at, whole.parts) = (at.to_owned(), parts);
                }
                whole.texts.insert(part, text);
            }
            Line { json: None, text: None, .. } => {
                self.problems.push(format!("{at}: recording has neither `json` nor `text`"));
            }
        }
    }
}

/// Returns true if a line without JSON is empty or was written by Lambda itself.
fn is_platform_line(line: &str) -> bool {
    line.trim().is_empty() || PLATFORM_MARKS.iter().any(|mark| line.contains(mark))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(part: usize, parts: usize, text: &str) -> String {
        json!({"streamer_record": "event", "function": "f", "request_id": "r", "part": part, "parts": parts, "text": text})
            .to_string()
    }

    #[test]
    fn log_is_read_in_each_supported_format() {
        let recording = r#"{"streamer_record":"event","function":"f","request_id":"r","part":1,"parts":1,"json":{"a":1}}"#;
        let reply = recording.replace("\"event\"", "\"reply\"");
        let tailed = format!(
            "2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f INIT_START Runtime\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {recording}\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {reply}\n\
             2024-02-09T18:23:28.941000+00:00 2024/02/09/[$LATEST]1f {{\"level\":\"INFO\"}}\n"
        );
        let filtered = json!({"events": [{"message": format!("{recording}\n")}, {"message": reply}, {"message": "END RequestId: r"}]});
        let as_event = |key: &str, message: &str| json!({"timestamp": 1, key: message}).to_string();
        let lines = [
            as_event("message", &format!("{recording}\n")),
            as_event("message", "END RequestId: r"),
            as_event("@message", &reply),
        ];
        let reordered =
            r#"{ "part": 1, "parts": 1, "json": {"a":1}, "request_id": "r", "streamer_record" : "event" }"#;
        let formats = [
            (tailed, 3),
            (filtered.to_string(), 2),
            (format!("{recording}\n\n"), 1),
            (lines.join("\n"), 2),
            (reordered.to_owned(), 0),
        ];
        for (text, others) in formats {
            let log = read(&text);
            assert_eq!((log.problems, log.others), (vec![], others), "{text}");
            assert_eq!(log.events.len(), 1);
            assert_eq!(log.events[0].event, json!({"a": 1}));
        }
    }

    #[test]
    fn event_logged_in_several_parts_is_joined_in_any_order() {
        let log = read(&[line(2, 2, ":[1]}"), line(1, 2, "{\"a\"")].join("\n"));
        assert_eq!((log.problems, &log.events[0].event), (vec![], &json!({"a": [1]})));
    }

    #[test]
    fn each_invalid_log_line_is_reported_with_its_position() {
        let invalid = [
            "thread 'main' panicked".to_owned(),
            line(1, 1, "x")[..60].to_owned(),
            r#"{"streamer_record":"event","request_id":"r","part":1,"parts":1}"#.to_owned(),
            line(1, 2, "{"),
            json!({"level": "INFO", "message": "a streamer_record is near"}).to_string(),
            json!({"level": "INFO", "fields": {"streamer_record": "event"}}).to_string(),
            "no streamer_record here".to_owned(),
        ];
        let log = read(&invalid.join("\n"));
        assert!(log.events.is_empty());
        let starts = [
            "line 1: unknown line;",
            "line 2: recording cannot be parsed:",
            "line 3: recording has neither",
            "line 5: unknown line;",
            "line 6: misplaced `streamer_record`;",
            "line 7: unknown line;",
            "line 4: event is incomplete, found 1 of 2 parts",
        ];
        assert_eq!(log.problems.len(), starts.len(), "{:?}", log.problems);
        for (problem, start) in log.problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
        assert_eq!(read(r#"{"events":[{}]}"#).problems, ["event 1: log event has no message"]);
        let unreadable = read(&line(1, 1, "no JSON")).problems;
        assert!(unreadable[0].starts_with("line 1: event is not valid JSON"), "{unreadable:?}");
    }
}
