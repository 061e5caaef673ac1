//! Logs for the output of functions: on a terminal, or in memory for tests.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::watch;

/// Receives the lines that functions write to their standard output and standard error.
pub trait LogSink: fmt::Debug + Send + Sync {
    /// Receives one line that `function` wrote, without the line ending.
    fn line(&self, function: &str, line: &str);
}

/// A log for a terminal. Each line starts with the name of the function that wrote the line.
///
/// A slow reader, such as a paused pager, does not block the functions. Up to [`TerminalLog::WAITING_LINES`]
/// lines wait in memory. The log drops further lines, and writes the number of dropped lines in their place.
pub struct TerminalLog<W = io::Stderr> {
    waiting: Arc<Waiting>,
    /// Output of the log; `None` after the first line has started the writer thread, which then owns the
    /// output.
    writer: Mutex<Option<W>>,
    ended: Mutex<Option<Receiver<()>>>,
}

/// Lines that wait for the writer thread.
#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<String>,
    /// Number of lines dropped after the last line of the queue.
    dropped: u64,
    closed: bool,
}

impl TerminalLog {
    /// Returns a log that writes to standard error, so that standard output stays free for results.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W> TerminalLog<W> {
    /// Maximum number of lines that wait in memory to be written: 10,000. Further lines are dropped.
    pub const WAITING_LINES: usize = 10_000;

    /// Maximum time that dropping the log waits for the remaining lines to be written.
    const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
}

impl<W: Write + Send + 'static> TerminalLog<W> {
    /// Returns a log that writes to `writer`.
    #[must_use]
    pub fn new(writer: W) -> Self {
        Self { waiting: Arc::default(), writer: Mutex::new(Some(writer)), ended: Mutex::default() }
    }

    fn start(&self) {
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (end, ended) = mpsc::channel();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        let waiting = Arc::clone(&self.waiting);
        std::thread::spawn(move || {
            write_all(writer, &waiting);
            drop(end);
        });
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next line to write, or for a note about dropped lines. Returns `None` after the log was
    /// closed.
    fn next(&self) -> Option<String> {
        let lines = self.lock();
        let idle = |lines: &mut Lines| lines.queue.is_empty() && lines.dropped == 0 && !lines.closed;
        let mut lines = self.changed.wait_while(lines, idle).unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.queue.pop_front() {
            return Some(line);
        }
        let dropped = std::mem::take(&mut lines.dropped);
        (dropped > 0)
            .then(|| format!("{dropped} lines dropped: the functions wrote faster than the log was read\n"))
    }
}

fn write_all(mut writer: impl Write, waiting: &Waiting) {
    while let Some(line) = waiting.next() {
        // Ignore write errors: a closed terminal must not stop the stage.
        let _ = writer.write_all(line.as_bytes());
    }
    let _ = writer.flush();
}

impl<W: Write + Send + 'static> LogSink for TerminalLog<W> {
    fn line(&self, function: &str, line: &str) {
        let mut lines = self.waiting.lock();
        // After the first dropped line, drop all lines until the note about dropped lines is written.
        // Otherwise, the note would come after lines that were logged later.
        if lines.dropped > 0 || lines.queue.len() >= Self::WAITING_LINES {
            lines.dropped += 1;
        } else {
            lines.queue.push_back(format!("{function:<10} | {line}\n"));
        }
        drop(lines);
        self.waiting.changed.notify_one();
        self.start();
    }
}

impl<W> Drop for TerminalLog<W> {
    fn drop(&mut self) {
        self.waiting.lock().closed = true;
        self.waiting.changed.notify_one();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // An error means that the writer thread has finished or is stuck. In both cases the wait is over.
            let _ = ended.recv_timeout(Self::FLUSH_TIMEOUT);
        }
    }
}

impl<W> fmt::Debug for TerminalLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminalLog")
    }
}

/// A log for tests, which keeps all lines in memory.
#[derive(Debug)]
pub struct CapturedLog(watch::Sender<Vec<(String, String)>>);

impl CapturedLog {
    /// Returns an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    /// Returns the lines that `function` has written so far.
    #[must_use]
    pub fn lines(&self, function: &str) -> Vec<String> {
        let lines = self.0.borrow();
        lines.iter().filter(|(name, _)| name == function).map(|(_, line)| line.clone()).collect()
    }

    /// Waits until `function` has written a line that contains `text`, and returns that line.
    ///
    /// Lines pass through a pipe, so they may arrive after the reply of the invocation that wrote them.
    ///
    /// # Panics
    /// Panics if the line is not written within five minutes.
    pub async fn wait_for(&self, function: &str, text: &str) -> String {
        let mut lines = self.0.subscribe();
        let found = tokio::time::timeout(Self::MAX_WAIT, async {
            loop {
                let found = lines
                    .borrow_and_update()
                    .iter()
                    .find(|(name, line)| name == function && line.contains(text))
                    .map(|(_, line)| line.clone());
                if let Some(line) = found {
                    return line;
                }
                // This wait cannot fail, because `self` holds the sender.
                let _ = lines.changed().await;
            }
        });
        let Ok(line) = found.await else {
            panic!("function {function} logged no line with {text:?} within five minutes")
        };
        line
    }

    /// Maximum time that [`wait_for`](Self::wait_for) waits. Without a limit, a test on virtual time would
    /// run forever.
    const MAX_WAIT: Duration = Duration::from_mins(5);
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

    /// A terminal that blocks writes while the test holds the lock.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn terminal_log_prefixes_each_line_with_the_name_of_its_function() {
        let terminal = Terminal::default();
        let log = TerminalLog::new(terminal.clone());
        log.line("router", "one");
        log.line("processor-with-a-long-name", "two");
        drop(log);
        assert_eq!(terminal.text(), "router     | one\nprocessor-with-a-long-name | two\n");
        assert_eq!(format!("{:?}", TerminalLog::stderr()), "TerminalLog");
    }

    #[test]
    fn terminal_log_with_a_blocked_reader_drops_lines_and_reports_their_number() {
        let terminal = Terminal::default();
        let log = TerminalLog::new(terminal.clone());
        let unread = terminal.0.lock().unwrap();
        let most = TerminalLog::<Terminal>::WAITING_LINES;
        for n in 0..most + 100 {
            log.line("router", &n.to_string());
        }
        drop(unread);
        drop(log);
        let text = terminal.text();
        // The writer thread may have taken one more line out of the queue.
        let kept = text.lines().filter(|line| line.starts_with("router")).count();
        assert!([most, most + 1].contains(&kept), "{kept}");
        let last =
            format!("{} lines dropped: the functions wrote faster than the log was read", most + 100 - kept);
        assert_eq!(text.lines().last(), Some(&*last));
    }

    #[test]
    fn dropping_a_terminal_log_does_not_wait_forever_for_a_blocked_reader() {
        let terminal = Terminal::default();
        let log = TerminalLog::new(terminal.clone());
        let unread = terminal.0.lock().unwrap();
        log.line("router", "unread");
        drop(log);
        drop(unread);
    }

    #[test]
    fn terminal_log_ignores_write_errors_of_a_closed_terminal() {
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
        TerminalLog::new(Gone).line("router", "unread");
    }

    #[tokio::test]
    async fn captured_log_separates_lines_by_function_and_can_wait_for_a_line() {
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
