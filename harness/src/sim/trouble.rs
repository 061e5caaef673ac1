//! Has happen what a plan says goes wrong.

use super::plan::Plan;
use super::record::Recorder;
use crate::stage::Stage;

/// What goes wrong in a world, for as long as it lives.
#[derive(Debug)]
pub(super) struct Trouble {}

impl Trouble {
    /// Begins with the plan's faults.
    pub(super) fn begin(_plan: &Plan, _stage: &Stage, _recorder: &Recorder) -> Self {
        Self {}
    }

    /// Nothing goes wrong from now on.
    pub(super) fn end(self) {}
}
