//! Dependencies of an event source mapping: stream, function, failure destination, clock, randomness and faults.

use std::sync::Arc;

use streamer::ports::{Clock, Entropy};

use super::on_failure::OnFailure;
use super::source::RecordSource;
use crate::faults::Faults;
use crate::lambda::Invoke;

/// Dependencies of an event source mapping.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Stream that the mapping reads.
    pub source: Arc<dyn RecordSource>,
    /// Invokes the mapping's function.
    pub invoke: Arc<dyn Invoke>,
    /// Receives the failure record of each batch that the mapping stops retrying.
    pub on_failure: Arc<dyn OnFailure>,
    /// Clock for the age of records and the timestamps of failure records.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness for the request ids of invocations.
    pub entropy: Arc<dyn Entropy>,
    /// Fault rules for reads and deliveries of records ([`Call::records`](crate::faults::Call::records)) and for
    /// events on their way to the function ([`Call::event`](crate::faults::Call::event)).
    ///
    /// A delivery can be delayed or duplicated. A read that returns records can be throttled or can fail; the mapping
    /// then repeats the read.
    pub faults: Faults,
}
