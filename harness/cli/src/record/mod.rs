//! The `record` command: makes fixtures from the events that the functions of a deployed stage wrote to their
//! logs.

mod lines;
mod scrub;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use self::lines::{Recorded, read};
use self::scrub::Scrubber;
use super::process::{CommandResult, print};

/// The `record` command: writes one fixture file for each event in a log.
#[derive(Args, Debug)]
pub(super) struct Record {
    /// Log file: the output of `aws logs tail`, the JSON of `aws logs filter-log-events`, or plain log lines
    /// (- reads standard input)
    #[arg(default_value = "-")]
    log: PathBuf,
    /// Folder to which the fixtures are written (created if missing)
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Name of an action to keep in the fixtures instead of replacing it; may be repeated
    #[arg(long, value_name = "NAME")]
    action: Vec<String>,
}

impl Record {
    pub(super) fn run(self) -> CommandResult {
        let text = self.read().map_err(|error| format!("{} cannot be read: {error}", self.log.display()))?;
        fs::create_dir_all(&self.into)
            .map_err(|error| format!("{} cannot be created: {error}", self.into.display()))?;
        let log = read(&text);
        let mut scrubber = Scrubber::new(self.action.iter().cloned());
        let mut numbers = BTreeMap::new();
        for Recorded { event } in &log.events {
            let event = scrubber.scrub(event);
            let kind = kind(&event);
            let source =
                "recorded from a deployed stage with STREAMER_RECORD; identifying values are replaced";
            let number = numbers.entry(kind.clone()).or_insert(1);
            let file = write_new(&self.into, &kind, number, &json!({ "source": source, "event": event }))
                .map_err(|error| format!("{} cannot be written to: {error}", self.into.display()))?;
            print(&format!("{}\n", file.display()))?;
        }
        eprintln!("fixtures written: {}; other log lines skipped: {}", log.events.len(), log.others);
        for problem in &log.problems {
            eprintln!("streamer: {problem}");
        }
        Ok(if log.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn read(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        if self.log == Path::new("-") {
            io::stdin().lock().read_to_end(&mut bytes)?;
        } else {
            bytes = fs::read(&self.log)?;
        }
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Returns the first part of a fixture's file name, which is the kind of its event, such as `connect` or
/// `stream_insert`.
fn kind(event: &Value) -> String {
    let records = event["Records"].as_array();
    match (records.map(Vec::as_slice), event["requestContext"]["eventType"].as_str()) {
        (Some([record]), _) => {
            format!("stream_{}", record["eventName"].as_str().unwrap_or("record").to_lowercase())
        }
        (Some(_), _) => "stream_batch".to_owned(),
        (None, Some("DISCONNECT")) => {
            format!("disconnect_{}", event["requestContext"]["disconnectStatusCode"])
        }
        (None, Some(kind @ ("CONNECT" | "MESSAGE"))) => kind.to_lowercase(),
        (None, _) => "event".to_owned(),
    }
}

/// Writes a fixture to the file `KIND_N.json`, where N is the first unused number, starting at `number`. Sets
/// `number` to N + 1. Existing files are never overwritten.
fn write_new(folder: &Path, kind: &str, number: &mut u32, fixture: &Value) -> io::Result<PathBuf> {
    while let Some(next) = number.checked_add(1) {
        let file = folder.join(format!("{kind}_{number}.json"));
        *number = next;
        match OpenOptions::new().write(true).create_new(true).open(&file) {
            Ok(mut open) => {
                open.write_all((serde_json::to_string_pretty(fixture)? + "\n").as_bytes())?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
