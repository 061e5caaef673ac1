//! Forwards the output of a process to the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::log::LogSink;

/// Maximum length of one logged line in bytes: 256 KiB, the size limit of a `CloudWatch` event. A longer line
/// is split.
const MAX_LINE_BYTES: u64 = 256 * 1_024;

/// The last lines that a process wrote, kept to explain why the process exited.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    const LINES: usize = 20;

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns the lines joined by newlines; empty if there are no lines.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Reads `stream` to its end, and sends each line to `log` and, if given, to `tail`.
pub(super) async fn forward(
    stream: impl AsyncRead + Unpin,
    function: &str,
    log: &dyn LogSink,
    tail: Option<Tail>,
) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        log.line(function, line);
        if let Some(tail) = &tail {
            tail.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lambda::CapturedLog;

    async fn forwarded(bytes: &[u8]) -> (Vec<String>, String) {
        let (log, tail) = (CapturedLog::new(), Tail::default());
        forward(bytes, "f", &log, Some(tail.clone())).await;
        (log.lines("f"), tail.text())
    }

    #[tokio::test]
    async fn forwarded_lines_have_no_line_endings_and_invalid_utf_8_is_replaced() {
        let (lines, tail) = forwarded(b"one\r\n\ntwo \xff\nlast without end").await;
        assert_eq!(lines, ["one", "", "two \u{fffd}", "last without end"]);
        assert_eq!(tail, "one\n\ntwo \u{fffd}\nlast without end");
    }

    #[tokio::test]
    async fn overlong_output_line_is_logged_in_parts_of_at_most_256_kib() {
        let (lines, _) = forwarded(&vec![b'x'; 600 * 1_024]).await;
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [256 * 1_024, 256 * 1_024, 88 * 1_024]);
    }

    #[tokio::test]
    async fn output_tail_keeps_only_the_last_20_lines_of_a_process() {
        let text: String = (0..50).map(|n| format!("{n}\n")).collect();
        let (lines, tail) = forwarded(text.as_bytes()).await;
        assert_eq!(lines.len(), 50);
        assert_eq!(tail.lines().count(), 20);
        assert!(tail.starts_with("30\n") && tail.ends_with("\n49"));
    }
}
