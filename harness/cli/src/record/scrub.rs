//! Replaces the values in a recorded event that could identify a person, a client or an AWS account, and keeps
//! the shape of the event.
//!
//! Only values and keys on the lists below are kept. Every other text, number and key is replaced, wherever it
//! appears. Within one run of the command, equal values get equal replacements.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

/// JSON keys that are kept: those of AWS's events, and the attribute names of Streamer's items.
const KEYS: &[&str] = &[
    "headers",
    "multiValueHeaders",
    "queryStringParameters",
    "multiValueQueryStringParameters",
    "stageVariables",
    "requestContext",
    "body",
    "isBase64Encoded",
    "routeKey",
    "disconnectStatusCode",
    "disconnectReason",
    "messageId",
    "eventType",
    "extendedRequestId",
    "requestTime",
    "messageDirection",
    "stage",
    "connectedAt",
    "requestTimeEpoch",
    "identity",
    "userAgent",
    "sourceIp",
    "requestId",
    "domainName",
    "connectionId",
    "apiId",
    "authorizer",
    "principalId",
    "integrationLatency",
    "methodArn",
    "type",
    "Records",
    "eventID",
    "eventName",
    "eventVersion",
    "eventSource",
    "awsRegion",
    "dynamodb",
    "eventSourceARN",
    "userIdentity",
    "ApproximateCreationDateTime",
    "Keys",
    "NewImage",
    "OldImage",
    "SequenceNumber",
    "SizeBytes",
    "StreamViewType",
    "S",
    "N",
    "B",
    "SS",
    "NS",
    "BS",
    "M",
    "L",
    "BOOL",
    "NULL",
    "request_id",
    "part",
    "client_id",
    "user_id",
    "tenant_id",
    "connection_id",
    "action",
    "payload",
    "metadata",
    "status",
    "status_shard",
    "attempt",
    "max_attempts",
    "epoch",
    "percentage",
    "progress_message",
    "progress_metadata",
    "seq",
    "subscribers",
    "created_at",
    "timer_at",
    "timer_shard",
    "owner",
    "lease_expires_at",
    "started_at",
    "finished_at",
    "cancel_requested",
    "result",
    "error",
    "ttl",
    "text",
    "id",
    "token",
    "Authorization",
    // Names of HTTP headers.
    "Host",
    "User-Agent",
    "X-Amzn-Trace-Id",
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "x-api-key",
    "x-restapi",
];

/// Texts that are kept under any key, because AWS or Streamer's protocol defines them.
const TEXTS: &[&str] = &[
    "",
    "$connect",
    "$disconnect",
    "$default",
    "CONNECT",
    "MESSAGE",
    "DISCONNECT",
    "IN",
    "REQUEST",
    "INSERT",
    "MODIFY",
    "REMOVE",
    "1.1",
    "aws:dynamodb",
    "KEYS_ONLY",
    "NEW_IMAGE",
    "OLD_IMAGE",
    "NEW_AND_OLD_IMAGES",
    "Service",
    "dynamodb.amazonaws.com",
    "request",
    "payload",
    "result",
    "checkpoint",
    "PENDING",
    "PROCESSING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "RETRYING",
    "443",
    "https",
    "http",
    "80",
    "13",
    "ping",
    "status",
    "subscribe",
    "cancel",
    "Going away",
    "Client-side close frame status not set",
];

/// JSON keys whose numbers are kept: timestamps, sizes and codes that AWS sets.
const NUMBERS: &[&str] =
    &["connectedAt", "requestTimeEpoch", "disconnectStatusCode", "ApproximateCreationDateTime", "SizeBytes"];

/// Replaces identifying values in events. Equal values get equal replacements, even in different events.
#[derive(Debug)]
pub(super) struct Scrubber {
    /// Texts that are kept unchanged: `TEXTS`, and the action names from the command line.
    kept: BTreeSet<String>,
    /// Number assigned to each original text, by kind and text. The replacement of the text contains this
    /// number.
    numbers: BTreeMap<(&'static str, String), usize>,
    /// Highest assigned number, by kind of text.
    last: BTreeMap<&'static str, usize>,
    /// Number of JSON texts that enclose the current value. Above 0, a client chose the keys, so a known key
    /// is no reason to keep its value.
    depth: usize,
}

impl Scrubber {
    /// Makes a scrubber that also keeps the names of these actions.
    pub(super) fn new(actions: impl IntoIterator<Item = String>) -> Self {
        let texts = TEXTS.iter().map(|text| (*text).to_owned());
        Self {
            kept: texts.chain(actions).collect(),
            numbers: BTreeMap::new(),
            last: BTreeMap::new(),
            depth: 0,
        }
    }

    /// Returns the event with its identifying values replaced.
    pub(super) fn scrub(&mut self, event: &Value) -> Value {
        self.value("", event)
    }

    fn value(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Null => Value::Null,
            Value::Bool(flag) => Value::Bool(*flag),
            Value::Number(number) if self.depth == 0 && NUMBERS.contains(&key) => {
                Value::Number(number.clone())
            }
            Value::Number(number) => Value::Number(like(number)),
            Value::String(text) => Value::String(self.text(key, text)),
            Value::Array(values) => values.iter().map(|value| self.value(key, value)).collect(),
            Value::Object(members) => Value::Object(self.object(key, members)),
        }
    }

    fn object(&mut self, key: &str, members: &Map<String, Value>) -> Map<String, Value> {
        let mut scrubbed = Map::new();
        for (name, value) in members {
            // A type descriptor of DynamoDB, such as `S`, does not say how to replace its value; the attribute
            // name does.
            let is_type_descriptor = matches!(name.as_str(), "S" | "N" | "B" | "SS" | "NS" | "BS");
            let value = match value {
                Value::String(text) if name == "N" => Value::String(digits(text)),
                Value::Array(texts) if name == "NS" => texts
                    .iter()
                    .map(|text| Value::String(digits(text.as_str().unwrap_or_default())))
                    .collect(),
                Value::String(_) if name == "B" => Value::String("AAAA".to_owned()),
                Value::Array(texts) if name == "BS" => {
                    (0..texts.len()).map(|_| Value::String("AAAA".to_owned())).collect()
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => self.value(if is_type_descriptor { key } else { name }, value),
            };
            scrubbed.insert(self.key(name), value);
        }
        scrubbed
    }

    fn key(&mut self, name: &str) -> String {
        if KEYS.contains(&name) {
            name.to_owned()
        } else if is_gateway_id(name) {
            self.gateway_id(name)
        } else {
            format!("key-{}", self.number("key", name))
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        let may_be_kept = self.depth == 0 || matches!(key, "action" | "type");
        if may_be_kept && self.kept.contains(text) {
            return text.to_owned();
        }
        if is_gateway_id(text) {
            return self.gateway_id(text);
        }
        match key {
            "body" | "payload" | "result" | "metadata" | "progress_metadata" | "error" => self.json(text),
            "sourceIp" | "X-Forwarded-For" => self.each(text, ", ", Self::address),
            "userAgent" | "User-Agent" => format!("client/{}.0", self.number("agent", text)),
            "domainName" | "Host" => self.domain(text),
            "apiId" => self.api(text),
            "awsRegion" => "us-east-1".to_owned(),
            "requestTime" => "09/Feb/2024:18:23:28 +0000".to_owned(),
            "stage" => format!("stage-{}", self.number("stage", text)),
            "eventID" => format!("{:032x}", self.number("event", text)),
            "SequenceNumber" => format!("1{:020}", self.number("sequence", text)),
            "eventSourceARN" => {
                let (table, label) = (self.number("table", text), "2024-02-09T18:00:00.000");
                format!("arn:aws:dynamodb:us-east-1:123456789012:table/table-{table}/stream/{label}")
            }
            "methodArn" => {
                "arn:aws:execute-api:us-east-1:123456789012:api0000001/stage-1/$connect".to_owned()
            }
            "token" | "Authorization" => match text.split_once(' ') {
                Some((_, token)) => format!("Bearer {}", self.token(token)),
                None => self.token(text),
            },
            "Sec-WebSocket-Protocol" => self.each(text, ", ", |this, offered| {
                if offered.matches('.').count() == 2 {
                    this.token(offered)
                } else {
                    format!("protocol-{}", this.number("protocol", offered))
                }
            }),
            "Sec-WebSocket-Key" => "dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            "Sec-WebSocket-Extensions" => "permessage-deflate".to_owned(),
            "X-Amzn-Trace-Id" => "Root=1-65c66da0-000000000000000000000001".to_owned(),
            "request_id" => self.each(text, "/", |this, part| format!("name-{}", this.number("name", part))),
            "id" | "client_id" | "user_id" | "tenant_id" | "action" | "principalId" => {
                format!("name-{}", self.number("name", text))
            }
            _ => like_text(text),
        }
    }

    /// Replaces a text. If the text is a JSON object or array, its shape is kept.
    fn json(&mut self, text: &str) -> String {
        match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => {
                self.depth += 1;
                let scrubbed = self.value("", &value).to_string();
                self.depth -= 1;
                scrubbed
            }
            _ => like_text(text),
        }
    }

    /// Splits a text at `separator`, replaces each part, and joins the parts.
    fn each(&mut self, text: &str, separator: &str, replace: impl Fn(&mut Self, &str) -> String) -> String {
        let parts: Vec<_> = text.split(separator.trim()).map(|part| replace(self, part.trim())).collect();
        parts.join(separator)
    }

    fn address(&mut self, text: &str) -> String {
        let number = self.number("address", text);
        if text.contains(':') { format!("2001:db8::{number:x}") } else { format!("192.0.2.{}", number % 255) }
    }

    fn api(&mut self, text: &str) -> String {
        format!("api{:07}", self.number("api", text))
    }

    fn domain(&mut self, text: &str) -> String {
        match text.split_once(".execute-api.") {
            Some((api, _)) => format!("{}.execute-api.us-east-1.amazonaws.com", self.api(api)),
            None => format!("host-{}.example", self.number("domain", text)),
        }
    }

    fn token(&mut self, text: &str) -> String {
        // A JWT with the header {"alg":"none"}, an empty payload, and an invalid signature.
        format!("eyJhbGciOiJub25lIn0.e30.token-{}", self.number("token", text))
    }

    fn gateway_id(&mut self, text: &str) -> String {
        format!("R{:013}A=", self.number("gateway", text))
    }

    /// Returns the number of a text among the texts of its kind, which are numbered from 1 in the order of
    /// appearance.
    fn number(&mut self, kind: &'static str, text: &str) -> usize {
        *self.numbers.entry((kind, text.to_owned())).or_insert_with(|| {
            let last = self.last.entry(kind).or_insert(0);
            *last += 1;
            *last
        })
    }
}

/// Returns whether a text looks like an id of API Gateway: 15 base64url characters and `=`.
fn is_gateway_id(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == 16 && text.strip_suffix('=').is_some_and(|id| id.bytes().all(is_base64url))
}

/// Returns a replacement of the same kind (integer or fraction). An integer keeps its number of digits if
/// possible.
fn like(number: &Number) -> Number {
    if number.is_f64() {
        return Number::from_f64(1.5).unwrap_or_else(|| Number::from(1));
    }
    let digits = digits(&number.to_string());
    digits
        .parse::<i64>()
        .map(Number::from)
        .or_else(|_| digits.parse::<u64>().map(Number::from))
        .unwrap_or_else(|_| Number::from(1))
}

/// Replaces each digit of a decimal number with 1. The text `0` stays `0`, and a text that is not a finite
/// number becomes `1`.
fn digits(text: &str) -> String {
    let digit_to_one = |c: char| if c.is_ascii_digit() { '1' } else { c };
    match text.parse::<f64>() {
        Ok(_) if text == "0" => "0".to_owned(),
        Ok(number) if number.is_finite() => text.chars().map(digit_to_one).collect(),
        _ => "1".to_owned(),
    }
}

/// Returns a text that consists only of `x`. Its length is the original's length, rounded up to a power of
/// two.
fn like_text(text: &str) -> String {
    "x".repeat(if text.is_empty() { 0 } else { text.len().next_power_of_two() })
}

#[cfg(test)]
mod tests;
