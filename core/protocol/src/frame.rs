use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ErrorBody, RequestId};

/// A frame that the server sends to a client. Timestamps in frames are whole seconds since the Unix epoch.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    /// The response to a quick request, which is a request that was answered without being queued.
    Response {
        /// Id of the answered request.
        request_id: RequestId,
        /// `true` if the handler succeeded; `false` if it returned an error.
        success: bool,
        /// Output of the request's handler; `None` if the handler failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Value>,
        /// Error that the handler returned; `None` if the handler succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorBody>,
    },
    /// A slow request was accepted and stored. Its result follows in a later `complete` or `error` frame.
    Acknowledgment {
        /// Id of the accepted request.
        request_id: RequestId,
        /// Status of the request as a protocol keyword, such as `queued`.
        status: String,
        /// Description of the status, for users.
        message: String,
    },
    /// The progress of a queued request.
    Progress {
        /// Id of the queued request that is being processed.
        request_id: RequestId,
        /// Completed part of the work in percent, from 0 to 100.
        percentage: f64,
        /// Description of the current step of the work.
        message: String,
        /// Time at which this progress frame was created, in seconds since the Unix epoch.
        timestamp: u64,
        /// Progress metadata that the handler has set; omitted from the JSON if empty.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        metadata: Map<String, Value>,
        /// Sequence number of the frame among the frames of its request.
        seq: Seq,
    },
    /// The last frame of a queued request that succeeded.
    Complete {
        /// Id of the request that succeeded.
        request_id: RequestId,
        /// Always `true`: a failed request ends with an `error` frame instead.
        success: bool,
        /// Output of the request's handler.
        result: Value,
        /// Time at which the request completed, in seconds since the Unix epoch.
        timestamp: u64,
        /// Sequence number of the frame among the frames of its request.
        seq: Seq,
    },
    /// A message was rejected, or a request failed or was cancelled. An `error` frame is the last frame of its
    /// request.
    Error {
        /// Id of the rejected, failed or cancelled request; `None` if the rejected message has no valid id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
        /// Error code, message for users, and details for programs.
        error: ErrorBody,
        /// Time of the rejection, failure or cancellation, in seconds since the Unix epoch.
        timestamp: u64,
        /// Sequence number of the last frame of a queued request; `None` if the request was not queued.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
}

impl Frame {
    /// Serializes the frame to the JSON text that is sent over the WebSocket.
    ///
    /// # Panics
    /// Never: a frame contains only strings, finite numbers and JSON values, which always serialize.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("frames contain only serializable values")
    }

    /// Returns the id of the frame's request; `None` for an `error` frame without a request id.
    #[must_use]
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Response { request_id, .. }
            | Self::Acknowledgment { request_id, .. }
            | Self::Progress { request_id, .. }
            | Self::Complete { request_id, .. } => Some(request_id),
            Self::Error { request_id, .. } => request_id.as_ref(),
        }
    }

    /// Returns `true` if this frame is the last one of its request: a `response`, `complete` or `error` frame.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Response { .. } | Self::Complete { .. } | Self::Error { .. } => true,
            Self::Acknowledgment { .. } | Self::Progress { .. } => false,
        }
    }
}

/// The sequence number of a frame among the frames of its request.
///
/// The `n`-th frame of an attempt has the sequence number `epoch · 2²⁰ + n`, where each attempt of a request has a
/// higher epoch than the attempt before. So sequence numbers increase across attempts and processes, although not
/// every number is stored. A client drops a frame if its sequence number is not higher than that of every earlier
/// frame of the request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    const BITS_PER_EPOCH: u32 = 20;

    /// Returns the number that precedes the sequence number of an attempt's first frame. `epoch` is the
    /// attempt's epoch, a number that rises with each claim of the request.
    #[must_use]
    pub const fn start_of(epoch: u64) -> Self {
        Self(epoch << Self::BITS_PER_EPOCH)
    }

    /// Returns the next sequence number of the same attempt.
    ///
    /// An attempt has 2²⁰ sequence numbers. After the last number, `next` repeats the last number, so that an attempt
    /// never uses a number of the next attempt. Ten frames per second would use up these
    /// numbers after 29 hours, but a Lambda invocation lasts at most 15 minutes.
    #[must_use]
    pub const fn next(self) -> Self {
        let last_of_epoch = self.0 | ((1 << Self::BITS_PER_EPOCH) - 1);
        if self.0 == last_of_epoch { self } else { Self(self.0 + 1) }
    }

    /// Creates a sequence number from the value that [`as_u64`](Self::as_u64) returned.
    #[must_use]
    pub const fn from_stored(number: u64) -> Self {
        Self(number)
    }

    /// Returns the sequence number as an integer.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;
    use crate::{ErrorCode, FieldError};

    fn sample_frames() -> Vec<Frame> {
        let id = RequestId::new("r1");
        let mut metadata = Map::new();
        metadata.insert("rows".into(), json!(1200));
        let seq = Seq::start_of(1).next();
        vec![
            Frame::Response {
                request_id: id.clone(),
                success: true,
                data: Some(json!({"message": "hi"})),
                error: None,
            },
            Frame::Response { request_id: id.clone(), success: true, data: Some(Value::Null), error: None },
            Frame::Response {
                request_id: id.clone(),
                success: false,
                data: None,
                error: Some(
                    ErrorBody::new(ErrorCode::Custom("CARD_DECLINED".into()), "The card was declined")
                        .with_detail("reason", "expired"),
                ),
            },
            Frame::Acknowledgment {
                request_id: id.clone(),
                status: "queued".into(),
                message: "Request queued for async processing".into(),
            },
            Frame::Progress {
                request_id: id.clone(),
                percentage: 45.5,
                message: "Half way".into(),
                timestamp: 1_700_000_000,
                metadata: Map::new(),
                seq,
            },
            Frame::Progress {
                request_id: id.clone(),
                percentage: 100.0,
                message: "Done".into(),
                timestamp: 1_700_000_001,
                metadata,
                seq: seq.next(),
            },
            Frame::Complete {
                request_id: id.clone(),
                success: true,
                result: json!({"url": "s3://bucket/report.pdf"}),
                timestamp: 1_700_000_002,
                seq: seq.next().next(),
            },
            Frame::Error {
                request_id: Some(id),
                error: ErrorBody::invalid_fields(&[FieldError::new("start_date", "is required")]),
                timestamp: 1_700_000_003,
                seq: None,
            },
            Frame::Error {
                request_id: None,
                error: ErrorBody::new(ErrorCode::ValidationError, "The message is not JSON"),
                timestamp: 1_700_000_004,
                seq: Some(seq),
            },
        ]
    }

    #[test]
    fn frames_serialize_to_their_wire_format() {
        let lines = sample_frames().iter().map(Frame::to_json).collect::<Vec<_>>().join("\n");
        assert_snapshot!(lines);
    }

    #[test]
    fn frames_round_trip_through_json() {
        for frame in sample_frames() {
            let back: Option<Frame> = serde_json::from_str(&frame.to_json()).ok();
            // `data: null` deserializes to `None`: the JSON does not distinguish `null` from an absent value.
            let has_null_data = matches!(&frame, Frame::Response { data: Some(Value::Null), .. });
            assert!(
                has_null_data || back.as_ref() == Some(&frame),
                "frame is unchanged after a JSON round trip: {frame:?}, found {back:?}"
            );
        }
    }

    #[test]
    fn seq_increases_within_an_attempt_and_across_attempts() {
        let first = Seq::start_of(1).next();
        assert!(first > Seq::start_of(1));
        assert!(first.next() > first);
        assert!(Seq::start_of(2) > Seq::from_stored(Seq::start_of(1).as_u64() + (1 << 20) - 1));
    }

    #[test]
    fn last_seq_of_an_attempt_does_not_advance_into_the_next_attempt() {
        let last = Seq::from_stored(Seq::start_of(2).as_u64() - 1);
        assert_eq!(last.next(), last);
    }
}
