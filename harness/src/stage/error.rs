use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::template::TemplateError;
use crate::{event_source, gateway, lambda};
use streamer_fakes::dynamodb::OpenError;

/// Error of a stage. Its message says what is wrong and how to fix it.
#[derive(Debug)]
#[non_exhaustive]
pub enum StageError {
    /// The stage cannot listen on the port.
    Port {
        /// TCP port number; 0 stands for any free port.
        port: u16,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The template cannot be read, is invalid, or uses something that the stage does not support.
    Template(TemplateError),
    /// The template at this path has no WebSocket API.
    NoApi(PathBuf),
    /// Two settings of the builder exclude each other. The text says which setting to remove.
    Contradiction(String),
    /// The folder that stores the tables and streams cannot be opened.
    Data(OpenError),
    /// A table cannot be created with the layout in the template.
    Table {
        /// Name of the table.
        table: String,
        /// Reason, such as DynamoDB's error message.
        message: String,
    },
    /// The items of a table cannot be read.
    Items {
        /// Name of the table.
        table: String,
        /// Error message of DynamoDB.
        message: String,
    },
    /// A queue cannot be created with the settings in the template. The text gives the reason.
    Queue(String),
    /// The functions were not built, because Cargo cannot be run or the build failed. The text gives the
    /// reason.
    Build(String),
    /// The binary of a function is not among the executables of the stage.
    NoExecutable {
        /// Name of the missing binary.
        binary: String,
        /// Names of the binaries among the stage's executables.
        known: Vec<String>,
    },
    /// A stage in process has no code for a function.
    MissingCode {
        /// Logical id of the function in the template.
        function: String,
        /// Name of the binary that the template builds the function from.
        binary: String,
    },
    /// The key pair that signs tokens cannot be created.
    NoKey(io::Error),
    /// A function did not start: its code or process ended before it asked for an event.
    FunctionDidNotStart {
        /// Logical id of the function in the template, or the name of an additional function.
        function: String,
        /// Description of how the function ended, with its last output.
        message: String,
    },
    /// The settings of a function are invalid.
    Functions(lambda::ConfigError),
    /// The settings of the gateway are invalid.
    Gateway(gateway::ConfigError),
    /// An event source mapping cannot be set up. The text gives the reason.
    Mapping(String),
    /// A background task of the running stage has stopped, which is a bug in the harness.
    Stopped(String),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, source } if source.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "port {port} is in use; stop the program that listens on it, or choose another port with \
                 --port (0 picks a free port)"
            ),
            Self::Port { port, source } => {
                write!(f, "cannot listen on port {port}: {source}; choose another port with --port")
            }
            Self::Template(error) => error.fmt(f),
            Self::NoApi(path) => write!(
                f,
                "the template {} has no WebSocket API; add an AWS::ApiGatewayV2::Api with ProtocolType WEBSOCKET",
                path.display()
            ),
            Self::Data(error) => error.fmt(f),
            Self::Table { table, message } => write!(f, "table {table} cannot be created: {message}"),
            Self::Items { table, message } => {
                write!(f, "the items of table {table} cannot be read: {message}")
            }
            Self::Build(message) | Self::Contradiction(message) => f.write_str(message),
            Self::NoExecutable { binary, known } => write!(
                f,
                "the template's Metadata.BuildProperties.Binary names {binary:?}, but no such binary was \
                 built; the binaries are: {}",
                known.join(", ")
            ),
            Self::MissingCode { function, binary } => write!(
                f,
                "function {function} is built from the binary {binary:?}, but the stage has no code for that \
                 binary; add .app(…) for connect, disconnect, router, processor, worker and sweeper, \
                 .function({binary:?}, …) for your own code, or .executables(…) for programs"
            ),
            Self::NoKey(error) => write!(f, "the key that signs tokens cannot be created: {error}"),
            Self::FunctionDidNotStart { function, message } => {
                write!(f, "function {function} does not start: {message}")
            }
            Self::Functions(error) => error.fmt(f),
            Self::Gateway(error) => error.fmt(f),
            Self::Queue(message) | Self::Mapping(message) => f.write_str(message),
            Self::Stopped(message) => {
                write!(
                    f,
                    "the stage stops, because one of its tasks has stopped: {message} (this is a bug in the harness)"
                )
            }
        }
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Port { source, .. } | Self::NoKey(source) => Some(source),
            Self::Template(error) => error.source(),
            Self::Data(error) => error.source(),
            Self::NoApi(_)
            | Self::Table { .. }
            | Self::Items { .. }
            | Self::Queue(_)
            | Self::Build(_)
            | Self::NoExecutable { .. }
            | Self::MissingCode { .. }
            | Self::FunctionDidNotStart { .. }
            | Self::Functions(_)
            | Self::Gateway(_)
            | Self::Mapping(_)
            | Self::Contradiction(_)
            | Self::Stopped(_) => None,
        }
    }
}

impl From<TemplateError> for StageError {
    fn from(error: TemplateError) -> Self {
        Self::Template(error)
    }
}

impl From<OpenError> for StageError {
    fn from(error: OpenError) -> Self {
        Self::Data(error)
    }
}

impl From<lambda::ConfigError> for StageError {
    fn from(error: lambda::ConfigError) -> Self {
        Self::Functions(error)
    }
}

impl From<gateway::ConfigError> for StageError {
    fn from(error: gateway::ConfigError) -> Self {
        Self::Gateway(error)
    }
}

impl From<event_source::SettingsError> for StageError {
    fn from(error: event_source::SettingsError) -> Self {
        Self::Mapping(error.to_string())
    }
}
