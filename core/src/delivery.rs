//! Delivers a terminal request: sends the terminal frame to every subscriber, sends the dead letter if it is
//! due, and records the delivery in the store.
//!
//! The function that writes the terminal status delivers immediately. If this delivery fails or stays
//! incomplete, the request's timer fires and the sweeper retries until the delivery is complete. The terminal
//! frame is made from the stored request alone, so every retry sends the same frame.

mod fan_out;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub(crate) use fan_out::FanOut;

use crate::connections::Connections;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::ids::{ConnectionId, RequestId};
use crate::ports::Timestamp;
use crate::protocol::{ErrorBody, ErrorCode, Frame, MAX_FRAME_BYTES, Seq};
use crate::service_error::ServiceError;
use crate::store::{Delivery, Ending, Request, RequestQueue};
use crate::telemetry::Causes;

/// Time at the end of a delivery that is reserved for recording the delivery.
const RECORD_TIME: Duration = Duration::from_secs(1);

/// Timeout for sending a dead letter. The delivery is recorded only after this send has finished.
const LETTER_TIME: Duration = Duration::from_secs(10);

/// The last frame of a request: it carries the result, the error or the cancellation.
pub(crate) struct TerminalFrame {
    /// The ending that the frame carries; a failure if the original ending was too large for a frame.
    pub(crate) ending: Ending,
    /// The frame's JSON text.
    pub(crate) json: String,
}

impl TerminalFrame {
    /// Creates the terminal frame of a request. If the frame would be larger than the gateway carries, creates
    /// an error frame instead.
    pub(crate) fn of(id: &RequestId, ending: Ending, seq: Seq, at: Timestamp) -> Self {
        let error_frame = |error| Frame::Error {
            request_id: Some(id.clone()),
            error,
            timestamp: at.as_secs(),
            seq: Some(seq),
        };
        let json = match &ending {
            Ending::Completed(result) => Frame::Complete {
                request_id: id.clone(),
                success: true,
                result: result.clone(),
                timestamp: at.as_secs(),
                seq,
            },
            Ending::Failed(error) => error_frame(error.clone()),
            Ending::Cancelled => error_frame(ErrorBody::cancelled()),
        }
        .to_json();
        if json.len() <= MAX_FRAME_BYTES {
            return Self { ending, json };
        }
        let error = match ending {
            Ending::Completed(_) => ErrorBody::new(
                ErrorCode::PayloadTooLarge,
                format!(
                    "The frame with the result has {} bytes; the gateway carries at most {MAX_FRAME_BYTES}",
                    json.len()
                ),
            ),
            Ending::Failed(error) => error.without_details(),
            Ending::Cancelled => ErrorBody::cancelled(),
        };
        Self::of(id, Ending::Failed(error), seq, at)
    }
}

/// A terminal request to deliver, its remaining subscribers, and flags that the stored request does not
/// contain.
pub(crate) struct TerminalRequest<'r> {
    /// The request after its terminal write, with `seq`, `ending` and `finished_at` set. The payload is used
    /// only for a dead letter.
    pub(crate) request: &'r Request,
    /// The connections that must receive the terminal frame.
    pub(crate) audience: Vec<ConnectionId>,
    /// Whether the terminal write has set the expiry of the request's part items (separate items that hold
    /// large values); `false` if unknown.
    pub(crate) part_ttls_set: bool,
    /// True if the request's payload cannot be read. The dead letter is then sent without a payload.
    pub(crate) is_payload_lost: bool,
}

/// Result of delivering a terminal request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delivered {
    /// Every subscriber has the terminal frame or can never receive it, and no dead letter remains to be sent.
    /// The store has recorded both facts.
    Fully,
    /// A subscriber still needs the terminal frame, the dead letter is not sent, or the delivery is not
    /// recorded.
    Partly,
}

/// Sends the terminal frame through `fan_out`, sends the dead letter if it is due, and records the delivery in
/// the store.
///
/// Returns no later than `until`, and spends at most `push_timeout` on sending frames. If `dead_letters` is
/// `None`, a dead letter that is due stays due, and the sweeper sends it.
pub(crate) async fn deliver<Q: RequestQueue, P: Connections, D: DeadLetters>(
    queue: &Q,
    dead_letters: Option<&D>,
    fan_out: FanOut<'_, P>,
    ended: TerminalRequest<'_>,
    until: Instant,
    push_timeout: Duration,
) -> Delivered {
    let TerminalRequest { request, audience, part_ttls_set, is_payload_lost } = ended;
    let Some(ending) = request.ending.clone() else { return Delivered::Partly };
    let key = request.key();
    let at = request.finished_at.unwrap_or_default();
    let frame = TerminalFrame::of(&request.id, ending, request.seq, at).json;
    let audience_size = audience.len();
    let send_until = until.checked_sub(RECORD_TIME).unwrap_or(until);
    let deliver_until = send_until.min(Instant::now() + push_timeout);
    let letter_until = send_until.min(Instant::now() + LETTER_TIME);
    let (delivered, letter) = tokio::join!(
        fan_out.deliver(request.seq, frame, deliver_until, audience),
        send_letter(dead_letters, request, is_payload_lost, letter_until)
    );
    let delivery = Delivery {
        delivered: &delivered,
        is_complete: delivered.len() == audience_size && letter != Letter::Unsent,
        is_dead_letter_sent: letter == Letter::Sent,
        part_ttls_set,
    };
    match timeout_at(until, queue.record_delivery(&key, request.epoch, delivery)).await {
        Ok(Ok(())) if delivery.is_complete => return Delivered::Fully,
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(request = %key, error = %Causes(&error), "delivery not recorded");
        }
        Err(_) => tracing::error!(request = %key, "delivery record unconfirmed at its deadline"),
    }
    Delivered::Partly
}

/// State of a request's dead letter after a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Letter {
    /// The request needs no dead letter, or its dead letter was sent earlier.
    NotDue,
    /// The dead letter has been sent.
    Sent,
    /// The dead letter is due and still has to be sent.
    Unsent,
}

async fn send_letter<D: DeadLetters>(
    dead_letters: Option<&D>,
    request: &Request,
    is_payload_lost: bool,
    until: Instant,
) -> Letter {
    if !request.is_dead_letter_due {
        return Letter::NotDue;
    }
    let (Some(dead_letters), Some(mut letter)) = (dead_letters, DeadLetter::of(request)) else {
        return Letter::Unsent;
    };
    if is_payload_lost {
        letter.left_out.insert("payload".to_owned(), 0);
    }
    let sent = timeout_at(until, dead_letters.send(&letter)).await;
    let timed_out = |_| Err(ServiceError::transient("send a dead letter", "timed out"));
    match sent.unwrap_or_else(timed_out) {
        Ok(()) => Letter::Sent,
        Err(error) => {
            tracing::error!(
                request = %request.key(), error = %Causes(&error),
                "dead letter not sent; sweeper retries"
            );
            Letter::Unsent
        }
    }
}
