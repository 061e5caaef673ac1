use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::template::TemplateError;
use crate::{event_source, gateway, lambda};
use streamer_fakes::dynamodb::OpenError;

/// Why a stage did not start: what is wrong, and how to mend it.
#[derive(Debug)]
#[non_exhaustive]
pub enum StageError {
    /// The port cannot be listened on.
    Port {
        /// The port.
        port: u16,
        /// What the operating system says.
        source: io::Error,
    },
    /// No stage can be made from the template.
    Template(TemplateError),
    /// The template has no WebSocket API.
    NoApi(PathBuf),
    /// The builder was told two things that exclude one another.
    Contradiction(String),
    /// The data folder cannot be opened.
    Data(OpenError),
    /// A table cannot be made as the template says.
    Table {
        /// Its name.
        table: String,
        /// What DynamoDB says.
        message: String,
    },
    /// The items of a table cannot be read.
    Items {
        /// Its name.
        table: String,
        /// What DynamoDB says.
        message: String,
    },
    /// A queue cannot be made as the template says.
    Queue(String),
    /// Cargo did not build the functions.
    Build(String),
    /// There is no program for a function.
    NoExecutable {
        /// The name of the binary.
        binary: String,
        /// The binaries that there are.
        known: Vec<String>,
    },
    /// A function has no code to run in process.
    NoCode {
        /// Its name in the template.
        function: String,
        /// The name of the binary that it is built from.
        binary: String,
    },
    /// There is no key to sign tokens with.
    NoKey(io::Error),
    /// A function ended before it asked for its first event.
    FunctionDied {
        /// Its name in the template.
        function: String,
        /// How it ended, and what it wrote last.
        message: String,
    },
    /// The functions cannot be run as the template says.
    Functions(lambda::ConfigError),
    /// The gateway cannot be run as the template says.
    Gateway(gateway::ConfigError),
    /// An event source mapping cannot be run as the template says.
    Mapping(String),
    /// A part of the running stage has stopped.
    Stopped(String),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, source } if source.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "port {port} is in use: end what listens there, or choose another with --port (0 takes a free one)"
            ),
            Self::Port { port, source } => {
                write!(f, "port {port} cannot be listened on: {source}; choose another with --port")
            }
            Self::Template(error) => error.fmt(f),
            Self::NoApi(path) => write!(
                f,
                "{} has no WebSocket API: it needs an AWS::ApiGatewayV2::Api of ProtocolType WEBSOCKET",
                path.display()
            ),
            Self::Data(error) => error.fmt(f),
            Self::Table { table, message } => write!(f, "table {table} cannot be made: {message}"),
            Self::Items { table, message } => {
                write!(f, "the items of table {table} cannot be read: {message}")
            }
            Self::Build(message) | Self::Contradiction(message) => f.write_str(message),
            Self::NoExecutable { binary, known } => write!(
                f,
                "the template's Metadata.BuildProperties.Binary names {binary:?}, and no such binary was built (there are: {})",
                known.join(", ")
            ),
            Self::NoCode { function, binary } => write!(
                f,
                "{function} is built from {binary:?}, and there is nothing to run: .app(…) runs connect, disconnect, router and processor, .function({binary:?}, …) code of your own, .executables(…) programs"
            ),
            Self::NoKey(error) => write!(f, "a key to sign tokens with cannot be made: {error}"),
            Self::FunctionDied { function, message } => write!(f, "{function} does not start: {message}"),
            Self::Functions(error) => error.fmt(f),
            Self::Gateway(error) => error.fmt(f),
            Self::Queue(message) | Self::Mapping(message) => f.write_str(message),
            Self::Stopped(message) => {
                write!(f, "the stage no longer works, and ends: {message} (this is a fault of the harness)")
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
            | Self::NoCode { .. }
            | Self::FunctionDied { .. }
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
