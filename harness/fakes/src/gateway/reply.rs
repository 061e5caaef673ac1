//! Replies of functions to a Lambda proxy integration.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

/// A well-formed reply of a function to a Lambda proxy integration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ProxyReply {
    status: Option<u16>,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

impl ProxyReply {
    /// Parses a function's reply. `statusCode` is a number or a string of digits; a reply without
    /// `statusCode` has status 200.
    ///
    /// # Errors
    /// [`MalformedReply`] if the payload is not a JSON object, has an unknown key, or has a value of the
    /// wrong type.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, MalformedReply> {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(payload) else {
            return Err(MalformedReply("not a JSON object".to_owned()));
        };
        let mut take = |key| object.remove(key).filter(|value| !value.is_null());
        let status = take("statusCode").map(|value| status(&value)).transpose()?;
        let headers = headers(take("headers"), take("multiValueHeaders"))?;
        let encoded = match take("isBase64Encoded") {
            None => false,
            Some(Value::Bool(encoded)) => encoded,
            Some(other) => return Err(wrong("isBase64Encoded", &other, "true or false")),
        };
        let body = match take("body") {
            None => None,
            Some(Value::String(body)) if encoded => Some(
                STANDARD
                    .decode(&body)
                    .map_err(|error| MalformedReply(format!("body is not base64: {error}")))?
                    .into(),
            ),
            Some(Value::String(body)) => Some(body.into()),
            Some(other) => return Err(wrong("body", &other, "a string")),
        };
        match object.keys().next() {
            None => Ok(Self { status, headers, body }),
            Some(key) => Err(MalformedReply(format!(
                "unknown key {key:?}; a proxy reply has statusCode, headers, multiValueHeaders, body and isBase64Encoded"
            ))),
        }
    }

    /// Returns the reply's status; 200 if the reply has no `statusCode`.
    pub(super) fn status(&self) -> u16 {
        self.status.unwrap_or(200)
    }

    /// Returns the `statusCode` that the reply contains, without a default.
    ///
    /// # Errors
    /// [`MalformedReply`] if the reply has no `statusCode`.
    pub(super) fn explicit_status(&self) -> Result<u16, MalformedReply> {
        self.status.ok_or_else(|| MalformedReply("the reply to $connect has no statusCode".to_owned()))
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status())
    }
}

fn status(value: &Value) -> Result<u16, MalformedReply> {
    let number = value.as_str().map_or_else(|| value.as_u64(), |digits| digits.parse().ok());
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| wrong("statusCode", value, "a number from 200 to 599"))
}

/// Merges the reply's `headers` and `multiValueHeaders`. For a header in both maps, the values of
/// `multiValueHeaders` come first.
fn headers(single: Option<Value>, multi: Option<Value>) -> Result<HeaderMap, MalformedReply> {
    let mut headers = HeaderMap::new();
    for (name, values) in object("multiValueHeaders", multi)? {
        let Value::Array(values) = values else {
            return Err(wrong("multiValueHeaders", &values, "an object of arrays"));
        };
        for value in values {
            append(&mut headers, &name, &value)?;
        }
    }
    for (name, value) in object("headers", single)? {
        append(&mut headers, &name, &value)?;
    }
    Ok(headers)
}

fn object(key: &str, value: Option<Value>) -> Result<Map<String, Value>, MalformedReply> {
    match value {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(other) => Err(wrong(key, &other, "an object")),
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &Value) -> Result<(), MalformedReply> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null => return Ok(()),
        Value::Array(_) | Value::Object(_) => {
            return Err(wrong(&format!("header {name:?}"), value, "a string"));
        }
    };
    let bad = || MalformedReply(format!("invalid HTTP header {name:?} with value {text:?}"));
    let name = HeaderName::try_from(name).map_err(|_| bad())?;
    let value = HeaderValue::try_from(&text).map_err(|_| bad())?;
    if headers.get_all(&name).iter().all(|present| present != value) {
        headers.append(name, value);
    }
    Ok(())
}

fn wrong(key: &str, value: &Value, expected: &str) -> MalformedReply {
    MalformedReply(format!("{key} must be {expected}, not {value}"))
}

/// Error of a reply that is not a valid proxy reply ("malformed Lambda proxy response" in AWS's logs).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct MalformedReply(String);

impl fmt::Display for MalformedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed Lambda proxy reply: {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_reply_may_have_any_subset_of_the_five_known_keys() {
        let whole = ProxyReply::parse(
            br#"{"statusCode":"201","headers":{"A":"1","N":2,"B":true,"Z":null},"multiValueHeaders":{"a":["1","3"]},
                "body":"aGk=","isBase64Encoded":true}"#,
        )
        .unwrap();
        assert_eq!((whole.status(), whole.body.as_deref()), (201, Some(b"hi".as_slice())));
        assert!(whole.is_success());
        assert_eq!(whole.headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(
            (&whole.headers["n"], &whole.headers["b"]),
            (&HeaderValue::from(2), &HeaderValue::from_static("true"))
        );

        let empty = ProxyReply::parse(b"{}").unwrap();
        assert_eq!((empty.status(), empty.body), (200, None));
        let nulls = br#"{"statusCode":403,"headers":null,"multiValueHeaders":null,"body":null,"isBase64Encoded":null}"#;
        let refused = ProxyReply::parse(nulls).unwrap();
        assert_eq!((refused.status(), refused.is_success()), (403, false));
    }

    #[test]
    fn malformed_proxy_reply_error_names_the_problem() {
        for (payload, expected) in [
            ("null", "not a JSON object"),
            ("nonsense", "not a JSON object"),
            (
                r#"{"statusCode":200,"message":"hi"}"#,
                r#"unknown key "message"; a proxy reply has statusCode, headers, multiValueHeaders, body and isBase64Encoded"#,
            ),
            (r#"{"statusCode":99}"#, "statusCode must be a number from 200 to 599, not 99"),
            (r#"{"statusCode":"ok"}"#, r#"statusCode must be a number from 200 to 599, not "ok""#),
            (r#"{"body":{"a":1}}"#, r#"body must be a string, not {"a":1}"#),
            (r#"{"body":"?","isBase64Encoded":true}"#, "body is not base64: Invalid symbol 63, offset 0."),
            (r#"{"isBase64Encoded":1}"#, "isBase64Encoded must be true or false, not 1"),
            (r#"{"headers":[]}"#, "headers must be an object, not []"),
            (r#"{"headers":{"a":[1]}}"#, r#"header "a" must be a string, not [1]"#),
            (r#"{"headers":{"a b":"1"}}"#, r#"invalid HTTP header "a b" with value "1""#),
            (r#"{"headers":{"a":"\n"}}"#, r#"invalid HTTP header "a" with value "\n""#),
            (
                r#"{"multiValueHeaders":{"a":"1"}}"#,
                r#"multiValueHeaders must be an object of arrays, not "1""#,
            ),
        ] {
            let error = ProxyReply::parse(payload.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("malformed Lambda proxy reply: {expected}"), "{payload}");
        }
    }
}
