//! Random ids that API Gateway assigns to connections, requests and messages.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::Serialize;
use streamer::ports::Entropy;

/// Length of an id in characters: eleven bytes in padded base64.
const LENGTH: usize = 16;

/// Id of a connection, such as `R1kmxc2VNjMCFIA=`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub(super) struct ConnectionId(String);

impl ConnectionId {
    pub(super) fn random(entropy: &dyn Entropy) -> Self {
        Self(random_id(entropy))
    }

    /// Parses a connection id that a caller sent; `None` if `text` does not have the form of an id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let body = text.strip_suffix('=')?;
        let in_alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (text.len() == LENGTH && body.bytes().all(in_alphabet)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of a request (a handshake, message or disconnect), in the same form as a connection id.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct RequestId(String);

impl RequestId {
    pub(super) fn random(entropy: &dyn Entropy) -> Self {
        Self(random_id(entropy))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn random_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 11];
    entropy.fill(&mut bytes);
    URL_SAFE.encode(bytes)
}

#[cfg(test)]
mod tests {
    use streamer::ports::SystemEntropy;

    use super::*;

    #[test]
    fn connection_ids_are_16_base64url_characters_that_end_with_an_equals_sign() {
        let entropy = SystemEntropy::new();
        for _ in 0..100 {
            let id = ConnectionId::random(&entropy).to_string();
            assert_eq!(id.len(), 16, "{id}");
            assert_eq!(ConnectionId::parse(&id).map(|id| id.to_string()), Some(id));
        }
        assert!(ConnectionId::parse("R1kmxc2VNjMCFIA=").is_some());
        for bad in [
            "",
            "=",
            "R1kmxc2VNjMCFIA",
            "R1kmxc2VNjMCFIAA",
            "R1kmxc2VNjM/FIA=",
            "éR1kmxc2VNjMCF=",
            "R1kmxc2VNjMCFIAAA=",
        ] {
            assert_eq!(ConnectionId::parse(bad), None, "{bad}");
        }
    }
}
