//! `echo_async`: a message that comes back the long way round.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// `echo_async`: gives a message back, the long way round.
#[derive(Debug)]
pub struct EchoAsync;

/// What `echo_async` is asked with.
#[derive(Debug, Deserialize)]
pub struct Message {
    message: String,
    /// How many rounds the message's digest goes through. Default 20, at most 1,000.
    #[serde(default = "default_rounds")]
    rounds: u32,
}

/// What `echo_async` answers with.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Echo {
    message: String,
    rounds: u32,
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
            other => Err(vec![FieldError::new("rounds", format!("must be from 1 to 1000, and is {other}"))]),
        }
    }

    /// Always above the router's threshold: whoever wants the quick way has `echo`.
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
