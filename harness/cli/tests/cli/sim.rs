//! Tests of `streamer sim`, with plans that are small enough for a build without optimization.

use std::fs;

use crate::workspace::{BROKEN, Workspace, printed};

/// A plan with one client, one request and no faults.
const QUIET: &str = r#"{
    "schema": 2, "seed": 1, "faults_until_ms": 1000,
    "clients": [{"user": "ann", "tenant": "acme", "steps": [
        {"at_ms": 0, "act": "connect"},
        {"at_ms": 100, "act": {"request": {"id": "r1", "action": "work", "payload": {"estimate_ms": 10000}}}}
    ]}]
}"#;

fn with_plan(plan: &str) -> Workspace {
    let workspace = Workspace::new(BROKEN);
    fs::write(workspace.path().join("plan.json"), plan).unwrap();
    workspace
}

#[test]
fn plan_replays_as_a_timeline_and_its_trace_is_identical_in_each_run() {
    let workspace = with_plan(QUIET);
    let shown = printed(&workspace.run(&["sim", "--plan", "plan.json"]));
    for expected in ["0 ann@acme", "acme/ann/r1: new → PENDING", "PROCESSING → COMPLETED", "has settled"]
    {
        assert!(shown.contains(expected), "the timeline contains {expected}:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "output that is not a terminal has no color codes:\n{shown}");
    let trace = || workspace.run(&["sim", "--plan", "plan.json", "--trace"]);
    let (first, second) = (trace(), trace());
    assert!(first.status.success() && first.stdout.len() > 1_000, "{}", printed(&first));
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn timeline_of_one_request_omits_other_requests() {
    let plan = QUIET.replacen(
        "{\"at_ms\": 100,",
        "{\"at_ms\": 50, \"act\": {\"request\": {\"id\": \"r0\", \"action\": \"work\", \"payload\": {}}}}, {\"at_ms\": 100,",
        1,
    );
    let workspace = with_plan(&plan);
    let shown = printed(&workspace.run(&["sim", "--plan", "plan.json", "--request", "acme/ann/r1"]));
    assert!(shown.contains("acme/ann/r1: new → PENDING") && !shown.contains("\"r0\""), "{shown}");
}

#[test]
fn saved_plan_replays_the_same_world() {
    let workspace = with_plan(QUIET);
    let saved = workspace.run(&["sim", "--plan", "plan.json", "--save", "of/mine.json"]);
    assert!(saved.status.success(), "{}", printed(&saved));
    let again = workspace.run(&["sim", "--plan", "of/mine.json"]);
    assert_eq!(printed(&saved), printed(&again));
}

#[test]
fn invalid_plan_error_names_the_faulty_field() {
    let invalid = [
        (QUIET.replacen("\"seed\"", "\"sed\"", 1), "sed: unknown field `sed`"),
        (
            QUIET.replacen("\"at_ms\": 100", "\"at_ms\": -1", 1),
            "clients[0].steps[1].at_ms: invalid value: integer `-1`",
        ),
        (
            QUIET.replacen("]}]\n", "]}], \"faults\": [{\"kind\": \"kill\", \"rate\": 3}]\n", 1),
            "faults[0].rate: expected a number from 0 to 1, found 3",
        ),
        (QUIET.replacen("\"connect\"", "\"sleep\"", 1), "clients[0].steps[0].act: unknown variant `sleep`"),
        (QUIET[..18].to_owned(), "EOF while parsing a value"),
    ];
    for (plan, expected) in invalid {
        let message = with_plan(&plan).refusal(&["sim", "--plan", "plan.json"]);
        assert!(
            message.starts_with(&format!("streamer: plan.json is not a valid plan: {expected}")),
            "{message}"
        );
    }
    let missing = with_plan(QUIET).refusal(&["sim", "--plan", "nowhere.json"]);
    assert!(missing.contains("nowhere.json cannot be read"), "{missing}");
}

#[test]
fn plan_with_an_invalid_stage_variable_fails_and_names_the_variable() {
    let workspace = with_plan(&QUIET.replacen(
        "\"clients\"",
        "\"stage\": {\"variables\": {\"LEASE_MS\": \"soon\"}}, \"clients\"",
        1,
    ));
    let output = workspace.run(&["sim", "--plan", "plan.json"]);
    assert!(!output.status.success());
    assert!(printed(&output).contains("LEASE_MS"), "{}", printed(&output));
}

#[test]
fn sim_options_for_a_single_world_need_a_seed_or_a_plan() {
    let workspace = with_plan(QUIET);
    for arguments in [&["sim", "--trace"][..], &["sim", "--request", "a/b/c"], &["sim", "--save", "x.json"]] {
        let message = workspace.refusal(arguments);
        assert!(message.contains("select one with --seed or --plan"), "{message}");
    }
    let both = workspace.run(&["sim", "--seed", "1", "--seeds", "5"]);
    assert_eq!(both.status.code(), Some(2), "{}", printed(&both));
}

#[test]
fn sim_of_several_seeds_prints_a_summary() {
    let workspace = with_plan(QUIET);
    let output = workspace.run(&["sim", "--seeds", "2", "--from", "7", "--jobs", "2", "--keep-going"]);
    let message = printed(&output);
    assert!(output.status.success(), "{message}");
    for expected in ["2 worlds in", "new → PENDING", "frames", "never reached: "] {
        assert!(message.contains(expected), "the summary contains {expected}:\n{message}");
    }
}
