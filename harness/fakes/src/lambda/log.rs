//! Where the lines that functions write go.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::watch;

/// Something that takes what functions write to their standard output and error, line by line.
pub trait LogSink: fmt::Debug + Send + Sync {
    /// Takes one line of `function`, without its line end.
    fn line(&self, function: &str, line: &str);
}

/// A log for people: each line behind its function's name.
///
/// A terminal that nobody reads, such as a pipe to a pager, does not hold up the functions: of what cannot be written
/// at once, [`TerminalLog::WAITING_LINES`] lines wait, and how many more there were is said in their place.
pub struct TerminalLog<W = io::Stderr> {
    waiting: Arc<Waiting>,
    /// Writes what waits; started with the first line, so that whoever logs nothing has no thread.
    writer: Mutex<Option<W>>,
    ended: Mutex<Option<Receiver<()>>>,
}

/// The lines on their way to the terminal.
#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<String>,
    /// How many were left out after the last one of the queue.
    dropped: u64,
    closed: bool,
}

impl TerminalLog {
    /// A log on standard error, which leaves standard output to results.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W> TerminalLog<W> {
    /// How many lines may wait for a terminal to take them.
    pub const WAITING_LINES: usize = 10_000;

    /// How long the last lines are waited for when the log ends.
    const LAST_LINES: Duration = Duration::from_millis(500);
}

impl<W: Write + Send + 'static> TerminalLog<W> {
    /// A log on `writer`.
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

    /// What waits, with a word about what was dropped; nothing when the log has ended.
    fn next(&self) -> Option<String> {
        let lines = self.lock();
        let idle = |lines: &mut Lines| lines.queue.is_empty() && lines.dropped == 0 && !lines.closed;
        let mut lines = self.changed.wait_while(lines, idle).unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.queue.pop_front() {
            return Some(line);
        }
        let dropped = std::mem::take(&mut lines.dropped);
        (dropped > 0)
            .then(|| format!("{dropped} lines were dropped here: they came faster than they were read\n"))
    }
}

fn write_all(mut writer: impl Write, waiting: &Waiting) {
    while let Some(line) = waiting.next() {
        // A terminal that has gone away must not take the stage with it.
        let _ = writer.write_all(line.as_bytes());
    }
    let _ = writer.flush();
}

impl<W: Write + Send + 'static> LogSink for TerminalLog<W> {
    fn line(&self, function: &str, line: &str) {
        let mut lines = self.waiting.lock();
        // Once lines are missing, all are until that is said: what follows would seem to follow upon it.
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
            // It fails when the writer has ended, or is stuck: both are the end.
            let _ = ended.recv_timeout(Self::LAST_LINES);
        }
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

    /// Takes what is written while the test does not hold it.
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
    fn the_terminal_shows_each_line_behind_its_functions_name() {
        let terminal = Terminal::default();
        let log = TerminalLog::new(terminal.clone());
        log.line("router", "one");
        log.line("processor-with-a-long-name", "two");
        drop(log);
        assert_eq!(terminal.text(), "router     | one\nprocessor-with-a-long-name | two\n");
        assert_eq!(format!("{:?}", TerminalLog::stderr()), "TerminalLog");
    }

    #[test]
    fn a_terminal_that_nobody_reads_holds_nobody_up_and_says_what_was_dropped() {
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
        // The writer may have one line in its hand.
        let kept = text.lines().filter(|line| line.starts_with("router")).count();
        assert!([most, most + 1].contains(&kept), "{kept}");
        let last =
            format!("{} lines were dropped here: they came faster than they were read", most + 100 - kept);
        assert_eq!(text.lines().last(), Some(&*last));
    }

    #[test]
    fn a_log_that_ends_does_not_wait_for_ever_for_a_terminal_that_nobody_reads() {
        let terminal = Terminal::default();
        let log = TerminalLog::new(terminal.clone());
        let unread = terminal.0.lock().unwrap();
        log.line("router", "unread");
        drop(log);
        drop(unread);
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
