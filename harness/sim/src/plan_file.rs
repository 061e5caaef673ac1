//! Plan files in JSON. Users also write plan files by hand, so an error names the faulty place.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{ClientPlan, FaultPlan, Plan, StagePlan};

/// Error for a text that is not a valid plan: the faulty place, and the problem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlanError {
    /// Path of the faulty value in the file, such as `clients[1].steps[0].at_ms`; `.` or `?` if the problem
    /// concerns the whole file.
    pub place: String,
    /// Description of the problem, without the path.
    pub message: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, message } = self;
        // `serde_path_to_error` names the whole document `.`, and an unknown place `?`.
        if place == "." || place == "?" { write!(f, "{message}") } else { write!(f, "{place}: {message}") }
    }
}

impl std::error::Error for PlanError {}

/// Version of the file format that is written, as `"schema": 2`. A file without `schema` has version 1.
const SCHEMA: u64 = 2;

/// Layout of a plan file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    schema: u64,
    seed: u64,
    faults_until_ms: u64,
    #[serde(default)]
    stage: StagePlan,
    clients: Vec<ClientPlan>,
    #[serde(default)]
    faults: Vec<FaultPlan>,
}

/// Fields of a plan file that determine the file's version.
#[derive(Deserialize)]
struct Header {
    schema: Option<u64>,
    /// Field that version 2 requires, and that version 1 called `trouble_ms`. `None` if the file lacks the
    /// field.
    faults_until_ms: Option<IgnoredAny>,
}

impl Plan {
    /// Parses a plan file of the current version or of version 1.
    ///
    /// # Errors
    /// [`PlanError`] for the first problem found: invalid JSON, an unknown field or version, or a value out
    /// of bounds.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        // An error of the header is ignored, because parsing the whole file reports the error in more detail.
        let header =
            serde_json::from_str(text).unwrap_or(Header { schema: Some(SCHEMA), faults_until_ms: None });
        let file = match header {
            Header { schema: Some(SCHEMA), .. } => read(text)?,
            Header { schema: None | Some(1), faults_until_ms: Some(_) } => {
                return Err(invalid(
                    "schema",
                    &format!("expected {SCHEMA}, because the plan has `faults_until_ms`"),
                ));
            }
            Header { schema: None | Some(1), .. } => {
                let plan: Value = read(text)?;
                serde_path_to_error::deserialize(migrated(plan)).map_err(located)?
            }
            Header { schema: Some(schema), .. } => {
                let message = format!("unknown version {schema}; known versions: 1 and {SCHEMA}");
                return Err(invalid("schema", &message));
            }
        };
        let PlanFile { schema: _, seed, faults_until_ms, stage, clients, faults } = file;
        let plan = Self { seed, faults_until_ms, stage, clients, faults };
        plan.validate()?;
        Ok(plan)
    }

    /// Returns the plan as the text of a file that users can read and edit.
    ///
    /// # Panics
    /// Never, because JSON can represent every plan.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { seed, faults_until_ms, stage, clients, faults } = self.clone();
        let file = PlanFile { schema: SCHEMA, seed, faults_until_ms, stage, clients, faults };
        serde_json::to_string_pretty(&file).expect("JSON can represent every plan") + "\n"
    }

    /// Checks that every value is within its bounds.
    fn validate(&self) -> Result<(), PlanError> {
        at_most("faults_until_ms", self.faults_until_ms, MAX_MS)?;
        if self.clients.is_empty() {
            return Err(invalid("clients", "expected at least one client"));
        }
        for (number, client) in self.clients.iter().enumerate() {
            let place = format!("clients[{number}]");
            for (name, text) in [("user", &client.user), ("tenant", &client.tenant)] {
                if text.is_empty() {
                    return Err(invalid(&format!("{place}.{name}"), "expected a non-empty string"));
                }
            }
            let mut before = 0;
            for (step, at_ms) in client.steps.iter().map(|step| step.at_ms).enumerate() {
                let place = format!("{place}.steps[{step}].at_ms");
                at_most(&place, at_ms, MAX_MS)?;
                if at_ms < before {
                    return Err(invalid(
                        &place,
                        &format!("expected at least {before}, the time of the previous step; found {at_ms}"),
                    ));
                }
                before = at_ms;
            }
        }
        for (number, fault) in self.faults.iter().enumerate() {
            let place = format!("faults[{number}]");
            if !(0.0..=1.0).contains(&fault.rate) {
                return Err(invalid(
                    &format!("{place}.rate"),
                    &format!("expected a number from 0 to 1, found {}", fault.rate),
                ));
            }
            if fault.until_ms < fault.from_ms {
                let message =
                    format!("expected at least from_ms ({}), found {}", fault.from_ms, fault.until_ms);
                return Err(invalid(&format!("{place}.until_ms"), &message));
            }
        }
        self.stage.validate()
    }
}

impl StagePlan {
    fn validate(&self) -> Result<(), PlanError> {
        at_most("stage.shards", self.shards.into(), 64)?;
        if self.shard_lifetime_ms != 0 && self.shard_lifetime_ms < MIN_SHARD_LIFETIME_MS {
            let message =
                format!("expected 0 or at least {MIN_SHARD_LIFETIME_MS}, found {}", self.shard_lifetime_ms);
            return Err(invalid("stage.shard_lifetime_ms", &message));
        }
        let none = self.concurrency.iter().find(|(_, limit)| **limit == 0);
        none.map_or(Ok(()), |(function, _)| {
            Err(invalid(&format!("stage.concurrency.{function}"), "expected at least 1, found 0"))
        })
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, PlanError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json).map_err(located)?;
    json.end().map_err(|error| PlanError { place: ".".to_owned(), message: error.to_string() })?;
    Ok(read)
}

fn located(error: serde_path_to_error::Error<serde_json::Error>) -> PlanError {
    PlanError { place: error.path().to_string(), message: error.into_inner().to_string() }
}

/// Renames the fields of a version 1 file to those of version 2.
fn migrated(mut plan: Value) -> Value {
    if let Value::Object(fields) = &mut plan {
        fields.shift_remove("schema");
        fields.shift_insert(0, "schema".to_owned(), SCHEMA.into());
    }
    rename(&mut plan, "trouble_ms", "faults_until_ms");
    let clients = plan.get_mut("clients").and_then(Value::as_array_mut).into_iter().flatten();
    let steps = clients.filter_map(|client| client.get_mut("steps")?.as_array_mut()).flatten();
    for act in steps.filter_map(|step| step.get_mut("act")) {
        rename(act, "ask", "request");
        rename(act, "say", "send_text");
    }
    plan
}

/// Renames a field of `object`, and keeps the field's position.
fn rename(object: &mut Value, old: &str, new: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    *fields = std::mem::take(fields)
        .into_iter()
        .map(|(name, value)| (if name == old { new.to_owned() } else { name }, value))
        .collect();
}

/// Longest time in a plan, in milliseconds: one day, because idle virtual time has a cost too.
const MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// Shortest lifetime of a shard, in milliseconds.
const MIN_SHARD_LIFETIME_MS: u64 = 1_000;

fn at_most(place: &str, number: u64, most: u64) -> Result<(), PlanError> {
    if number <= most {
        Ok(())
    } else {
        Err(invalid(place, &format!("expected at most {most}, found {number}")))
    }
}

fn invalid(place: &str, message: &str) -> PlanError {
    PlanError { place: place.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_written_to_a_file_is_read_back_unchanged() {
        for seed in 0..50 {
            let plan = Plan::from_seed(seed);
            assert_eq!(Plan::from_json(&plan.to_json()), Ok(plan));
        }
    }

    #[test]
    fn plan_file_error_names_the_faulty_place() {
        let plan = r#"{
            "schema": 2, "seed": 1, "faults_until_ms": 1000, "stage": {"concurrency": {"worker": 2}, "shards": 2},
            "clients": [{"user": "ann", "tenant": "acme", "steps": [
                {"at_ms": 10, "act": "connect"}, {"at_ms": 20, "act": {"cancel": {"id": "r1"}}}
            ]}],
            "faults": [{"kind": "kill", "rate": 0.5, "until_ms": 100}]
        }"#;
        assert!(Plan::from_json(plan).is_ok());
        let cases = [
            ("100}]", "100"),
            ("\"schema\": 2,", ""),
            ("\"schema\": 2,", "\"schema\": 3,"),
            ("\"schema\": 2,", "\"schema\": 1,"),
            ("\"schema\": 2,", "\"schema\": \"2\","),
            ("\"seed\": 1,", ""),
            ("\"seed\"", "\"sed\""),
            ("\"ann\"", "7"),
            ("\"ann\"", "\"\""),
            ("\"connect\"", "\"dance\""),
            ("{\"id\": \"r1\"}", "{\"request\": \"r1\"}"),
            ("\"at_ms\": 20", "\"at_ms\": 2"),
            ("\"at_ms\": 20", "\"at_ms\": 90000000000"),
            ("\"kill\"", "\"murder\""),
            ("0.5", "1.5"),
            ("0.5", "-0.1"),
            ("\"until_ms\": 100", "\"until_ms\": 100, \"from_ms\": 200"),
            ("\"worker\": 2", "\"worker\": 0"),
            ("\"shards\": 2", "\"shards\": 2000"),
            ("\"shards\": 2", "\"shard_lifetime_ms\": 1"),
        ];
        let errors = cases.map(|(right, wrong)| {
            let text = plan.replacen(right, wrong, 1);
            assert_ne!(text, plan, "the valid plan contains {right:?}");
            format!("{right} as {wrong}: {}", Plan::from_json(&text).unwrap_err())
        });
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn version_1_plan_file_is_migrated() {
        let old = r#"{
            "seed": 1, "trouble_ms": 1000,
            "clients": [{"user": "ann", "tenant": "acme", "steps": [
                {"at_ms": 10, "act": "connect"},
                {"at_ms": 20, "act": {"ask": {"id": "ask", "action": "say", "payload": {"trouble_ms": {"ask": 1}}}}},
                {"at_ms": 30, "act": {"say": {"text": "ask"}}}
            ]}]
        }"#;
        let new = r#"{
            "schema": 2, "seed": 1, "faults_until_ms": 1000,
            "clients": [{"user": "ann", "tenant": "acme", "steps": [
                {"at_ms": 10, "act": "connect"},
                {"at_ms": 20, "act": {"request": {"id": "ask", "action": "say", "payload": {"trouble_ms": {"ask": 1}}}}},
                {"at_ms": 30, "act": {"send_text": {"text": "ask"}}}
            ]}]
        }"#;
        let plan = Plan::from_json(new).unwrap();
        assert_eq!(Plan::from_json(old), Ok(plan.clone()));
        assert_eq!(Plan::from_json(&old.replacen('{', "{\"schema\": 1,", 1)), Ok(plan.clone()));
        assert!(plan.to_json().starts_with("{\n  \"schema\": 2,\n"));
        assert_eq!(
            Plan::from_json(&old.replacen("20", "2", 1)).unwrap_err().place,
            "clients[0].steps[1].at_ms"
        );
    }
}
