//! Settings for running the functions of a stage.

use std::sync::Arc;
use std::time::Duration;

use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};

use super::log::{LogSink, TerminalLog};
use crate::destination::Destination;
use crate::faults::Faults;

/// Settings for running the functions of a stage.
#[derive(Clone, Debug)]
pub struct Options {
    /// Maximum time that an environment may take from its start until it is ready for its first event;
    /// default 10 s, as on AWS.
    pub init_timeout: Duration,
    /// Time between SIGTERM and SIGKILL when a process is shut down; default 2 s, as on AWS.
    pub shutdown: Duration,
    /// Whether processes are frozen while they wait for an event, as on AWS; default `true`. Set to `false`
    /// to keep a debugger attached.
    pub freeze: bool,
    /// Maximum time that an environment waits for an event before it is ended; `None` means no limit. The
    /// default is 10 min: AWS documents no value, and 5 to 15 min have been observed.
    pub idle_timeout: Option<Duration>,
    /// Maximum number of concurrent invocations of all functions together; default 1,000, the default quota
    /// of an AWS account. The reserved concurrency of functions is part of this number.
    pub account_concurrency: u32,
    /// Log for the output of the functions; default standard error.
    pub log: Arc<dyn LogSink>,
    /// Clock for deadlines of invocations, timestamps of records, and times in ids; default the system clock.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness for request ids and trace ids; default the system's random number generator.
    pub entropy: Arc<dyn Entropy>,
    /// Fault rules for invocations; default none.
    pub faults: Faults,
    /// Receiver of asynchronous invocation records for destinations that are not functions of the stage, such
    /// as queues. If `None` (default), each such record is dropped, and a line in the function's log reports
    /// the loss.
    pub destination: Option<Arc<dyn Destination>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            init_timeout: Duration::from_secs(10),
            shutdown: Duration::from_secs(2),
            freeze: true,
            idle_timeout: Some(Duration::from_mins(10)),
            account_concurrency: 1_000,
            log: Arc::new(TerminalLog::stderr()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            faults: Faults::default(),
            destination: None,
        }
    }
}
