//! Functions that are invoked by the clock: `EventBridge`'s scheduled rules and `EventBridge` Scheduler's schedules.

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

/// The most that the clock is waited for at once, since it may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// A function that the clock invokes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// The name of the function.
    pub function: String,
    /// The ARN of the rule or schedule, which the event names.
    pub arn: String,
    /// When.
    pub expression: Expression,
    /// The payload instead of the event that AWS makes.
    pub input: Option<String>,
    /// Which of AWS's two services keeps it.
    pub service: Scheduler,
}

/// What keeps a schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheduler {
    /// A scheduled rule of `EventBridge`: its event says that it was scheduled.
    Rule,
    /// A schedule of `EventBridge` Scheduler: its event has another source, and a detail that is text.
    Schedule,
}

impl Schedule {
    /// Invokes the function asynchronously at each moment of the schedule, until `stop` completes.
    ///
    /// A moment that passed unseen, since the machine slept, is not made up for.
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
        let mut coming = self.first(start);
        while let Some(next) = coming {
            loop {
                let left = next.since(clock.now());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
            let payload = Bytes::from(self.payload(next, entropy));
            if let Err(error) = functions.invoke_async(&self.function, payload) {
                let line = format!("{} did not invoke it: {error}", self.arn);
                functions.options().log.line(&self.function, &line);
            }
            coming = self.expression.next(start, next.max(clock.now()));
        }
        // There is no such moment any more, which is no end of the stage.
        std::future::pending().await
    }

    /// The first moment of a schedule that was made at `start`: of a schedule with a rate that very moment, since it names no
    /// other (`EventBridge` Scheduler's guide, «Schedule types»: without a `StartDate`, it «starts invoking the target
    /// immediately»); of a rule only after its interval.
    fn first(&self, start: Timestamp) -> Option<Timestamp> {
        match self.service {
            Scheduler::Schedule if self.expression.is_rate() => Some(start),
            Scheduler::Schedule | Scheduler::Rule => self.expression.next(start, start),
        }
    }

    /// The event as `EventBridge` makes it (its guide, «Creating a rule that runs on a schedule»).
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
        // Whole seconds, as AWS writes them.
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
