use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ErrorBody, RequestId};

/// What we send to a client. Timestamps are whole seconds since the Unix epoch.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    /// The answer to a quick request.
    Response {
        /// The request it answers.
        request_id: RequestId,
        /// Whether the handler succeeded.
        success: bool,
        /// What the handler returned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Value>,
        /// The handler's own failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorBody>,
    },
    /// A slow request has been taken: it will end, whatever happens.
    Acknowledgment {
        /// The request that was taken.
        request_id: RequestId,
        /// Where the request stands, in the protocol's words.
        status: String,
        /// The same for people.
        message: String,
    },
    /// How far a queued request has come.
    Progress {
        /// The request.
        request_id: RequestId,
        /// From 0 to 100.
        percentage: f64,
        /// What is being done.
        message: String,
        /// When it was reported.
        timestamp: u64,
        /// What the handler tells about its work.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        metadata: Map<String, Value>,
        /// Its place among the request's frames.
        seq: Seq,
    },
    /// A queued request has succeeded: its last frame.
    Complete {
        /// The request.
        request_id: RequestId,
        /// Always true: a failure is an `error` frame.
        success: bool,
        /// What the handler returned.
        result: Value,
        /// When it ended.
        timestamp: u64,
        /// Its place among the request's frames.
        seq: Seq,
    },
    /// A message was refused, or a queued request has failed: then its last frame.
    Error {
        /// The request, where the message lets us know it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
        /// What went wrong.
        error: ErrorBody,
        /// When.
        timestamp: u64,
        /// Its place among the request's frames, if it ends a queued request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
}

impl Frame {
    /// The frame as it goes over the wire.
    ///
    /// # Panics
    /// Never: a frame is made of strings, finite numbers and JSON values, all of which serialise.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("frames are made of what JSON can say")
    }

    /// The request that it is about, if it says so.
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

    /// Whether no other frame about its request follows.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Response { .. } | Self::Complete { .. } | Self::Error { .. } => true,
            Self::Acknowledgment { .. } | Self::Progress { .. } => false,
        }
    }
}

/// The place of a frame among the frames of its request: attempt and position in one number.
///
/// `epoch · 2²⁰ + n`: it rises across attempts and processes without being stored for every push.
/// Clients drop frames with a lower number than they have seen.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    const BITS_PER_EPOCH: u32 = 20;

    /// The number before the first frame of the attempt that `epoch` names.
    #[must_use]
    pub const fn start_of(epoch: u64) -> Self {
        Self(epoch << Self::BITS_PER_EPOCH)
    }

    /// The number after this one.
    ///
    /// An attempt that has used up its 2²⁰ numbers stays at the last of them, so that it never
    /// reaches into the next attempt's: at ten pushes a second that is after 29 hours, and Lambda ends after
    /// 15 minutes.
    #[must_use]
    pub const fn next(self) -> Self {
        let last_of_epoch = self.0 | ((1 << Self::BITS_PER_EPOCH) - 1);
        if self.0 == last_of_epoch { self } else { Self(self.0 + 1) }
    }

    /// Takes a stored number as it is.
    #[must_use]
    pub const fn from_stored(number: u64) -> Self {
        Self(number)
    }

    /// The number.
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

    fn every_frame() -> Vec<Frame> {
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
    fn every_frame_as_it_goes_over_the_wire() {
        let lines = every_frame().iter().map(Frame::to_json).collect::<Vec<_>>().join("\n");
        assert_snapshot!(lines);
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        for frame in every_frame() {
            let back: Option<Frame> = serde_json::from_str(&frame.to_json()).ok();
            // `data: null` reads back as no data: JSON clients cannot tell either.
            let nulled = matches!(&frame, Frame::Response { data: Some(Value::Null), .. });
            assert!(nulled || back.as_ref() == Some(&frame), "{frame:?} became {back:?}");
        }
    }

    #[test]
    fn seq_rises_within_and_across_attempts() {
        let first = Seq::start_of(1).next();
        assert!(first > Seq::start_of(1));
        assert!(first.next() > first);
        assert!(Seq::start_of(2) > Seq::from_stored(Seq::start_of(1).as_u64() + (1 << 20) - 1));
    }

    #[test]
    fn an_attempt_never_reaches_into_the_next_attempts_numbers() {
        let last = Seq::from_stored(Seq::start_of(2).as_u64() - 1);
        assert_eq!(last.next(), last);
    }
}
