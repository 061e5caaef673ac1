//! The process of a command: its result, its async runtime, its output, and the signals that stop it.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) type CommandResult = Result<ExitCode, Box<dyn Error>>;

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Writes to standard output. A closed pipe is not an error, because its reader, such as `head`, has read
/// enough.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The signals that stop a command: SIGINT (Ctrl-C), SIGHUP (the terminal closes) and SIGTERM.
pub(super) struct StopSignals {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Starts to catch the signals. Must be called within a tokio runtime, before the command starts processes
    /// or other resources that need a shutdown.
    pub(super) fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let (hangup, terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, hangup, terminate })
    }

    /// Waits for the next SIGINT, SIGHUP or SIGTERM.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
