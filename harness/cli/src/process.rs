//! The process that a command runs in: its result, its runtime, its output, and the signals that end it.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) type CommandResult = Result<ExitCode, Box<dyn Error>>;

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Writes to standard output; whoever has stopped to read it has read enough.
pub(super) fn say(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Ctrl-C, a terminal that closes, or what asks a process to end; listened for from when it is made.
pub(super) struct Stop {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Stop {
    /// Within a runtime, before anything is started that must be ended again.
    pub(super) fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let (hangup, terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, hangup, terminate })
    }

    pub(super) async fn requested(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
