//! How the functions of a stage are run.

use std::sync::Arc;
use std::time::Duration;

use streamer::ports::{Clock, Entropy, SystemClock, SystemEntropy};

use super::log::{LogSink, TerminalLog};
use crate::destination::Destination;
use crate::faults::Faults;

/// How functions are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a process may take until it asks for its first event (default 10 s, as on AWS).
    pub init_timeout: Duration,
    /// How long a process has between SIGTERM and SIGKILL at the end (default 2 s, as on AWS).
    pub shutdown: Duration,
    /// Whether processes make no progress while they wait for an event, as on AWS (default: they do not). A debugger
    /// that is to stay attached needs this off.
    pub freeze: bool,
    /// How long an environment may wait for an event until it is ended; `None`: for ever. How long AWS lets it wait
    /// is undocumented (default 10 min, of the 5 to 15 min that are seen).
    pub idle_timeout: Option<Duration>,
    /// How many invocations may run at once in all (default 1,000, an account's default quota). What
    /// functions reserve is taken from it.
    pub account_concurrency: u32,
    /// Where the functions' lines go (default: standard error).
    pub log: Arc<dyn LogSink>,
    /// What deadlines are reckoned by.
    pub clock: Arc<dyn Clock>,
    /// Where request ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// What goes wrong on request with invocations.
    pub faults: Faults,
    /// Where records of asynchronous invocations go that are not for a function of the stage, such as its queues
    /// (default: nowhere, which the log says).
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
