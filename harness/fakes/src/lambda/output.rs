//! What a process writes, on its way to the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::log::LogSink;

/// A line longer than this is logged in parts, as `CloudWatch` bounds an event: 256 KiB.
const MAX_LINE_BYTES: u64 = 256 * 1_024;

/// The last lines of a process, kept to say why it died.
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

    /// The lines, joined; empty when there are none.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Reads `stream` to its end and hands each line to the log, and to `tail` if there is one.
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
    async fn lines_lose_their_ends_and_bytes_that_are_no_text_are_replaced() {
        let (lines, tail) = forwarded(b"one\r\n\ntwo \xff\nlast without end").await;
        assert_eq!(lines, ["one", "", "two \u{fffd}", "last without end"]);
        assert_eq!(tail, "one\n\ntwo \u{fffd}\nlast without end");
    }

    #[tokio::test]
    async fn a_line_without_end_is_logged_in_bounded_parts() {
        let (lines, _) = forwarded(&vec![b'x'; 600 * 1_024]).await;
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [256 * 1_024, 256 * 1_024, 88 * 1_024]);
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept_to_explain_a_death() {
        let text: String = (0..50).map(|n| format!("{n}\n")).collect();
        let (lines, tail) = forwarded(text.as_bytes()).await;
        assert_eq!(lines.len(), 50);
        assert_eq!(tail.lines().count(), 20);
        assert!(tail.starts_with("30\n") && tail.ends_with("\n49"));
    }
}
