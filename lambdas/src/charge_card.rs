//! Demo action `charge_card`: calls a simulated bank, and shows retries and failures.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy};
use streamer::protocol::FieldError;

use crate::generated::page_latency;

/// Handler of `charge_card`, which asks a simulated bank for a payment. The bank may be busy, which causes a
/// retry, or decline the card, which fails the request.
#[derive(Debug)]
pub struct ChargeCard;

/// Payload of a `charge_card` request.
#[derive(Debug, Deserialize)]
pub struct Charge {
    /// Amount to charge, in cents; at least 1. The bank declines more than 1,000,000.
    cents: u32,
    /// Number of attempts for which the bank is busy. Default 1. With 3 or more, every attempt fails, and the
    /// request becomes a dead letter.
    #[serde(default = "default_busy")]
    busy: u32,
}

/// Result of a `charge_card` request.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Receipt {
    /// Charged amount, in cents.
    cents: u32,
    /// Number of the attempt that succeeded, counted from 1.
    attempts: u32,
}

const fn default_busy() -> u32 {
    1
}

/// Maximum amount in cents that the bank accepts.
const LIMIT_CENTS: u32 = 1_000_000;

impl Handler for ChargeCard {
    type Input = Charge;
    type Output = Receipt;

    fn validate(&self, input: &Charge) -> Result<(), Vec<FieldError>> {
        if input.cents == 0 { Err(vec![FieldError::new("cents", "must be at least 1")]) } else { Ok(()) }
    }

    /// Returns 6 s, above the router's threshold for queueing (default 5 s), because only queued requests are
    /// retried.
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
            let declined = HandlerError::failure("CARD_DECLINED", "The bank has declined the card");
            return Err(declined.with_detail("limit_cents", LIMIT_CENTS));
        }
        if context.attempt <= busy {
            return Err(HandlerError::retryable("BANK_BUSY", "The bank is busy; try again later"));
        }
        Ok(Receipt { cents, attempts: context.attempt })
    }
}
