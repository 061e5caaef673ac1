//! Fake of AWS Lambda, which runs the functions of a stage.
//!
//! [`Functions`] runs real function binaries as separate processes. Each execution environment has its own
//! Runtime API on a loopback port, with the same interface as inside an AWS sandbox. A function may also run
//! [in this process](InProcess), under the same rules.

mod api;
mod asynchronous;
mod config;
mod environment;
mod function;
mod functions;
mod identifiers;
mod in_process;
mod invoke;
mod lineage;
mod log;
mod midway_fault;
mod options;
mod output;
mod process;
mod registry;
mod runtime_api;
mod schedule;

pub use config::{AsyncSettings, Code, ConfigError, FunctionConfig};
pub use functions::Functions;
pub use in_process::{InProcess, InProcessEnvironment, InProcessEvent, Starting};
pub use invoke::{Invocation, Invoke, InvokeError};
pub use log::{CapturedLog, LogSink, TerminalLog};
pub use options::Options;
pub use schedule::{Expression, ExpressionError, Schedule, Scheduler};
