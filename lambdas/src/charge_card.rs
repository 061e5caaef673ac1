//! `charge_card`: work that depends on somebody who is not always there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::protocol::FieldError;

use crate::generated::page_latency;

/// `charge_card`: asks a bank, which may be busy, and may refuse.
#[derive(Debug)]
pub struct ChargeCard;

/// What `charge_card` is asked with.
#[derive(Debug, Deserialize)]
pub struct Charge {
    cents: u32,
    /// How many attempts find the bank busy. Default 1; from 3 on, the request fails for good, and is a dead letter.
    #[serde(default = "default_busy")]
    busy: u32,
}

/// What `charge_card` answers with.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Receipt {
    cents: u32,
    attempts: u32,
}

const fn default_busy() -> u32 {
    1
}

/// What the bank charges at most.
const LIMIT_CENTS: u32 = 1_000_000;

impl Handler for ChargeCard {
    type Input = Charge;
    type Output = Receipt;

    fn validate(&self, input: &Charge) -> Result<(), Vec<FieldError>> {
        if input.cents == 0 { Err(vec![FieldError::new("cents", "must be at least 1")]) } else { Ok(()) }
    }

    /// Always above the router's threshold: only what is queued is tried again.
    fn estimated_duration(&self, _: &Charge) -> Duration {
        Duration::from_secs(6)
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::attempts(3).base(Duration::from_secs(2))
    }

    async fn process(&self, input: Charge, context: Context) -> Result<Receipt, HandlerError> {
        let Charge { cents, busy } = input;
        context.progress.report(50.0, format!("Asking the bank (attempt {})", context.attempt))?;
        page_latency().await;
        if cents > LIMIT_CENTS {
            let refused = HandlerError::failure("CARD_DECLINED", "The bank has declined the card");
            return Err(refused.with_detail("limit_cents", LIMIT_CENTS));
        }
        if context.attempt <= busy {
            return Err(HandlerError::retryable("BANK_BUSY", "The bank does not answer"));
        }
        Ok(Receipt { cents, attempts: context.attempt })
    }
}
