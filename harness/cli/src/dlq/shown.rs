//! Letters as people read them, and as programs do.

use std::fmt::Write as _;

use serde_json::{Value, json};
use streamer::dead_letters::DeadLetter;
use streamer::ports::Timestamp;
use streamer::store::{AttemptOutcome, PastAttempt};

use super::letter_box::{Found, Reading};

pub(super) fn list(reading: &Reading, url: &str) -> String {
    let mut text = String::new();
    if reading.letters.is_empty() {
        line(&mut text, &format!("There are no dead letters in {url}"));
    } else {
        let header = ["ID", "ACTION", "ERROR", "ATTEMPTS", "FAILED AT"].map(str::to_owned);
        let rows = reading.letters.iter().map(|found| row(&found.letter));
        text += &table(&[vec![header], rows.collect()].concat());
    }
    for unreadable in &reading.unreadable {
        line(
            &mut text,
            &format!("Message {} is no dead letter: {}", unreadable.message_id, unreadable.problem),
        );
    }
    if !reading.is_whole {
        line(&mut text, "There may be more: raise --limit.");
    }
    text
}

pub(super) fn list_as_json(reading: &Reading) -> String {
    let unreadable = reading
        .unreadable
        .iter()
        .map(|unreadable| json!({ "message_id": unreadable.message_id, "problem": unreadable.problem }));
    let letters = reading.letters.iter().map(|found| &found.letter).collect::<Vec<_>>();
    pretty(&json!({
        "letters": letters,
        "unreadable": unreadable.collect::<Vec<_>>(),
        "is_whole": reading.is_whole,
    }))
}

pub(super) fn letter_as_json(found: &Found) -> String {
    pretty(&json!(found.letter))
}

pub(super) fn letter(found: &Found) -> String {
    let DeadLetter { id, request_id, user, tenant, connection, action, .. } = &found.letter;
    let DeadLetter { payload, metadata, error, attempts, max_attempts, .. } = &found.letter;
    let DeadLetter { epoch: _, history, created_at, failed_at, redrive_of, .. } = &found.letter;
    let mut text = format!("{}\n\n", plain(id));
    let mut fact = |name: &str, value: &str| line(&mut text, &format!("{name:<12}{}", plain(value)));
    fact("request", request_id.as_str());
    fact("user", user.as_str());
    fact("tenant", tenant.as_str());
    fact("connection", connection.as_str());
    fact("action", action);
    fact("queued", &time(*created_at));
    fact("failed", &time(*failed_at));
    fact("attempts", &format!("{attempts} of {max_attempts}"));
    fact("error", &format!("{}: {}", error.code, error.message));
    if !error.details.is_empty() {
        fact("details", &json!(error.details).to_string());
    }
    if let Some(redrive_of) = redrive_of {
        fact("redrive of", redrive_of);
    }
    if !metadata.is_empty() {
        fact("metadata", &json!(metadata).to_string());
    }
    for (part, bytes) in &found.letter.left_out {
        fact("left out", &format!("{part}, which has {bytes} bytes"));
    }
    if found.receipts.len() > 1 {
        fact("messages", &found.receipts.len().to_string());
    }
    if !history.is_empty() {
        let header = ["#", "OUTCOME", "STARTED", "ENDED", "ERROR"].map(str::to_owned);
        let rows = history.iter().map(past);
        text += &format!("\n{}", table(&[vec![header], rows.collect()].concat()));
    }
    text + "\n" + &pretty(payload)
}

fn row(letter: &DeadLetter) -> [String; 5] {
    [
        plain(&letter.id),
        plain(&letter.action),
        plain(letter.error.code.as_str()),
        format!("{} of {}", letter.attempts, letter.max_attempts),
        time(letter.failed_at),
    ]
}

fn past(attempt: &PastAttempt) -> [String; 5] {
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

/// Columns as wide as what stands in them.
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
    writeln!(text, "{line}").expect("a string takes any text");
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// To the second, in UTC.
fn time(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// What somebody else wrote, without what would steer a terminal.
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
