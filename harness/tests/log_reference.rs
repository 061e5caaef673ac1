//! Checks that `docs/logs.md` has exactly one row for each log event and each metric in the code of `core/src`.
//!
//! The scan knows the forms in which `core` writes events and metrics, and fails on any other form. Code for tests is
//! left out.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Path of the document in the workspace.
const DOCUMENT: &str = "docs/logs.md";

/// The levels of log events, which are also the names of the macros that write them.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A log event in the code, or the log event that a table row describes. Equal events share one row.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Event {
    level: String,
    /// Text between the quotes, byte for byte as in the code.
    message: String,
    /// Names of the structured fields, in the order of the code.
    fields: Vec<String>,
}

/// A metric in the code, or the metric that a table row describes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Metric {
    name: String,
    /// CloudWatch unit: `Count` or `Milliseconds`.
    unit: String,
}

/// Formats the beginning of a table row, to be pasted into the document and completed.
trait Row: Ord {
    fn row(&self) -> String;
}

impl Row for Event {
    fn row(&self) -> String {
        let fields: Vec<_> = self.fields.iter().map(|field| format!("`{field}`")).collect();
        format!("| {} | `{}` | {} | MEANING |", self.level, self.message, fields.join(", "))
    }
}

impl Row for Metric {
    fn row(&self) -> String {
        format!("| `{}` | {} | FUNCTION | MEANING | ALARM |", self.name, self.unit)
    }
}

/// Places of equal events, metrics or rows, such as `core/src/router.rs:165`.
type Places<T> = BTreeMap<T, Vec<String>>;

/// The text of a Rust file, and a mask of equal length with filler in place of comments and literals.
///
/// Positions in the mask are positions in the text. So brackets and commas are searched in the mask, and names and
/// messages are read from the text.
struct Source {
    text: String,
    mask: Vec<u8>,
}

impl Source {
    /// Byte of the mask in place of the content of a string or character literal. It occurs in no code.
    const LITERAL: u8 = 0;

    /// Parses a file, without the items that have the attribute `#[cfg(test)]`.
    fn parse(text: &str) -> Self {
        let mut source = Self { text: text.to_owned(), mask: masked(text) };
        source.remove_test_items();
        source
    }

    fn remove_test_items(&mut self) {
        let attribute = b"#[cfg(test)]";
        while let Some(start) = find(&self.mask, attribute, 0) {
            let rest = &self.mask[start + attribute.len()..];
            let first = rest.iter().position(|byte| matches!(byte, b'{' | b';')).unwrap_or(rest.len() - 1);
            let mut end = start + attribute.len() + first;
            if self.mask[end] == b'{' {
                end = self.closing(end);
            }
            self.mask[start..=end].fill(b' ');
        }
    }

    /// Returns the position of the bracket that closes the bracket at `open`.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (at, byte) in self.mask.iter().enumerate().skip(open) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        panic!("line {}: a bracket is not closed", self.line(open))
    }

    fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// Returns the text and the mask of each argument between the brackets at `open` and its partner.
    fn arguments(&self, open: usize) -> Vec<(&str, &[u8])> {
        let end = self.closing(open);
        let (mut arguments, mut start, mut depth) = (Vec::new(), open + 1, 0_usize);
        for at in open + 1..=end {
            match self.mask[at] {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' if at < end => depth -= 1,
                _ => {}
            }
            if at == end || (depth == 0 && self.mask[at] == b',') {
                let blank = self.mask[start..at].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let trimmed = self.mask[start + blank..at].trim_ascii_end();
                let from = start + blank;
                if !trimmed.is_empty() {
                    arguments.push((&self.text[from..from + trimmed.len()], trimmed));
                }
                start = at + 1;
            }
        }
        arguments
    }
}

/// Returns `text` with spaces in place of comments, and with filler in place of the content of literals.
fn masked(text: &str) -> Vec<u8> {
    let mut mask = text.as_bytes().to_vec();
    let mut at = 0;
    while at < mask.len() {
        let rest = &text.as_bytes()[at..];
        let is_after_name = at > 0 && is_name_byte(mask[at - 1]);
        let (length, is_comment) = if rest.starts_with(b"//") {
            (find(rest, b"\n", 0).unwrap_or(rest.len()), true)
        } else if rest.starts_with(b"/*") {
            (block_comment_length(rest), true)
        } else if let Some(length) = raw_string_length(rest).filter(|_| !is_after_name) {
            (length, false)
        } else if rest[0] == b'"' {
            (quoted_length(rest, b'"'), false)
        } else if is_character(rest) {
            (quoted_length(rest, b'\''), false)
        } else {
            at += 1;
            continue;
        };
        if is_comment {
            mask[at..at + length].fill(b' ');
        } else {
            // The quotes at both ends stay in the mask.
            mask[at + 1..at + length - 1].fill(Source::LITERAL);
        }
        at += length;
    }
    mask
}

fn block_comment_length(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let step = match &text[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Returns the length of the raw string, such as `r#"…"#` or `br"…"`, with which `text` begins.
fn raw_string_length(text: &[u8]) -> Option<usize> {
    let prefix = if text.starts_with(b"br") { 2 } else { usize::from(text.starts_with(b"r")) };
    let hashes = text.get(prefix..)?.iter().take_while(|byte| **byte == b'#').count();
    if prefix == 0 || text.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    find(text, &end, prefix + hashes + 1).map(|start| start + end.len())
}

/// Returns the length of the literal with which `text` begins, including both of its quotes.
fn quoted_length(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Returns whether `text` begins with a character literal, and not with a lifetime such as `'static`.
fn is_character(text: &[u8]) -> bool {
    if text.first() != Some(&b'\'') {
        return false;
    }
    let next = std::str::from_utf8(&text[1..text.len().min(6)]);
    let next = next.map_or_else(|error| &text[1..=error.valid_up_to()], str::as_bytes);
    let character = std::str::from_utf8(next).unwrap_or_default().chars().next();
    character.is_some_and(|c| c == '\\' || text.get(1 + c.len_utf8()) == Some(&b'\''))
}

fn find(text: &[u8], part: &[u8], from: usize) -> Option<usize> {
    let found = text.get(from..)?.windows(part.len()).position(|window| window == part);
    found.map(|at| from + at)
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the log events in `source`, each with its line.
fn events(source: &Source) -> Result<Vec<(Event, usize)>, String> {
    let mut events = Vec::new();
    for (at, _) in source.mask.iter().enumerate().filter(|(_, byte)| **byte == b'!') {
        let before = &source.mask[..at];
        let name = before.iter().rev().take_while(|byte| is_name_byte(**byte)).count();
        let name = &source.text[at - name..at];
        let blank = source.mask[at + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let is_macro = matches!(source.mask.get(at + 1 + blank), Some(b'(' | b'[' | b'{'));
        if is_macro && (LEVELS.contains(&name) || name == "event") {
            let line = source.line(at);
            let event = event(name, &source.arguments(at + 1 + blank));
            events.push((event.map_err(|problem| format!("{line}: {problem}"))?, line));
        }
    }
    Ok(events)
}

/// Returns the event that the macro `level` writes with these arguments: fields, and the message as the last argument.
fn event(level: &str, arguments: &[(&str, &[u8])]) -> Result<Event, String> {
    if level == "event" {
        return Err("use the macro of a level, such as `tracing::info!`, instead of `event!`".to_owned());
    }
    let message = arguments.split_last().filter(|((text, _), _)| text.starts_with('"'));
    let Some(((message, _), fields)) = message else {
        return Err("the last argument of a log event must be its message, a string literal".to_owned());
    };
    let message = message.trim_matches('"');
    if message.contains(['{', '\\', '`', '|', '\n']) {
        return Err(format!(
            "a message must be fixed text without `{{`, `\\`, a backtick or `|`: {message:?}"
        ));
    }
    let fields = fields.iter().map(|(text, mask)| field_name(text, mask)).collect::<Result<_, _>>()?;
    Ok(Event { level: level.to_owned(), message: message.to_owned(), fields })
}

/// Returns the name of a field in one of the forms `name = value`, `name`, `%path.name` or `?path.name`.
fn field_name(text: &str, mask: &[u8]) -> Result<String, String> {
    let name = match mask.iter().position(|byte| *byte == b'=') {
        Some(end) => &text[..end],
        None => text.trim_start_matches(['%', '?']),
    };
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(|byte| is_name_byte(byte) || byte == b'.') {
        return Err(format!(
            "expected a field in one of the forms `name = value`, `name`, `%name` or `?name`, found `{text}`"
        ));
    }
    Ok(name.to_owned())
}

/// Returns the metrics in `source`, each with its line.
///
/// A file writes metrics if it creates a `MetricLine`. Each of its metrics is a call `.count("Name", …)` or
/// `.duration("Name", …)`, or an entry `("Name", …)` of a list that is folded into `.count(name, …)`.
fn metrics(source: &Source) -> Vec<(Metric, usize)> {
    if find(&source.mask, b"MetricLine::at(", 0).is_none() {
        return Vec::new();
    }
    let mut metrics = Vec::new();
    for (at, _) in source.mask.iter().enumerate().filter(|(_, byte)| **byte == b'(') {
        let arguments = source.arguments(at);
        let Some((text, _)) = arguments.first().filter(|(text, _)| text.starts_with('"')) else { continue };
        let name = text.trim_matches('"');
        let before = &source.mask[..at];
        let unit = if before.ends_with(b".count") {
            "Count"
        } else if before.ends_with(b".duration") {
            "Milliseconds"
        } else if arguments.len() == 2
            && name.starts_with(|first: char| first.is_ascii_uppercase())
            && before.last().is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'[')
        {
            "Count"
        } else {
            continue;
        };
        metrics.push((Metric { name: name.to_owned(), unit: unit.to_owned() }, source.line(at)));
    }
    metrics
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the files of `core/src` that are not for tests, sorted by path, each with its path in the workspace.
fn files() -> Vec<(String, Source)> {
    let mut paths = Vec::new();
    let mut folders = vec![workspace().join("core/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let named =
        paths.iter().map(|path| (path.strip_prefix(workspace()).unwrap().display().to_string(), path));
    named
        .filter(|(name, _)| !is_for_tests(name))
        .map(|(name, path)| (name, Source::parse(&fs::read_to_string(path).unwrap())))
        .collect()
}

fn is_for_tests(path: &str) -> bool {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let is_test_file = file == "tests.rs" || file.ends_with("_tests.rs") || file.starts_with("test_");
    is_test_file || folders.split('/').any(|folder| folder == "tests")
}

/// Returns the table rows in `text` that describe log events and metrics, and the problems of faulty rows.
fn table_rows(text: &str) -> (Places<Event>, Places<Metric>, Vec<String>) {
    let (mut events, mut metrics, mut problems) = (Places::new(), Places::new(), Vec::new());
    let mut header = "";
    for (index, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            header = "";
            continue;
        };
        let cells: Vec<_> = row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
        if header.is_empty() {
            header = cells[0];
            continue;
        }
        let place = format!("{DOCUMENT}:{}", index + 1);
        match (header, &cells[..]) {
            (_, [rule, ..]) if rule.starts_with('-') => {}
            ("level", [level, message, fields, meaning]) => {
                if meaning.is_empty() || *meaning == "MEANING" {
                    problems.push(format!("{place}: the last cell must say what the event means: {line}"));
                }
                let event = Event {
                    level: (*level).to_owned(),
                    message: message.trim_matches('`').to_owned(),
                    fields: fields.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
                };
                events.entry(event).or_default().push(place);
            }
            ("metric", [name, unit, function, meaning, _]) => {
                if [*function, *meaning].iter().any(|cell| cell.is_empty())
                    || *function == "FUNCTION"
                    || *meaning == "MEANING"
                {
                    problems.push(format!("{place}: a row must name the function and the meaning: {line}"));
                }
                let metric = Metric { name: name.trim_matches('`').to_owned(), unit: (*unit).to_owned() };
                metrics.entry(metric).or_default().push(place);
            }
            ("level" | "metric", _) => problems
                .push(format!("{place}: expected {} cells: {line}", if header == "level" { 4 } else { 5 })),
            _ => {}
        }
    }
    (events, metrics, problems)
}

/// Returns the differences between the code and the rows: missing rows, superfluous rows and repeated rows.
fn differences<T: Row>(code: &Places<T>, rows: &Places<T>) -> Vec<String> {
    let missing = code.iter().filter(|(item, _)| !rows.contains_key(item));
    let superfluous = rows.iter().filter(|(item, _)| !code.contains_key(item));
    let repeated = rows.iter().filter(|(_, places)| places.len() > 1);
    missing
        .map(|(item, places)| format!("missing row, see {}:\n{}", places.join(", "), item.row()))
        .chain(superfluous.map(|(item, places)| {
            format!("superfluous row at {}; the code has nothing equal:\n{}", places.join(", "), item.row())
        }))
        .chain(
            repeated.map(|(item, places)| format!("repeated row, at {}:\n{}", places.join(", "), item.row())),
        )
        .collect()
}

/// Panics with the differences between the code of `core/src` and the document.
fn assert_equal<T: Row>(code: &Places<T>, rows: &Places<T>, mut problems: Vec<String>) {
    problems.extend(differences(code, rows));
    assert!(problems.is_empty(), "{DOCUMENT} differs from core/src:\n{}", problems.join("\n"));
}

fn document() -> String {
    fs::read_to_string(workspace().join(DOCUMENT)).unwrap()
}

#[test]
fn each_log_event_of_core_has_exactly_one_row_in_the_log_reference() {
    let (rows, _, mut problems) = table_rows(&document());
    let mut code = Places::<Event>::new();
    for (file, source) in files() {
        match events(&source) {
            Ok(events) => {
                for (event, line) in events {
                    code.entry(event).or_default().push(format!("{file}:{line}"));
                }
            }
            Err(problem) => problems.push(format!("{file}:{problem}")),
        }
    }
    assert!(code.len() > 80, "core/src has more than 80 different log events, but {} were found", code.len());
    assert_equal(&code, &rows, problems);
}

#[test]
fn each_metric_of_core_has_exactly_one_row_in_the_log_reference() {
    let (_, rows, problems) = table_rows(&document());
    let mut code = Places::<Metric>::new();
    for (file, source) in files() {
        for (metric, line) in metrics(&source) {
            code.entry(metric).or_default().push(format!("{file}:{line}"));
        }
    }
    assert!(code.len() > 18, "core/src has more than 18 metrics, but {} were found", code.len());
    assert_equal(&code, &rows, problems);
}

/// Returns each event in `code` as level, message and fields.
fn found(code: &str) -> Vec<(String, String, String)> {
    let events = events(&Source::parse(code)).unwrap();
    events.into_iter().map(|(event, _)| (event.level, event.message, event.fields.join(" "))).collect()
}

/// Asserts that `code` writes one event with this level, message and fields.
#[track_caller]
fn assert_event(code: &str, level: &str, message: &str, fields: &str) {
    assert_eq!(found(code), [(level.to_owned(), message.to_owned(), fields.to_owned())], "event of {code}");
}

#[test]
fn log_event_without_fields_is_parsed() {
    assert_event(r#"tracing::warn!("lease lost");"#, "warn", "lease lost", "");
}

#[test]
fn log_event_with_assigned_fields_is_parsed() {
    let code = r#"tracing::info!(request = %key, action = request.action, "request queued");"#;
    assert_event(code, "info", "request queued", "request action");
    let code = r#"tracing::error!(error = %Causes(&f(a, "x, y")), ok = a == b, "write failed");"#;
    assert_event(code, "error", "write failed", "error ok");
}

#[test]
fn log_event_with_shorthand_fields_is_parsed() {
    let code = r#"tracing::debug!(%error, ?reason, attempt, %self.key, "stopped");"#;
    assert_event(code, "debug", "stopped", "error reason attempt self.key");
}

#[test]
fn log_event_with_line_breaks_is_parsed() {
    let code = "match x {\n    Err(error) => tracing::warn!(\n        request = %key, // the key\n        \
                error = %error,\n        \"push failed; frame may be sent again\",\n    ),\n}";
    assert_event(code, "warn", "push failed; frame may be sent again", "request error");
}

#[test]
fn log_event_of_an_imported_macro_is_parsed() {
    assert_event(r#"use tracing::info; fn f() { info!(n, "done") }"#, "info", "done", "n");
}

#[test]
fn log_events_in_comments_and_strings_are_ignored() {
    let code = "// tracing::info!(\"a\");\n/* tracing::info!(\"b\"); /* */ */\n\
                const A: &str = \"tracing::info!(\\\"c\\\")\";\nconst B: &str = r#\"info!(\"d\")\"#;\n\
                fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' }\ntracing::info!(\"e\");";
    assert_event(code, "info", "e", "");
}

#[test]
fn log_events_in_test_items_are_ignored() {
    let code = "#[cfg(test)]\nmod tests;\ntracing::info!(\"a\");\n\
                #[cfg(test)]\nmod inline { fn f() { tracing::info!(\"b\"); } }\ntracing::info!(\"c\");";
    let messages: Vec<_> = found(code).into_iter().map(|(_, message, _)| message).collect();
    assert_eq!(messages, ["a", "c"]);
}

#[test]
fn other_macros_are_not_log_events() {
    assert_eq!(found(r#"compile_error!("a"); assert!(!error, "b"); if x != y { println!("c") }"#), []);
}

#[test]
fn log_event_without_fixed_message_or_with_unknown_field_form_is_a_problem() {
    for code in [
        r#"tracing::info!(request = %key);"#,
        r#"tracing::info!("request {key} queued");"#,
        r#"tracing::info!("request {} queued", key);"#,
        r#"tracing::info!(target: "t", "queued");"#,
        r#"tracing::event!(Level::INFO, "queued");"#,
    ] {
        assert!(events(&Source::parse(code)).is_err(), "the event of {code} is refused");
    }
}

#[test]
fn log_event_has_the_line_of_its_macro() {
    let events =
        events(&Source::parse("fn f() {\n    tracing::info!(\n        \"done\"\n    );\n}")).unwrap();
    assert_eq!(events[0].1, 2);
}

#[test]
fn metrics_are_found_in_calls_and_in_lists_of_names() {
    let code = r#"
        let counts = [("Nudged", self.nudged), ("Failed", self.failed)];
        let line = MetricLine::at(at)
            .by("Function", "sweeper")
            .count("Calls", 1)
            .with("outcome", "done")
            .duration("Delay", self.delay);
        let line = counts.into_iter().fold(line, |line, (name, count)| line.count(name, count));"#;
    let found = metrics(&Source::parse(code));
    let found: Vec<_> =
        found.iter().map(|(metric, _)| (metric.name.as_str(), metric.unit.as_str())).collect();
    let expected = [("Nudged", "Count"), ("Failed", "Count"), ("Calls", "Count"), ("Delay", "Milliseconds")];
    assert_eq!(found, expected);
    assert_eq!(metrics(&Source::parse(r#"histogram.count("Calls", 1);"#)), []);
}

#[test]
fn rows_of_events_and_metrics_are_read_from_their_tables() {
    let text = "| level | message | fields | meaning |\n|---|---|---|---|\n| warn | `lost` | `request`, `epoch` | m |\n\
                \n| metric | unit | function | meaning | alarm |\n|---|---|---|---|---|\n| `Calls` | Count | f | m | |\n\
                \n| field | meaning |\n|---|---|\n| `request` | m |\n";
    let (events, metrics, problems) = table_rows(text);
    let event = Event {
        level: "warn".to_owned(),
        message: "lost".to_owned(),
        fields: vec!["request".to_owned(), "epoch".to_owned()],
    };
    let metric = Metric { name: "Calls".to_owned(), unit: "Count".to_owned() };
    assert_eq!(events, Places::from([(event, vec!["docs/logs.md:3".to_owned()])]));
    assert_eq!(metrics, Places::from([(metric, vec!["docs/logs.md:7".to_owned()])]));
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn differing_row_is_reported_as_missing_and_superfluous_with_the_row_to_paste() {
    let event = |level: &str| Event {
        level: level.to_owned(),
        message: "lost".to_owned(),
        fields: vec!["request".to_owned()],
    };
    let code = Places::from([(event("warn"), vec!["core/src/a.rs:1".to_owned()])]);
    let rows =
        Places::from([(event("info"), vec!["docs/logs.md:3".to_owned(), "docs/logs.md:4".to_owned()])]);
    let row = "| `lost` | `request` | MEANING |";
    assert_eq!(
        differences(&code, &rows),
        [
            format!("missing row, see core/src/a.rs:1:\n| warn {row}"),
            format!(
                "superfluous row at docs/logs.md:3, docs/logs.md:4; the code has nothing equal:\n| info {row}"
            ),
            format!("repeated row, at docs/logs.md:3, docs/logs.md:4:\n| info {row}"),
        ]
    );
}
