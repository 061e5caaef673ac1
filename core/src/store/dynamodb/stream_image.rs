//! Decoding of items in DynamoDB stream records, which Lambda receives in DynamoDB's JSON format.

use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::codec::Item;

/// A stream image that is not a valid DynamoDB item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidImage {
    /// Path of the invalid attribute, such as `subscribers.c1` or `permissions[0]`; empty if the whole image is
    /// invalid.
    pub path: String,
    /// Description of the problem, such as `expected an object of attributes`.
    pub problem: String,
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        if path.is_empty() {
            write!(f, "image: {problem}")
        } else {
            write!(f, "image, attribute \"{path}\": {problem}")
        }
    }
}

impl std::error::Error for InvalidImage {}

/// Converts a stream record's `NewImage`, `OldImage` or `Keys` to an item of the AWS SDK.
///
/// # Errors
/// [`InvalidImage`] if an attribute is not valid DynamoDB JSON.
///
/// # Examples
/// ```
/// use serde_json::json;
/// use streamer::store::dynamodb::item_of_image;
///
/// let item = item_of_image(&json!({"request_id": {"S": "acme/ann/r1"}, "epoch": {"N": "1"}}))?;
/// assert_eq!(item["epoch"].as_n().map(String::as_str), Ok("1"));
/// # Ok::<(), streamer::store::dynamodb::InvalidImage>(())
/// ```
pub fn item_of_image(image: &Value) -> Result<Item, InvalidImage> {
    match image {
        Value::Object(attributes) => map(attributes, ""),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(invalid("", "expected an object of attributes"))
        }
    }
}

fn invalid(path: &str, problem: impl Into<String>) -> InvalidImage {
    InvalidImage { path: path.to_owned(), problem: problem.into() }
}

fn map(attributes: &Map<String, Value>, path: &str) -> Result<Item, InvalidImage> {
    let attribute = |(name, value): (&String, &Value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        Ok((name.clone(), attribute(value, &path)?))
    };
    attributes.iter().map(attribute).collect()
}

fn attribute(value: &Value, path: &str) -> Result<AttributeValue, InvalidImage> {
    let typed = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.iter().next());
    let Some((kind, value)) = typed else {
        return Err(invalid(path, "expected an object whose only key is a DynamoDB type"));
    };
    let read = match (kind.as_str(), value) {
        ("S", Value::String(text)) => Some(AttributeValue::S(text.clone())),
        ("N", Value::String(digits)) => Some(AttributeValue::N(digits.clone())),
        ("B", Value::String(text)) => blob(text).map(AttributeValue::B),
        ("BOOL", Value::Bool(is_true)) => Some(AttributeValue::Bool(*is_true)),
        ("NULL", Value::Bool(is_null)) => Some(AttributeValue::Null(*is_null)),
        ("M", Value::Object(attributes)) => Some(AttributeValue::M(map(attributes, path)?)),
        ("L", Value::Array(values)) => {
            let values =
                (0..).zip(values).map(|(n, value): (usize, _)| attribute(value, &format!("{path}[{n}]")));
            Some(AttributeValue::L(values.collect::<Result<_, _>>()?))
        }
        ("SS", Value::Array(values)) => texts(values).map(AttributeValue::Ss),
        ("NS", Value::Array(values)) => texts(values).map(AttributeValue::Ns),
        ("BS", Value::Array(values)) => texts(values)
            .and_then(|texts| texts.iter().map(|text| blob(text)).collect())
            .map(AttributeValue::Bs),
        _ => None,
    };
    read.ok_or_else(|| {
        invalid(path, format!("expected a DynamoDB type with a matching value, found {kind} with {value}"))
    })
}

fn texts(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn blob(text: &str) -> Option<Blob> {
    STANDARD.decode(text).ok().map(Blob::new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stream_image_with_every_attribute_type_is_decoded() {
        let image = json!({
            "s": {"S": "text"}, "n": {"N": "-1.5e3"}, "b": {"B": "aGk="}, "bool": {"BOOL": true},
            "null": {"NULL": true}, "m": {"M": {"inner": {"S": ""}}}, "l": {"L": [{"N": "1"}, {"L": []}]},
            "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["1"]}, "bs": {"BS": ["aGk="]},
        });
        let blob = || Blob::new("hi");
        let expected = Item::from([
            ("s".into(), AttributeValue::S("text".into())),
            ("n".into(), AttributeValue::N("-1.5e3".into())),
            ("b".into(), AttributeValue::B(blob())),
            ("bool".into(), AttributeValue::Bool(true)),
            ("null".into(), AttributeValue::Null(true)),
            ("m".into(), AttributeValue::M([("inner".to_owned(), AttributeValue::S(String::new()))].into())),
            (
                "l".into(),
                AttributeValue::L(vec![AttributeValue::N("1".into()), AttributeValue::L(Vec::new())]),
            ),
            ("ss".into(), AttributeValue::Ss(vec!["a".into(), "b".into()])),
            ("ns".into(), AttributeValue::Ns(vec!["1".into()])),
            ("bs".into(), AttributeValue::Bs(vec![blob()])),
        ]);
        assert_eq!(item_of_image(&image).unwrap(), expected);
    }

    #[test]
    fn invalid_stream_image_error_names_the_path_of_the_attribute() {
        let report: Vec<String> = [
            json!("text"),
            json!({"a": "text"}),
            json!({"a": {"S": "x", "N": "1"}}),
            json!({"a": {"S": 1}}),
            json!({"a": {"N": 1}}),
            json!({"a": {"B": "not base64!"}}),
            json!({"a": {"X": "x"}}),
            json!({"a": {"M": {"b": {"L": [{"S": "x"}, {"SS": [1]}]}}}}),
        ]
        .iter()
        .map(|image| item_of_image(image).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(report.join("\n"));
    }
}
