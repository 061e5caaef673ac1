//! The tests that `docs/fidelity.md` and `ARCHITECTURE.md` name exist, and so do the paths in the documents for contributors.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MARK: &str = "_row_";

#[derive(Debug)]
struct Row {
    name: String,
    here: String,
    tests: Vec<String>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(workspace().join("docs/fidelity.md")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, here, tests] = cells[..] else { panic!("a row has four cells: {line}") };
            Row {
                name: name.trim_matches('`').to_owned(),
                here: here.to_owned(),
                tests: quoted(tests).map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// Collects the names of the tests below `folder`, but for ignored ones.
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
                // Its attributes stand right above it.
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
fn the_document_and_the_tests_name_each_other() {
    let mut there = tests_in(["harness", "lambdas/tests"]);
    there.retain(|test| test.contains(MARK));
    let rows = rows();
    assert!(rows.len() > 60, "the tables are read: {}", rows.len());
    let mut problems = Vec::new();
    let mut named = BTreeMap::new();
    for row in &rows {
        let ways = ["as AWS", "option", "not emulated"];
        if !ways.iter().any(|way| row.here.starts_with(way)) {
            problems.push(format!("{}: «here» begins with one of {ways:?}, not {:?}", row.name, row.here));
        }
        if row.tests.is_empty() != row.here.starts_with("not emulated") {
            problems.push(format!("{}: what is emulated has tests, what is not has none", row.name));
        }
        for test in &row.tests {
            if !there.contains(test) {
                problems.push(format!("{}: there is no test {test}", row.name));
            }
            if !test.contains(&format!("{}{MARK}", row.name)) {
                problems.push(format!("{}: {test} does not carry the row's name", row.name));
            }
            if let Some(other) = named.insert(test, &row.name).filter(|other| !test.contains(&***other)) {
                problems.push(format!("{test} is named by {other} and {}", row.name));
            }
        }
    }
    problems.extend(
        there.iter().filter(|test| !named.contains_key(test)).map(|test| format!("{test} is in no row")),
    );
    assert!(problems.is_empty(), "docs/fidelity.md:\n{}", problems.join("\n"));
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let there = tests_in(["core", "harness", "lambdas"]);
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("\n## Invariants\n").unwrap();
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let mut problems = Vec::new();
    let mut expected = 1..;
    for line in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| number")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, tests] = cells[..] else { panic!("a row has three cells: {line}") };
        if number.parse() != Ok(expected.next().unwrap_or_default()) {
            problems.push(format!("{number}: the numbers are consecutive, from 1"));
        }
        if quoted(tests).next().is_none() {
            problems.push(format!("{number}: an invariant names its tests"));
        }
        problems.extend(
            quoted(tests)
                .filter(|test| !there.contains(*test))
                .map(|test| format!("{number}: no test {test}")),
        );
    }
    assert!(expected.start > 18, "the table is read: {} rows", expected.start - 1);
    assert!(problems.is_empty(), "ARCHITECTURE.md:\n{}", problems.join("\n"));
}

#[test]
fn each_path_that_a_document_names_exists() {
    let top = ["core/", "lambdas/", "harness/", "loadtests/", "benches/", "coverage/", "docs/", ".ci/"];
    let mut problems = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = fs::read_to_string(workspace().join(document)).unwrap();
        let paths: Vec<_> =
            quoted(&text).filter(|text| top.iter().any(|top| text.starts_with(top))).collect();
        assert!(!paths.is_empty(), "{document} is read");
        // A command's arguments follow its path.
        let paths = paths.iter().map(|path| path.split(' ').next().unwrap_or_default());
        let missing = paths.filter(|path| !workspace().join(path).exists());
        problems.extend(missing.map(|path| format!("{document}: no {path}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
