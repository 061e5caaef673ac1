//! What a mapping reads from, calls and is told the time by.

use std::sync::Arc;

use streamer::ports::{Clock, Entropy};

use super::on_failure::OnFailure;
use super::source::RecordSource;
use crate::faults::Faults;
use crate::lambda::Invoke;

/// What a mapping stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The stream.
    pub source: Arc<dyn RecordSource>,
    /// What runs the function.
    pub invoke: Arc<dyn Invoke>,
    /// Where batches go that were given up on.
    pub on_failure: Arc<dyn OnFailure>,
    /// What the age of records is reckoned by.
    pub clock: Arc<dyn Clock>,
    /// Where the ids of the invocations come from.
    pub entropy: Arc<dyn Entropy>,
    /// What goes wrong with deliveries on purpose ([`Call::records`](crate::faults::Call::records)): they come
    /// twice, or late, or a read that finds some fails and is made again.
    pub faults: Faults,
}
