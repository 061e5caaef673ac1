//! Tests of scheduled invocations, on virtual time. Unit tests in `src/lambda/schedule` cover the schedule
//! expressions.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use streamer::ports::{SystemEntropy, TokioClock};
use streamer_fakes::lambda::{AsyncSettings, Schedule, Scheduler};
use tokio::sync::oneshot;

use super::asynchronous::{Scripted, Stage, config};
use super::in_process::START;

fn schedule(expression: &str, service: Scheduler, input: Option<&str>) -> Schedule {
    let kind = match service {
        Scheduler::Rule => "events:us-east-1:000000000000:rule/Daily",
        Scheduler::Schedule => "scheduler:us-east-1:000000000000:schedule/default/Daily",
    };
    Schedule {
        function: "f".to_owned(),
        arn: format!("arn:aws:{kind}"),
        expression: expression.parse().unwrap(),
        input: input.map(str::to_owned),
        service,
    }
}

/// Runs a schedule for 25 hours, and returns the time in seconds since the start and the event of each invocation.
async fn invocations(schedule: Schedule) -> Vec<(u64, Value)> {
    let (code, mut invoked) = Scripted::new([]);
    let stage = Stage::new(vec![config("f", code, AsyncSettings::default())]);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let (clock, entropy) = (Arc::new(TokioClock::starting_at(START)), Arc::new(SystemEntropy::new()));
    let running = tokio::spawn(schedule.run(stage.functions.clone(), clock, entropy, stopped));
    tokio::time::sleep(Duration::from_hours(25)).await;
    assert!(!running.is_finished(), "the schedule runs until it is stopped");
    drop(stop);
    running.await.unwrap();
    let mut all = Vec::new();
    while let Ok((at, event)) = invoked.try_recv() {
        all.push((at, serde_json::from_slice(&event.payload).unwrap()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn scheduled_rule_invokes_its_function_at_the_scheduled_time_with_the_event_of_aws() {
    // The clock starts at midnight of March 1, 2026.
    let mut invoked = invocations(schedule("cron(30 12 * * ? *)", Scheduler::Rule, None)).await;
    let (at, mut event) = invoked.remove(0);
    assert_eq!((at, invoked.len()), (12 * 3_600 + 30 * 60, 0));
    assert_eq!(event["id"].as_str().unwrap().len(), 36);
    event["id"] = json!("[id]");
    let expected = json!({
        "version": "0",
        "id": "[id]",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": "2026-03-01T12:30:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/Daily"],
        "detail": {},
    });
    assert_eq!(event, expected);
}

#[tokio::test(start_paused = true)]
async fn scheduler_event_has_source_aws_scheduler_and_configured_input_replaces_the_event() {
    let invoked = invocations(schedule("at(2026-03-01T06:00:00)", Scheduler::Schedule, None)).await;
    assert_eq!(invoked.len(), 1);
    assert_eq!((invoked[0].0, &invoked[0].1["source"]), (6 * 3_600, &json!("aws.scheduler")));
    assert_eq!(invoked[0].1["detail"], "{}");
    let invoked = invocations(schedule("rate(8 hours)", Scheduler::Rule, Some("{\"sweep\":true}"))).await;
    let expected = [8, 16, 24].map(|hours| (hours * 3_600, json!({ "sweep": true })));
    assert_eq!(invoked, expected, "a rule invokes for the first time after one interval");
    let invoked = invocations(schedule("rate(8 hours)", Scheduler::Schedule, Some("{}"))).await;
    assert_eq!(
        invoked,
        [0, 8, 16, 24].map(|hours| (hours * 3_600, json!({}))),
        "a schedule invokes for the first time immediately"
    );
}
