//! Demo action `echo_async`: returns a message after several rounds of work, with progress.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// Handler of `echo_async`, which returns the message of the request after a number of rounds of work. Each
/// round takes about 40 ms and reports progress.
#[derive(Debug)]
pub struct EchoAsync;

/// Payload of an `echo_async` request.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Text that the result returns.
    message: String,
    /// Number of rounds that compute the digest of the message. Default 20, at most 1,000.
    #[serde(default = "default_rounds")]
    rounds: u32,
}

/// Result of an `echo_async` request.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Echo {
    /// Text from the payload.
    message: String,
    /// Number of rounds that were run.
    rounds: u32,
    /// Hexadecimal digest, which depends only on the message and the number of rounds.
    digest: String,
}

const fn default_rounds() -> u32 {
    20
}

impl Handler for EchoAsync {
    type Input = Message;
    type Output = Echo;

    fn validate(&self, input: &Message) -> Result<(), Vec<FieldError>> {
        match input.rounds {
            1..=1_000 => Ok(()),
            other => Err(vec![FieldError::new("rounds", format!("must be from 1 to 1000, not {other}"))]),
        }
    }

    /// Returns more than the router's threshold for queueing (default 5 s), so that the request is always
    /// queued. The action `echo` is the quick alternative.
    fn estimated_duration(&self, input: &Message) -> Duration {
        Duration::from_secs(6) + Duration::from_millis(50) * input.rounds
    }

    async fn process(&self, input: Message, context: Context) -> Result<Echo, HandlerError> {
        let Message { message, rounds } = input;
        let mut numbers = Numbers::named(&message);
        let mut digest = 0;
        for round in 1..=rounds {
            for _ in 0..10_000 {
                digest ^= numbers.next();
            }
            page_latency().await;
            let percentage = f64::from(round) / f64::from(rounds) * 100.0;
            context.progress.report(percentage, format!("Round {round} of {rounds}"))?;
        }
        Ok(Echo { message, rounds, digest: format!("{digest:016x}") })
    }
}
