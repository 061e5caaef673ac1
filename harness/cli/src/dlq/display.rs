//! Formats dead letters as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use streamer::dead_letters::DeadLetter;
use streamer::ports::Timestamp;
use streamer::store::{AttemptOutcome, PastAttempt};

use super::queue::{Reading, ReceivedLetter};

pub(super) fn list(reading: &Reading, url: &str) -> String {
    let mut text = String::new();
    if reading.letters.is_empty() {
        line(&mut text, &format!("There are no dead letters in {url}"));
    } else {
        let header = ["ID", "ACTION", "ERROR", "ATTEMPTS", "FAILED AT"].map(str::to_owned);
        let rows = reading.letters.iter().map(|received| letter_row(&received.letter));
        text += &table(&[vec![header], rows.collect()].concat());
    }
    for unreadable in &reading.unreadable {
        line(
            &mut text,
            &format!("Message {} is not a dead letter: {}", unreadable.message_id, unreadable.problem),
        );
    }
    if !reading.is_complete {
        line(&mut text, "There may be more dead letters; raise --limit.");
    }
    text
}

pub(super) fn list_as_json(reading: &Reading) -> String {
    let unreadable = reading
        .unreadable
        .iter()
        .map(|unreadable| json!({ "message_id": unreadable.message_id, "problem": unreadable.problem }));
    let letters = reading.letters.iter().map(|received| &received.letter).collect::<Vec<_>>();
    pretty(&json!({
        "letters": letters,
        "unreadable": unreadable.collect::<Vec<_>>(),
        "is_whole": reading.is_complete,
    }))
}

pub(super) fn letter_as_json(received: &ReceivedLetter) -> String {
    pretty(&json!(received.letter))
}

pub(super) fn letter(received: &ReceivedLetter) -> String {
    let DeadLetter { id, request_id, user, tenant, connection, action, .. } = &received.letter;
    let DeadLetter { payload, metadata, error, attempts, max_attempts, .. } = &received.letter;
    let DeadLetter { epoch: _, history, created_at, failed_at, redrive_of, .. } = &received.letter;
    let mut text = format!("{}\n\n", plain(id));
    let mut field = |name: &str, value: &str| line(&mut text, &format!("{name:<12}{}", plain(value)));
    field("request", request_id.as_str());
    field("user", user.as_str());
    field("tenant", tenant.as_str());
    field("connection", connection.as_str());
    field("action", action);
    field("queued", &time(*created_at));
    field("failed", &time(*failed_at));
    field("attempts", &format!("{attempts} of {max_attempts}"));
    field("error", &format!("{}: {}", error.code, error.message));
    if !error.details.is_empty() {
        field("details", &json!(error.details).to_string());
    }
    if let Some(redrive_of) = redrive_of {
        field("redrive of", redrive_of);
    }
    if !metadata.is_empty() {
        field("metadata", &json!(metadata).to_string());
    }
    for (part, bytes) in &received.letter.left_out {
        field("left out", &format!("{part} ({bytes} bytes, too large for the dead letter)"));
    }
    if received.receipts.len() > 1 {
        field("messages", &format!("{} with this dead letter", received.receipts.len()));
    }
    if !history.is_empty() {
        let header = ["#", "OUTCOME", "STARTED", "ENDED", "ERROR"].map(str::to_owned);
        let rows = history.iter().map(attempt_row);
        text += &format!("\n{}", table(&[vec![header], rows.collect()].concat()));
    }
    text + "\n" + &pretty(payload)
}

fn letter_row(letter: &DeadLetter) -> [String; 5] {
    [
        plain(&letter.id),
        plain(&letter.action),
        plain(letter.error.code.as_str()),
        format!("{} of {}", letter.attempts, letter.max_attempts),
        time(letter.failed_at),
    ]
}

fn attempt_row(attempt: &PastAttempt) -> [String; 5] {
    let outcome = match attempt.outcome {
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::TimedOut => "timed out",
        AttemptOutcome::Panicked => "panicked",
        AttemptOutcome::Crashed => "crashed",
    };
    [
        attempt.attempt.to_string(),
        outcome.to_owned(),
        attempt.started_at.map_or_else(|| "-".to_owned(), time),
        time(attempt.ended_at),
        plain(&format!("{}: {}", attempt.error.code, attempt.error.message)),
    ]
}

/// Formats rows as a table whose columns are as wide as their longest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(&mut text, cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Formats a time in UTC, to the second.
fn time(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// Escapes control characters, so that text from a client cannot send commands to the operator's terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut plain, c| {
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
        plain
    })
}
