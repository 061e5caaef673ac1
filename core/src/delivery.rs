//! What follows a request's end: everyone who listens is told, its dead letter is sent, and both are noted.
//!
//! Whoever writes the end does it at once. Where they cannot, or not all of it, the request's timer has the sweeper do what
//! is left, as often as it takes. The frame is made of what is stored, and so the same each time.

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

/// How much of the time is kept to note who has been told.
const NOTE_TIME: Duration = Duration::from_secs(1);

/// How long a dead letter may take: what is told to clients is noted after it.
const LETTER_TIME: Duration = Duration::from_secs(10);

/// The last frame of a request, which says how it ended.
pub(crate) struct TerminalFrame {
    /// The ending that the frame carries: what no frame can carry ends the request as failed.
    pub(crate) ending: Ending,
    /// The frame as it goes over the wire.
    pub(crate) json: String,
}

impl TerminalFrame {
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
                    "The result makes a frame of {} bytes; the gateway carries at most {MAX_FRAME_BYTES}",
                    json.len()
                ),
            ),
            Ending::Failed(error) => error.without_its_text(),
            Ending::Cancelled => ErrorBody::cancelled(),
        };
        Self::of(id, Ending::Failed(error), seq, at)
    }
}

/// The end of a request, and what is known of it beside what is stored.
pub(crate) struct EndedRequest<'r> {
    /// The request as it ended, with its seq, ending and end. Its payload matters to a dead letter alone.
    pub(crate) request: &'r Request,
    /// Who is to be told.
    pub(crate) audience: Vec<ConnectionId>,
    /// As the write that ended it said, if that is known.
    pub(crate) parts_released: bool,
    /// Whether its payload cannot be read: its dead letter goes without.
    pub(crate) is_payload_lost: bool,
}

/// What came of telling an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delivered {
    /// Everybody has heard of it, its dead letter is sent, and that is noted.
    Fully,
    /// Something of that is still to be done.
    Partly,
}

/// Tells the end of a request through `fan_out`, sends its dead letter if that is due, and notes what was done: until
/// `until`, and to each client for `push_timeout` at most.
///
/// Without `dead_letters`, a letter that is due is left to whoever has them.
pub(crate) async fn deliver<Q: RequestQueue, P: Connections, D: DeadLetters>(
    queue: &Q,
    dead_letters: Option<&D>,
    fan_out: FanOut<'_, P>,
    end: EndedRequest<'_>,
    until: Instant,
    push_timeout: Duration,
) -> Delivered {
    let EndedRequest { request, audience, parts_released, is_payload_lost } = end;
    let Some(ending) = request.ending.clone() else { return Delivered::Partly };
    let key = request.key();
    let at = request.finished_at.unwrap_or_default();
    let frame = TerminalFrame::of(&request.id, ending, request.seq, at).json;
    let listening = audience.len();
    let note_until = until.checked_sub(NOTE_TIME).unwrap_or(until);
    let deliver_until = note_until.min(Instant::now() + push_timeout);
    let letter_until = note_until.min(Instant::now() + LETTER_TIME);
    let (delivered, letter) = tokio::join!(
        fan_out.deliver(request.seq, frame, deliver_until, audience),
        send_letter(dead_letters, request, is_payload_lost, letter_until)
    );
    let delivery = Delivery {
        delivered: &delivered,
        is_complete: delivered.len() == listening && letter != Letter::Owed,
        is_dead_letter_sent: letter == Letter::Sent,
        parts_released,
    };
    match timeout_at(until, queue.record_delivery(&key, request.epoch, delivery)).await {
        Ok(Ok(())) if delivery.is_complete => return Delivered::Fully,
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(request = %key, error = %Causes(&error), "delivery was not noted");
        }
        Err(_) => tracing::error!(request = %key, "delivery was not noted before the invocation's end"),
    }
    Delivered::Partly
}

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Letter {
    NotDue,
    Sent,
    Owed,
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
        return Letter::Owed;
    };
    if is_payload_lost {
        letter.left_out.insert("payload".to_owned(), 0);
    }
    let sent = timeout_at(until, dead_letters.send(&letter)).await;
    let late = |_| Err(ServiceError::transient("send a dead letter", "it took longer than it may"));
    match sent.unwrap_or_else(late) {
        Ok(()) => Letter::Sent,
        Err(error) => {
            tracing::error!(request = %request.key(), error = %Causes(&error), "the dead letter was not sent yet");
            Letter::Owed
        }
    }
}
