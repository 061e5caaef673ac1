//! Scheduled invocations: scheduled rules of `EventBridge`, and schedules of `EventBridge` Scheduler.

mod cron;
mod error;
mod expression;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use streamer::ports::{Clock, Entropy, Timestamp};

use super::functions::Functions;
pub use error::ExpressionError;
pub use expression::Expression;

use crate::aws_format::{iso_8601, uuid};

/// Maximum duration of one sleep. The clock is read again after each sleep, because the system clock may have
/// been changed.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// A schedule that invokes a function.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// Name of the function that the schedule invokes.
    pub function: String,
    /// ARN of the rule or schedule, which the event contains in `resources`.
    pub arn: String,
    /// Expression for the times of the invocations, such as `rate(5 minutes)`.
    pub expression: Expression,
    /// Payload of each invocation; `None` for the event that AWS generates.
    pub input: Option<String>,
    /// AWS service that the schedule belongs to.
    pub service: Scheduler,
}

/// AWS service that invokes functions on a schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheduler {
    /// `EventBridge`, with a scheduled rule. The event has the source `aws.events`, and an empty object as
    /// `detail`.
    Rule,
    /// `EventBridge` Scheduler. The event has the source `aws.scheduler`, and the string `{}` as `detail`.
    Schedule,
}

impl Schedule {
    /// Invokes the function asynchronously at each time of the schedule, until `stop` completes.
    ///
    /// If several times pass while the machine sleeps, the function is invoked once after the sleep, and the
    /// other times are skipped.
    pub async fn run(
        self,
        functions: Functions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::select! {
            biased;
            () = stop => {}
            never = self.invoke_for_ever(&functions, &*clock, &*entropy) => match never {},
        }
    }

    async fn invoke_for_ever(
        &self,
        functions: &Functions,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Infallible {
        let start = clock.now();
        let mut upcoming = self.first(start);
        while let Some(next) = upcoming {
            loop {
                let left = next.since(clock.now());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(MAX_SLEEP)).await;
            }
            let payload = Bytes::from(self.payload(next, entropy));
            if let Err(error) = functions.invoke_async(&self.function, payload) {
                let line = format!("{} could not invoke the function: {error}", self.arn);
                functions.options().log.line(&self.function, &line);
            }
            upcoming = self.expression.next(start, next.max(clock.now()));
        }
        // The schedule has no further times, so only `stop` ends the wait.
        std::future::pending().await
    }

    /// Returns the first invocation time of a schedule that was created at `start`.
    ///
    /// A rate of `EventBridge` Scheduler starts immediately: its guide, "Schedule types", says that without a
    /// `StartDate` the schedule "starts invoking the target immediately". The rate of a rule starts after one
    /// interval.
    fn first(&self, start: Timestamp) -> Option<Timestamp> {
        match self.service {
            Scheduler::Schedule if self.expression.is_rate() => Some(start),
            Scheduler::Schedule | Scheduler::Rule => self.expression.next(start, start),
        }
    }

    /// Returns the payload of an invocation at time `at`: the configured input, or the event that
    /// `EventBridge` generates.
    ///
    /// Source of the event's format: `EventBridge` guide, "Creating a rule that runs on a schedule".
    fn payload(&self, at: Timestamp, entropy: &dyn Entropy) -> String {
        if let Some(input) = &self.input {
            return input.clone();
        }
        let mut parts = self.arn.split(':').skip(3);
        let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (source, detail) = match self.service {
            Scheduler::Rule => ("aws.events", json!({})),
            Scheduler::Schedule => ("aws.scheduler", json!("{}")),
        };
        // AWS writes the time in whole seconds.
        let time = iso_8601(Timestamp::from_secs(at.as_secs())).replace(".000Z", "Z");
        json!({
            "version": "0",
            "id": uuid(entropy),
            "detail-type": "Scheduled Event",
            "source": source,
            "account": account,
            "time": time,
            "region": region,
            "resources": [self.arn],
            "detail": detail,
        })
        .to_string()
    }
}
