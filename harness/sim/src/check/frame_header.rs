//! Header of a frame: the fields that most checks need, parsed without the rest of the frame.

use std::borrow::Cow;

use serde::Deserialize;

/// Type, request id and sequence number of a frame.
#[derive(Debug, Deserialize)]
pub(super) struct FrameHeader<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) seq: Option<u64>,
}

impl<'a> FrameHeader<'a> {
    /// Parses the header of a frame from Streamer. Returns `None` for any other text, such as an error of the
    /// gateway itself.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns whether the frame is the terminal frame of a queued request.
    pub(super) fn is_terminal(&self) -> bool {
        self.seq.is_some() && matches!(&*self.kind, "complete" | "error")
    }

    pub(super) fn is_progress(&self) -> bool {
        self.seq.is_some() && self.kind == "progress"
    }
}
