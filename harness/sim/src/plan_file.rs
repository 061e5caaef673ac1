//! Plans as files that people write: what is wrong with one is said, and where.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{ClientPlan, FaultPlan, Plan, StagePlan};

/// Why a text is no plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlanError {
    /// Where, such as `clients[1].steps[0].at_ms`.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, message } = self;
        // So a path says that it is about the whole, or that the text ends where no name is known yet.
        if place == "." || place == "?" { write!(f, "{message}") } else { write!(f, "{place}: {message}") }
    }
}

impl std::error::Error for PlanError {}

/// The version of the file format that is written. A file says which version it has: `"schema": 2`. A file without it has version 1.
const SCHEMA: u64 = 2;

/// A plan's file.
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

/// What is read first of a file.
#[derive(Deserialize)]
struct Header {
    schema: Option<u64>,
    /// A required field, which version 1 called `trouble_ms`.
    faults_until_ms: Option<IgnoredAny>,
}

impl Plan {
    /// Reads a plan's file, of this version or an earlier one.
    ///
    /// # Errors
    /// When it is no JSON, has a field that is not known, says what cannot be, or was written by a newer version: the first such
    /// place.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        // Where the header cannot be read, the error of the whole file says more.
        let header =
            serde_json::from_str(text).unwrap_or(Header { schema: Some(SCHEMA), faults_until_ms: None });
        let file = match header {
            Header { schema: Some(SCHEMA), .. } => read(text)?,
            Header { schema: None | Some(1), faults_until_ms: Some(_) } => {
                return Err(wrong("schema", &format!("expected {SCHEMA}, which has `faults_until_ms`")));
            }
            Header { schema: None | Some(1), .. } => {
                let plan: Value = read(text)?;
                serde_path_to_error::deserialize(migrated(plan)).map_err(located)?
            }
            Header { schema: Some(schema), .. } => {
                let message = format!("{schema} is not a version that is read: those are 1 and {SCHEMA}");
                return Err(wrong("schema", &message));
            }
        };
        let PlanFile { schema: _, seed, faults_until_ms, stage, clients, faults } = file;
        let plan = Self { seed, faults_until_ms, stage, clients, faults };
        plan.sound()?;
        Ok(plan)
    }

    /// As a file that people can read and change.
    ///
    /// # Panics
    /// Never: a plan is made of what JSON can say.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { seed, faults_until_ms, stage, clients, faults } = self.clone();
        let file = PlanFile { schema: SCHEMA, seed, faults_until_ms, stage, clients, faults };
        serde_json::to_string_pretty(&file).expect("a plan is made of what JSON can say") + "\n"
    }

    /// Whether it says what can be.
    fn sound(&self) -> Result<(), PlanError> {
        at_most("faults_until_ms", self.faults_until_ms, MOST_MS)?;
        if self.clients.is_empty() {
            return Err(wrong("clients", "there must be at least one"));
        }
        for (number, client) in self.clients.iter().enumerate() {
            let place = format!("clients[{number}]");
            for (name, text) in [("user", &client.user), ("tenant", &client.tenant)] {
                if text.is_empty() {
                    return Err(wrong(&format!("{place}.{name}"), "must not be empty"));
                }
            }
            let mut before = 0;
            for (step, at_ms) in client.steps.iter().map(|step| step.at_ms).enumerate() {
                let place = format!("{place}.steps[{step}].at_ms");
                at_most(&place, at_ms, MOST_MS)?;
                if at_ms < before {
                    return Err(wrong(&place, &format!("{at_ms} is before the step before it, at {before}")));
                }
                before = at_ms;
            }
        }
        for (number, fault) in self.faults.iter().enumerate() {
            let place = format!("faults[{number}]");
            if !(0.0..=1.0).contains(&fault.rate) {
                return Err(wrong(
                    &format!("{place}.rate"),
                    &format!("must be from 0 to 1, and is {}", fault.rate),
                ));
            }
            if fault.until_ms < fault.from_ms {
                let message = format!("{} is before from_ms, {}", fault.until_ms, fault.from_ms);
                return Err(wrong(&format!("{place}.until_ms"), &message));
            }
        }
        self.stage.sound()
    }
}

impl StagePlan {
    fn sound(&self) -> Result<(), PlanError> {
        at_most("stage.shards", self.shards.into(), 64)?;
        if self.shard_lifetime_ms != 0 && self.shard_lifetime_ms < LEAST_LIFETIME_MS {
            let message = format!("must be 0 or at least {LEAST_LIFETIME_MS}");
            return Err(wrong("stage.shard_lifetime_ms", &message));
        }
        let none = self.concurrency.iter().find(|(_, limit)| **limit == 0);
        none.map_or(Ok(()), |(function, _)| {
            Err(wrong(&format!("stage.concurrency.{function}"), "must be at least 1"))
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

/// A file of version 1 with the names of version 2.
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

/// Gives a field another name, and leaves it at its place.
fn rename(object: &mut Value, old: &str, new: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    *fields = std::mem::take(fields)
        .into_iter()
        .map(|(name, value)| (if name == old { new.to_owned() } else { name }, value))
        .collect();
}

/// A day: a world's idle time costs some, too.
const MOST_MS: u64 = 24 * 60 * 60 * 1_000;
const LEAST_LIFETIME_MS: u64 = 1_000;

fn at_most(place: &str, number: u64, most: u64) -> Result<(), PlanError> {
    if number <= most {
        Ok(())
    } else {
        Err(wrong(place, &format!("must be at most {most}, and is {number}")))
    }
}

fn wrong(place: &str, message: &str) -> PlanError {
    PlanError { place: place.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_after_a_file() {
        for seed in 0..50 {
            let plan = Plan::of_seed(seed);
            assert_eq!(Plan::from_json(&plan.to_json()), Ok(plan));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let plan = r#"{
            "schema": 2, "seed": 1, "faults_until_ms": 1000, "stage": {"concurrency": {"worker": 2}, "shards": 2},
            "clients": [{"user": "ann", "tenant": "acme", "steps": [
                {"at_ms": 10, "act": "connect"}, {"at_ms": 20, "act": {"cancel": {"id": "r1"}}}
            ]}],
            "faults": [{"kind": "kill", "rate": 0.5, "until_ms": 100}]
        }"#;
        assert!(Plan::from_json(plan).is_ok());
        let said = [
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
        let said = said.map(|(right, wrong)| {
            let text = plan.replacen(right, wrong, 1);
            assert_ne!(text, plan, "{right}");
            format!("{right} as {wrong}: {}", Plan::from_json(&text).unwrap_err())
        });
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_file_of_version_1_is_migrated() {
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
