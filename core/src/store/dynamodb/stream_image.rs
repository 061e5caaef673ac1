//! The items of a stream record, as Lambda hands them over: attributes in DynamoDB's own JSON.

use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::codec::Item;

/// An image that is none, and where it is not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidImage {
    /// The attribute, and the way into it, such as `subscribers.c1` or `permissions[0]`; empty for the image itself.
    pub path: String,
    /// What it should have been.
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

/// The item of a `NewImage`, `OldImage` or `Keys`, to be decoded by its own module.
///
/// # Errors
/// When an attribute is none that DynamoDB writes.
///
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
        return Err(invalid(path, "expected an object with its type as the only key"));
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
    read.ok_or_else(|| invalid(path, format!("{kind} with {value} is no attribute that DynamoDB writes")))
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
    fn every_type_of_attribute_is_read() {
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
    fn what_is_no_attribute_is_named_with_the_way_to_it() {
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
