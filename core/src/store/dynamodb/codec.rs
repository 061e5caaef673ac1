//! Encoding and decoding of item attributes. Decoding errors name the item and the attribute.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "AWS may add attribute types; every unexpected type is reported in the same way"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::ports::Timestamp;
use crate::store::{StoreError, StoreErrorKind};

/// A DynamoDB item: attribute values by attribute name, in the types of the AWS SDK.
pub type Item = HashMap<String, AttributeValue>;

/// A stored item that cannot be decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Corrupt {
    /// Key of the corrupt item.
    pub key: String,
    /// Name of the attribute that is missing or invalid.
    pub attribute: &'static str,
    /// Description of the problem, such as `is missing` or `expected a number, found a string`.
    pub problem: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, attribute, problem } = self;
        write!(f, "item {key:?}, attribute \"{attribute}\": {problem}")
    }
}

impl std::error::Error for Corrupt {}

impl From<Corrupt> for StoreError {
    fn from(corrupt: Corrupt) -> Self {
        Self::new(StoreErrorKind::Corrupt, corrupt.to_string()).with_source(corrupt)
    }
}

pub(super) fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn n(number: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn time(at: Timestamp) -> AttributeValue {
    n(at.as_millis())
}

pub(super) fn json(value: &Value) -> AttributeValue {
    s(value.to_string())
}

pub(super) fn strings(map: &BTreeMap<String, String>) -> AttributeValue {
    AttributeValue::M(map.iter().map(|(key, text)| (key.clone(), s(text))).collect())
}

/// Decodes the attributes of one item.
pub(super) struct Reader<'a> {
    item: &'a Item,
    key_attribute: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(item: &'a Item, key_attribute: &'static str) -> Self {
        Self { item, key_attribute }
    }

    pub(super) fn corrupt(&self, attribute: &'static str, problem: impl Into<String>) -> Corrupt {
        let key = match self.item.get(self.key_attribute) {
            Some(AttributeValue::S(key)) => key.clone(),
            _ => format!("without a {}", self.key_attribute),
        };
        Corrupt { key, attribute, problem: problem.into() }
    }

    fn wrong_type(&self, attribute: &'static str, expected: &str, found: &AttributeValue) -> Corrupt {
        self.corrupt(attribute, format!("expected {expected}, found {}", type_of(found)))
    }

    fn required<T>(&self, attribute: &'static str, value: Option<T>) -> Result<T, Corrupt> {
        value.ok_or_else(|| self.corrupt(attribute, "is missing"))
    }

    pub(super) fn optional_string(&self, attribute: &'static str) -> Result<Option<&'a str>, Corrupt> {
        match self.item.get(attribute) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(attribute, "a string", other)),
        }
    }

    pub(super) fn string(&self, attribute: &'static str) -> Result<&'a str, Corrupt> {
        self.required(attribute, self.optional_string(attribute)?)
    }

    pub(super) fn optional_number<T: std::str::FromStr>(
        &self,
        attribute: &'static str,
    ) -> Result<Option<T>, Corrupt> {
        match self.item.get(attribute) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    let expected = std::any::type_name::<T>();
                    Err(self.corrupt(attribute, format!("expected a number ({expected}), found {digits}")))
                }
            },
            Some(other) => Err(self.wrong_type(attribute, "a number", other)),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, attribute: &'static str) -> Result<T, Corrupt> {
        self.required(attribute, self.optional_number(attribute)?)
    }

    /// Returns a boolean attribute; `false` if the attribute is missing.
    pub(super) fn flag(&self, attribute: &'static str) -> Result<bool, Corrupt> {
        match self.item.get(attribute) {
            None => Ok(false),
            Some(AttributeValue::Bool(is_set)) => Ok(*is_set),
            Some(other) => Err(self.wrong_type(attribute, "a boolean", other)),
        }
    }

    pub(super) fn optional_time(&self, attribute: &'static str) -> Result<Option<Timestamp>, Corrupt> {
        Ok(self.optional_number(attribute)?.map(Timestamp::from_millis))
    }

    pub(super) fn time(&self, attribute: &'static str) -> Result<Timestamp, Corrupt> {
        self.required(attribute, self.optional_time(attribute)?)
    }

    pub(super) fn optional_json<T: serde::de::DeserializeOwned>(
        &self,
        attribute: &'static str,
    ) -> Result<Option<T>, Corrupt> {
        let Some(text) = self.optional_string(attribute)? else { return Ok(None) };
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| self.corrupt(attribute, format!("is not the expected JSON: {error}")))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, attribute: &'static str) -> Result<T, Corrupt> {
        self.required(attribute, self.optional_json(attribute)?)
    }

    pub(super) fn strings(&self, attribute: &'static str) -> Result<BTreeMap<String, String>, Corrupt> {
        self.map(attribute)?
            .into_iter()
            .flatten()
            .map(|(key, value)| match value {
                AttributeValue::S(text) => Ok((key.clone(), text.clone())),
                other => Err(self.wrong_type(attribute, "a map of strings", other)),
            })
            .collect()
    }

    /// Returns the entries of a map attribute, sorted by key; `None` if the attribute is missing.
    pub(super) fn map(
        &self,
        attribute: &'static str,
    ) -> Result<Option<BTreeMap<&'a String, &'a AttributeValue>>, Corrupt> {
        match self.item.get(attribute) {
            None => Ok(None),
            Some(AttributeValue::M(map)) => Ok(Some(map.iter().collect())),
            Some(other) => Err(self.wrong_type(attribute, "a map", other)),
        }
    }

    pub(super) fn string_list(&self, attribute: &'static str) -> Result<Vec<String>, Corrupt> {
        match self.item.get(attribute) {
            None => Ok(Vec::new()),
            Some(AttributeValue::L(list)) => list
                .iter()
                .map(|value| match value {
                    AttributeValue::S(text) => Ok(text.clone()),
                    other => Err(self.wrong_type(attribute, "a list of strings", other)),
                })
                .collect(),
            Some(other) => Err(self.wrong_type(attribute, "a list", other)),
        }
    }
}

fn type_of(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::B(_) => "binary",
        AttributeValue::Bool(_) => "a boolean",
        AttributeValue::Bs(_) => "a set of binaries",
        AttributeValue::L(_) => "a list",
        AttributeValue::M(_) => "a map",
        AttributeValue::N(_) => "a number",
        AttributeValue::Ns(_) => "a set of numbers",
        AttributeValue::Null(_) => "null",
        AttributeValue::S(_) => "a string",
        AttributeValue::Ss(_) => "a set of strings",
        _ => "a type unknown to this SDK version",
    }
}
