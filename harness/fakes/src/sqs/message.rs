//! A message's attributes, and the digests by which SDKs check messages.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::error::ApiError;

/// The most attributes of one message.
const MAX_ATTRIBUTES: usize = 10;

pub(super) type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// The value of one attribute of a message.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MessageAttribute {
    pub(super) data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) string_value: Option<String>,
    /// In base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) binary_value: Option<String>,
}

impl MessageAttribute {
    /// The value's bytes, and how its digest marks its kind.
    fn value(&self) -> Option<(u8, Vec<u8>)> {
        match (self.data_type.split('.').next()?, &self.string_value, &self.binary_value) {
            ("String" | "Number", Some(text), None) if !text.is_empty() => {
                Some((1, text.clone().into_bytes()))
            }
            ("Binary", None, Some(text)) if !text.is_empty() => Some((2, BASE64_STANDARD.decode(text).ok()?)),
            _ => None,
        }
    }
}

/// Checks what a message carries, and says how many bytes count towards its size.
pub(super) fn check(body: &str, attributes: &MessageAttributes) -> Result<usize, ApiError> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    if !body.chars().all(allowed) {
        return Err(ApiError::message_contents());
    }
    if body.is_empty() {
        return Err(ApiError::missing("MessageBody"));
    }
    if attributes.len() > MAX_ATTRIBUTES {
        let message =
            format!("Number of message attributes [{}] exceeds the allowed maximum [10].", attributes.len());
        return Err(ApiError::parameter(message));
    }
    let mut bytes = body.len();
    for (name, attribute) in attributes {
        let Some((_, value)) = attribute.value() else {
            let message = format!(
                "The message attribute '{name}' must contain a non-empty value of its type, which is String, \
                 Number or Binary."
            );
            return Err(ApiError::parameter(message));
        };
        bytes += name.len() + attribute.data_type.len() + value.len();
    }
    Ok(bytes)
}

/// `MD5OfMessageBody`, in hexadecimal digits.
pub(super) fn md5(body: &str) -> String {
    format!("{:x}", md5::compute(body))
}

/// `MD5OfMessageAttributes`: of each, by name, its name, type, kind and value, each but the kind with its length before it.
pub(super) fn md5_of_attributes<'a>(
    attributes: impl IntoIterator<Item = (&'a String, &'a MessageAttribute)>,
) -> Option<String> {
    let mut text = Vec::new();
    let add = |text: &mut Vec<u8>, part: &[u8]| {
        text.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        text.extend(part);
    };
    for (name, attribute) in attributes {
        let (kind, value) = attribute.value()?;
        add(&mut text, name.as_bytes());
        add(&mut text, attribute.data_type.as_bytes());
        text.push(kind);
        add(&mut text, &value);
    }
    (!text.is_empty()).then(|| format!("{:x}", md5::compute(text)))
}
