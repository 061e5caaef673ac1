//! Plans as files that people write: what is wrong with one is said, and where.

use std::fmt;

use super::plan::{Plan, StagePlan};

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

impl Plan {
    /// Reads a plan's file.
    ///
    /// # Errors
    /// When it is no JSON, has a field that is not known, or says what cannot be: the first such place.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let plan: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| PlanError {
            place: error.path().to_string(),
            message: error.into_inner().to_string(),
        })?;
        let end = json.end();
        end.map_err(|error| PlanError { place: ".".to_owned(), message: error.to_string() })?;
        plan.sound()?;
        Ok(plan)
    }

    /// As a file that people can read and change.
    ///
    /// # Panics
    /// Never: a plan is made of what JSON can say.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan is made of what JSON can say") + "\n"
    }

    /// Whether it says what can be.
    fn sound(&self) -> Result<(), PlanError> {
        at_most("trouble_ms", self.trouble_ms, MOST_MS)?;
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
            "seed": 1, "trouble_ms": 1000, "stage": {"concurrency": {"worker": 2}, "shards": 2},
            "clients": [{"user": "ann", "tenant": "acme", "steps": [
                {"at_ms": 10, "act": "connect"}, {"at_ms": 20, "act": {"cancel": {"id": "r1"}}}
            ]}],
            "faults": [{"kind": "kill", "rate": 0.5, "until_ms": 100}]
        }"#;
        assert!(Plan::from_json(plan).is_ok());
        let said = [
            ("100}]", "100"),
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
}
