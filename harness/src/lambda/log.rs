//! Where the lines that functions write go.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Something that takes what functions write to their standard output and error, line by line.
pub trait LogSink: fmt::Debug + Send + Sync {
    /// Takes one line of `function`, without its line end.
    fn line(&self, function: &str, line: &str);
}

/// A log for people: each line behind its function's name.
pub struct TerminalLog<W = io::Stderr>(Mutex<W>);

impl TerminalLog {
    /// A log on standard error, which leaves standard output to results.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write + Send> TerminalLog<W> {
    /// A log on `writer`.
    #[must_use]
    pub const fn new(writer: W) -> Self {
        Self(Mutex::new(writer))
    }
}

impl<W: Write + Send> LogSink for TerminalLog<W> {
    fn line(&self, function: &str, line: &str) {
        let line = format!("{function:<10} | {line}\n");
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A terminal that has gone away must not take the stage with it.
        let _ = writer.write_all(line.as_bytes());
    }
}

impl<W> fmt::Debug for TerminalLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminalLog")
    }
}

/// A log for tests, which keeps every line.
#[derive(Debug)]
pub struct CapturedLog(watch::Sender<Vec<(String, String)>>);

impl CapturedLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    /// The lines that `function` has written so far.
    #[must_use]
    pub fn lines(&self, function: &str) -> Vec<String> {
        let lines = self.0.borrow();
        lines.iter().filter(|(name, _)| name == function).map(|(_, line)| line.clone()).collect()
    }

    /// Waits until `function` has written a line that contains `text`, and returns that line.
    ///
    /// Lines travel through a pipe and may come in after the reply of the invocation that wrote them.
    pub async fn wait_for(&self, function: &str, text: &str) -> String {
        let mut lines = self.0.subscribe();
        loop {
            let found = lines
                .borrow_and_update()
                .iter()
                .find(|(name, line)| name == function && line.contains(text))
                .map(|(_, line)| line.clone());
            if let Some(line) = found {
                return line;
            }
            // It cannot fail: the sender lives in self.
            let _ = lines.changed().await;
        }
    }
}

impl Default for CapturedLog {
    fn default() -> Self {
        Self::new()
    }
}

impl LogSink for CapturedLog {
    fn line(&self, function: &str, line: &str) {
        self.0.send_modify(|lines| lines.push((function.to_owned(), line.to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_shows_each_line_behind_its_functions_name() {
        let log = TerminalLog::new(Vec::new());
        log.line("router", "one");
        log.line("processor-with-a-long-name", "two");
        let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written, "router     | one\nprocessor-with-a-long-name | two\n");
        assert_eq!(format!("{:?}", TerminalLog::stderr()), "TerminalLog");
    }

    #[test]
    fn a_terminal_that_is_gone_is_no_error() {
        #[derive(Debug)]
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        TerminalLog::new(Gone).line("router", "unheard");
    }

    #[tokio::test]
    async fn captured_lines_are_kept_apart_by_function_and_can_be_waited_for() {
        let log = CapturedLog::default();
        let waiting = log.wait_for("b", "needle");
        let writing = async {
            log.line("a", "a needle elsewhere");
            log.line("b", "hay");
            log.line("b", "the needle");
        };
        let (found, ()) = tokio::join!(waiting, writing);
        assert_eq!(found, "the needle");
        assert_eq!(log.lines("b"), ["hay", "the needle"]);
    }
}
