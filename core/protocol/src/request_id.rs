use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a request, chosen by the client that sends the request. Two users may use the same id for different
/// requests.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// Maximum length of a request id that a client may choose, in characters.
    pub const MAX_CHARS: usize = 128;

    /// Creates a request id from a text, without validating the text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the request id as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Validates a request id that a client chose.
    ///
    /// # Errors
    /// A description of the problem, such as `must not be empty`, if the id is empty, is longer than
    /// [`MAX_CHARS`](Self::MAX_CHARS) characters, or contains control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let chars = text.chars().count();
        if chars == 0 {
            Err("must not be empty".to_owned())
        } else if chars > Self::MAX_CHARS {
            Err(format!("has {chars} characters; at most {} are allowed", Self::MAX_CHARS))
        } else if text.chars().any(char::is_control) {
            Err("must not contain control characters".to_owned())
        } else {
            Ok(Self::new(text))
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RequestId {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
