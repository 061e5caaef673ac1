//! A frame, as far as the checks read it before they know that they need more.

use std::borrow::Cow;

use serde::Deserialize;

/// What a frame is, without what it tells.
#[derive(Debug, Deserialize)]
pub(super) struct FrameHeader<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) seq: Option<u64>,
}

impl<'a> FrameHeader<'a> {
    /// Of a frame of ours; what else arrives is the gateway's own, or an app's.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether it ends a queued request.
    pub(super) fn is_end(&self) -> bool {
        self.seq.is_some() && matches!(&*self.kind, "complete" | "error")
    }

    pub(super) fn is_progress(&self) -> bool {
        self.seq.is_some() && self.kind == "progress"
    }
}
