//! Checks that `docs/fidelity.md` and `ARCHITECTURE.md` name existing tests, and that documents name existing paths.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that contain the tests which `docs/fidelity.md` names.
const TESTS: [&str; 2] = ["harness", "lambdas/tests"];

/// Folder of the fakes. `docs/fidelity.md` must name every test in this folder that begins with the name of a
/// row and `_`, unless the row's name is a single word.
const TESTS_OF_FAKES: &str = "harness/fakes";

/// Names of the two rows in `docs/fidelity.md` that share a test.
const ROWS_WITH_A_SHARED_TEST: (&str, &str) = ("retry_count", "backoff");

/// One row of the tables in `docs/fidelity.md`.
#[derive(Debug)]
struct Row {
    name: String,
    /// Text of the column "here", which begins with "as AWS", "option" or "not emulated".
    here: String,
    /// Names of the tests in the last column.
    tests: Vec<String>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the parts of `text` that are enclosed in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(workspace().join("docs/fidelity.md")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, here, tests] = cells[..] else { panic!("expected a row of four cells: {line}") };
            Row {
                name: name.trim_matches('`').to_owned(),
                here: here.to_owned(),
                tests: quoted(tests).map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// Adds the names of the tests in `folder` to `found`, except ignored tests.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = source.lines().map(str::trim).collect();
            for (at, line) in lines.iter().enumerate() {
                let Some((_, function)) =
                    line.split_once("fn ").filter(|(before, _)| matches!(*before, "" | "async " | "pub "))
                else {
                    continue;
                };
                let name = function.split(['(', '<']).next().unwrap_or_default();
                // A function's attributes are on the lines directly above it.
                let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
                let attributes: Vec<_> = above.collect();
                let runs = attributes.iter().any(|attribute| attribute.contains("test"))
                    && !attributes.iter().any(|attribute| attribute.contains("ignore"));
                if runs {
                    found.insert(name.to_owned());
                }
            }
        }
    }
}

fn tests_in<const N: usize>(folders: [&str; N]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        tests_below(&workspace().join(folder), &mut found);
    }
    found
}

#[test]
fn tests_in_the_fidelity_table_exist_and_no_test_of_a_row_is_missing() {
    let existing = tests_in(TESTS);
    let rows = rows();
    assert!(rows.len() > 60, "docs/fidelity.md has more than 60 rows, but {} were read", rows.len());
    let mut problems = Vec::new();
    let mut named = BTreeMap::new();
    for row in &rows {
        let forms = ["as AWS", "option", "not emulated"];
        if !forms.iter().any(|form| row.here.starts_with(form)) {
            problems.push(format!(
                "{}: the column \"local stage\" must begin with one of {forms:?}, found {:?}",
                row.name, row.here
            ));
        }
        if row.tests.is_empty() != row.here.starts_with("not emulated") {
            problems.push(format!("{}: a row must name tests, unless it says \"not emulated\"", row.name));
        }
        for test in &row.tests {
            if !existing.contains(test) {
                problems.push(format!("{}: the test {test} does not exist", row.name));
            }
            let other = named.insert(test.as_str(), row.name.as_str());
            if let Some(other) = other.filter(|other| ROWS_WITH_A_SHARED_TEST != (*other, row.name.as_str()))
            {
                problems.push(format!("{test}: named by two rows, {other} and {}", row.name));
            }
        }
    }
    let is_unnamed = |test: &&String| {
        // A fact with a one-word name, such as `http`, is skipped: other tests may begin with that word too.
        let begins = |row: &Row| {
            row.name.contains('_')
                && test.strip_prefix(row.name.as_str()).is_some_and(|rest| rest.starts_with('_'))
        };
        !named.contains_key(test.as_str()) && rows.iter().any(begins)
    };
    let of_fakes = tests_in([TESTS_OF_FAKES]);
    problems.extend(
        of_fakes
            .iter()
            .filter(is_unnamed)
            .map(|test| format!("{test}: begins with the name of a row, but no row names this test")),
    );
    assert!(problems.is_empty(), "problems in docs/fidelity.md:\n{}", problems.join("\n"));
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let existing = tests_in(["core", "harness", "lambdas"]);
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("\n## Invariants\n").unwrap();
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let mut problems = Vec::new();
    let mut expected = 1..;
    for line in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| number")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, tests] = cells[..] else { panic!("expected a row of three cells: {line}") };
        if number.parse() != Ok(expected.next().unwrap_or_default()) {
            problems.push(format!("invariant {number}: the numbers must be consecutive, starting at 1"));
        }
        if quoted(tests).next().is_none() {
            problems.push(format!("invariant {number}: an invariant must name at least one test"));
        }
        problems.extend(
            quoted(tests)
                .filter(|test| !existing.contains(*test))
                .map(|test| format!("invariant {number}: the test {test} does not exist")),
        );
    }
    let read = expected.start - 1;
    assert!(read > 17, "ARCHITECTURE.md has more than 17 invariants, but {read} were read");
    assert!(problems.is_empty(), "problems in ARCHITECTURE.md:\n{}", problems.join("\n"));
}

#[test]
fn each_path_that_a_document_names_exists() {
    let top = ["core/", "lambdas/", "harness/", "loadtests/", "benches/", "coverage/", "docs/", ".ci/"];
    let mut problems = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = fs::read_to_string(workspace().join(document)).unwrap();
        let paths: Vec<_> =
            quoted(&text).filter(|text| top.iter().any(|top| text.starts_with(top))).collect();
        assert!(!paths.is_empty(), "{document} names at least one path");
        // A quoted command has arguments after its path.
        let paths = paths.iter().map(|path| path.split(' ').next().unwrap_or_default());
        let missing = paths.filter(|path| !workspace().join(path).exists());
        problems.extend(missing.map(|path| format!("{document}: the path {path} does not exist")));
    }
    assert!(problems.is_empty(), "documents name missing paths:\n{}", problems.join("\n"));
}
