//! Simulations of a user's own handlers, with the user's own checks.

use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer_sim::{Plan, RequestHistory, Sim};

/// Handler that prints pages, one per second.
#[derive(Debug)]
struct Print {
    /// Whether a retried attempt prints one page too few.
    forgets: bool,
}

impl Handler for Print {
    type Input = u64;
    type Output = Value;

    fn required_permission(&self) -> Option<&str> {
        Some("print")
    }

    fn estimated_duration(&self, _pages: &u64) -> Duration {
        Duration::from_secs(10)
    }

    async fn process(&self, pages: u64, context: Context) -> Result<Value, HandlerError> {
        for _ in 0..pages {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if context.attempt == 1 && pages.is_multiple_of(2) {
            return Err(HandlerError::retryable("JAM", "The paper is jammed"));
        }
        let lost = u64::from(self.forgets && context.attempt > 1);
        Ok(json!({"pages": pages - lost}))
    }
}

fn sim(forgets: bool) -> Sim {
    let app = move || {
        let mut app = App::new();
        app.handle("print", Print { forgets }).unwrap();
        app
    };
    let is_whole = |request: &RequestHistory| {
        request.result.as_ref().is_none_or(|result| result["pages"] == request.payload)
    };
    Sim::new(app)
        .requests("print", |chance| json!(chance.number(1..=20)))
        .permissions(["print"])
        .check("all pages are printed", move |history| {
            let torn = history.requests.iter().find(|request| !is_whole(request));
            torn.map_or(Ok(()), |request| Err(format!("{} has the result {:?}", request.key, request.result)))
        })
        .seeds(0..2)
}

#[test]
fn app_with_correct_handlers_passes_its_checks() {
    let sim = sim(false);
    sim.run().assert();
    let history = sim.run_seed(1).history();
    let printed = history.requests.iter().filter(|request| request.status.as_deref() == Some("COMPLETED"));
    let printed: Vec<_> = printed.filter(|request| request.action == "print").collect();
    assert!(!printed.is_empty());
    assert!(
        printed.iter().all(|request| request.attempts > 0 && !request.frames.is_empty()),
        "each completed request has attempts and frames: {printed:?}"
    );
}

#[test]
fn handler_bug_that_only_a_retry_reveals_breaks_the_users_check() {
    let report = sim(true).run_while(|so_far| so_far.failures.is_empty());
    let (seed, violations) = report.failures.first_key_value().unwrap();
    assert_eq!(violations[0].rule, "all pages are printed");
    let text = sim(true).run_seed(*seed).to_string();
    assert!(
        text.contains("PROCESSING → RETRYING") && text.contains("VIOLATION"),
        "the timeline shows the retry and the violation:\n{text}"
    );
}

#[test]
fn plan_written_by_a_user_is_run_unchanged() {
    let plan = r#"{
        "schema": 2, "seed": 1, "faults_until_ms": 1000,
        "clients": [{"user": "ann", "tenant": "acme", "permissions": ["print"], "steps": [
            {"at_ms": 0, "act": "connect"},
            {"at_ms": 100, "act": {"request": {"id": "r1", "action": "print", "payload": 3}}}
        ]}]
    }"#;
    let world = sim(false).run_plan(Plan::from_json(plan).unwrap());
    world.assert();
    let history = world.history();
    assert_eq!(history.requests.len(), 1);
    let request = &history.requests[0];
    assert_eq!((request.key.as_str(), request.attempts), ("acme/ann/r1", 1));
    assert_eq!(request.result, Some(json!({"pages": 3})));
    assert!(world.lasted > Duration::from_secs(3));
}

#[test]
fn world_whose_stage_does_not_start_breaks_a_rule() {
    let plan = r#"{"schema": 2, "seed": 1, "faults_until_ms": 0, "stage": {"variables": {"LEASE_MS": "soon"}},
        "clients": [{"user": "ann", "tenant": "acme", "steps": []}]}"#;
    let world = sim(false).run_plan(Plan::from_json(plan).unwrap());
    assert!(world.breaks("the stage starts"), "the stage does not start:\n{world}");
    assert!(world.to_string().contains("LEASE_MS"), "the violation names LEASE_MS:\n{world}");
}
