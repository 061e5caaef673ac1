//! Message attributes, and the MD5 digests with which SDKs verify messages.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::error::ApiError;

/// Maximum number of attributes of one message.
const MAX_ATTRIBUTES: usize = 10;

pub(super) type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// Value of one message attribute, with its data type.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MessageAttribute {
    pub(super) data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) string_value: Option<String>,
    /// Binary value in base64; `None` for a text or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) binary_value: Option<String>,
}

impl MessageAttribute {
    /// Returns the byte that marks the kind of value in the MD5 digest (1 for text, 2 for binary), and the value's
    /// bytes. `None` if the value is empty or does not match the data type.
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

/// Validates a message's body and attributes. Returns the number of bytes that count towards the message's size.
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

/// Returns `MD5OfMessageBody`, in hexadecimal digits.
pub(super) fn md5(body: &str) -> String {
    format!("{:x}", md5::compute(body))
}

/// Returns `MD5OfMessageAttributes`; `None` without attributes.
///
/// The digest covers the attributes in the order of their names: name, data type, kind mark and value. The name, data
/// type and value are each preceded by their length.
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
