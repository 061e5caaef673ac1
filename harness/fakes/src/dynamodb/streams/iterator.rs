//! Shard iterators: strings that encode a reader's position in a shard, so that the server keeps no state about
//! readers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use streamer::ports::Timestamp;

use super::sequence_number::SequenceNumber;
use crate::dynamodb::error::ApiError;

/// Time after which a shard iterator expires.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Position of a reader in a shard, with the time at which the iterator was issued.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ShardIterator {
    pub(super) stream_arn: String,
    pub(super) shard: String,
    pub(super) after: SequenceNumber,
    pub(super) issued: Timestamp,
}

#[derive(Deserialize, Serialize)]
struct Position(String, u64, Timestamp);

impl ShardIterator {
    /// Encodes the iterator in AWS's format: the stream's ARN, a version, and an opaque position.
    pub(super) fn encode(&self) -> String {
        let position = Position(self.shard.clone(), self.after.0, self.issued);
        let position = serde_json::to_vec(&position).expect("strings and numbers always serialize to JSON");
        format!("{}|1|{}", self.stream_arn, URL_SAFE_NO_PAD.encode(position))
    }

    /// Decodes an iterator. Fails if the iterator is malformed, or was issued more than 15 minutes before `now`.
    pub(super) fn decode(text: &str, now: Timestamp) -> Result<Self, ApiError> {
        let iterator = Self::parse(text).ok_or_else(|| ApiError::validation("Invalid ShardIterator"))?;
        if now.since(iterator.issued) > LIFETIME { Err(ApiError::expired_iterator()) } else { Ok(iterator) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (stream_arn, position) = text.split_once("|1|")?;
        let position = URL_SAFE_NO_PAD.decode(position).ok()?;
        let Position(shard, after, issued) = serde_json::from_slice(&position).ok()?;
        Some(Self { stream_arn: stream_arn.to_owned(), shard, after: SequenceNumber(after), issued })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_iterator_expires_after_15_minutes_and_a_malformed_iterator_is_invalid() {
        let issued = Timestamp::from_secs(1_000);
        let iterator = ShardIterator {
            stream_arn: "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/l".to_owned(),
            shard: "shardId-1".to_owned(),
            after: SequenceNumber(7),
            issued,
        };
        let text = iterator.encode();
        assert_eq!(ShardIterator::decode(&text, issued + LIFETIME).unwrap(), iterator);
        let late = ShardIterator::decode(&text, issued + LIFETIME + Duration::from_millis(1)).unwrap_err();
        assert!(late.to_string().contains("ExpiredIteratorException"), "{late}");
        for malformed in ["", "x", "arn|1|", "arn|1|!!!", "arn|1|e30", "arn|2|e30"] {
            let error = ShardIterator::decode(malformed, issued).unwrap_err().to_string();
            assert!(error.contains("ValidationException"), "{malformed}: {error}");
        }
    }
}
