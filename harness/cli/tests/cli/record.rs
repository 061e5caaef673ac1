use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

/// Runs `streamer record` in `folder`, with `log` on standard input.
fn record(folder: &Path, log: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamer"));
    command.args(["record", "-", "--into", "made/here", "--action", "echo"]).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns a log in the format of `aws logs tail`, in which a function has recorded the events of these
/// fixtures.
fn log(fixtures: &[&str]) -> String {
    let line = |name: &&str| {
        let file = format!("{}/../fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let fixture: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let head = r#"{"streamer_record":"event","function":"f","request_id":"r","part":1,"parts":1,"json""#;
        format!("2024-02-09T18:23:28+00:00 2024/02/09/[$LATEST]1f {head}:{}}}\n", fixture["event"])
    };
    fixtures.iter().map(line).collect()
}

#[test]
fn recorded_events_become_fixtures_and_existing_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&["connect_query", "message", "disconnect_1005", "stream_ttl", "stream_batch", "schedule"]);
    let first = record(folder.path(), &log);
    assert_eq!(
        (first.status.code(), text(&first.stderr)),
        (Some(0), "fixtures written: 6; other log lines skipped: 0\n".into())
    );
    let message = folder.path().join("made/here/message_1.json");
    let made = fs::read_to_string(&message).unwrap();
    fs::write(&message, "mine").unwrap();
    let second = record(folder.path(), &log);
    assert_snapshot!(format!("{}{}", text(&first.stdout), text(&second.stdout)));
    assert_eq!(fs::read_to_string(&message).unwrap(), "mine");
    assert_snapshot!("a_recorded_message", made);
}

#[test]
fn invalid_log_lines_are_reported_and_valid_events_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let good = log(&["message"]);
    let output =
        record(folder.path(), &format!("START RequestId: r\n{}\nunknown line\n{good}", &good[..200]));
    assert_eq!(output.status.code(), Some(1));
    assert_snapshot!(format!("{}{}", text(&output.stdout), text(&output.stderr)), @r"
    made/here/message_1.json
    fixtures written: 1; other log lines skipped: 1
    streamer: line 2: recording cannot be parsed: EOF while parsing a string at line 1 column 151
    streamer: line 3: unknown line; expected a recording, JSON, or a line that Lambda itself writes
    ");
}

#[test]
fn missing_log_file_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamer"));
    let output =
        command.args(["record", "nowhere.log", "--into", "x"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("streamer: nowhere.log cannot be read: "),
        "{}",
        text(&output.stderr)
    );
    assert!(!folder.path().join("x").exists());
}
