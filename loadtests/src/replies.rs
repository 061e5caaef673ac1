//! Checks the frames that answer a request.

use std::time::Duration;

use serde_json::{Value, json};
use streamer_protocol::{ErrorBody, Frame, RequestId, Seq};

use crate::measure::{Failure, Measured, Metric};

/// A quick request, whose response must contain its payload unchanged.
#[derive(Debug)]
pub(crate) struct Echo {
    id: RequestId,
    payload: Value,
}

impl Echo {
    pub(crate) fn new(id: RequestId) -> Self {
        // The payload contains the id, so that a response with the payload of a different request is
        // detected.
        let payload = json!({"message": id.as_str(), "numbers": [0, -1, 2.5], "text": "äöü ✓ \"quoted\""});
        Self { id, payload }
    }

    pub(crate) fn message(&self) -> String {
        message("echo", &self.id, &self.payload)
    }

    /// Returns a failure unless `reply` is the correct response.
    pub(crate) fn check(&self, reply: &Frame) -> Result<(), Failure> {
        check_request_id(reply, &self.id)?;
        match reply {
            Frame::Response { success: true, data: Some(data), error: None, .. } if *data == self.payload => {
                Ok(())
            }
            Frame::Response { success: true, .. } => {
                Err(Failure::new("the response differs from the sent payload"))
            }
            Frame::Response { error: Some(error), .. } | Frame::Error { error, .. } => {
                Err(error_failure(error))
            }
            Frame::Response { error: None, .. } => {
                Err(Failure::new("the request failed without an error in its response"))
            }
            Frame::Acknowledgment { .. } | Frame::Progress { .. } | Frame::Complete { .. } => {
                Err(unexpected("a response", reply))
            }
        }
    }
}

/// A slow request, and the frames received for it so far.
///
/// The acknowledgment is the route response, and all later frames are pushed. So a pushed frame may arrive
/// before the acknowledgment.
#[derive(Debug)]
pub(crate) struct SlowRequest {
    id: RequestId,
    /// Time from the request to its acknowledgment; `None` until the acknowledgment arrives.
    acknowledged: Option<Duration>,
    /// Time from the request to its first progress frame; `None` until the frame arrives.
    first_progress: Option<Duration>,
    /// Time from the request to its complete frame, and the frame; `None` until the frame arrives.
    completed: Option<(Duration, Frame)>,
    /// Highest sequence number received so far.
    last_seq: Seq,
}

/// A failed check of a frame: the metric that fails, and the reason.
type CheckFailure = (Metric, Failure);

impl SlowRequest {
    /// Number of rounds of work to request: enough for several progress frames, and under a second on an idle
    /// stage.
    const ROUNDS: u32 = 10;

    pub(crate) fn new(id: RequestId) -> Self {
        Self { id, acknowledged: None, first_progress: None, completed: None, last_seq: Seq::default() }
    }

    pub(crate) fn message(&self) -> String {
        message("echo_async", &self.id, &json!({"message": self.id.as_str(), "rounds": Self::ROUNDS}))
    }

    /// Checks the next frame. `at` is the time from the send of the request to the arrival of the frame.
    pub(crate) fn receive(&mut self, frame: &Frame, at: Duration) -> Result<(), CheckFailure> {
        check_request_id(frame, &self.id).map_err(|failure| (self.awaited(), failure))?;
        match frame {
            Frame::Acknowledgment { status, .. } => {
                let failed = |text| Err((Metric::Acknowledgment, Failure::new(text)));
                if self.acknowledged.is_some() {
                    return failed("the request was acknowledged twice");
                }
                if status != "queued" {
                    return failed("the acknowledgment of a new request has a status other than queued");
                }
                self.acknowledged = Some(at);
                Ok(())
            }
            Frame::Progress { percentage, seq, .. } => {
                let metric =
                    if self.first_progress.is_none() { Metric::FirstProgress } else { Metric::Complete };
                self.advance(*seq).map_err(|failure| (metric, failure))?;
                if !(0.0..=100.0).contains(percentage) {
                    return Err((metric, Failure::new("the percentage is not from 0 to 100")));
                }
                self.first_progress.get_or_insert(at);
                Ok(())
            }
            // The complete frame may be repeated, because its sender cannot always know that the frame has
            // arrived.
            Frame::Complete { .. } if self.completed.as_ref().is_some_and(|(_, last)| last == frame) => {
                Ok(())
            }
            Frame::Complete { success, result, seq, .. } => {
                let failed = |failure| (Metric::Complete, failure);
                self.advance(*seq).map_err(failed)?;
                if !success || !self.is_answered_by(result) {
                    return Err(failed(Failure::new("the result does not match the request")));
                }
                self.completed = Some((at, frame.clone()));
                Ok(())
            }
            Frame::Error { error, seq, .. } => {
                // A terminal error of a queued request has a sequence number; a refusal of the request has
                // none.
                let metric = if seq.is_some() { Metric::Complete } else { self.awaited() };
                Err((metric, error_failure(error)))
            }
            Frame::Response { .. } => Err((self.awaited(), unexpected("a frame of a queued request", frame))),
        }
    }

    /// Returns whether both the acknowledgment and the complete frame have arrived.
    pub(crate) const fn is_over(&self) -> bool {
        self.acknowledged.is_some() && self.completed.is_some()
    }

    /// Returns the metric of the frame that is expected next.
    pub(crate) const fn awaited(&self) -> Metric {
        match (self.acknowledged, self.first_progress) {
            (None, _) => Metric::Acknowledgment,
            (Some(_), None) => Metric::FirstProgress,
            (Some(_), Some(_)) => Metric::Complete,
        }
    }

    /// Returns the measurements of the request. `outcome` is the result of the visit, and `elapsed` is the
    /// time from the send of the request to that result.
    ///
    /// Frames that a failure prevented are counted neither as successes nor as failures.
    pub(crate) fn measured(&self, outcome: Result<(), CheckFailure>, elapsed: Duration) -> Vec<Measured> {
        let acknowledged = self.acknowledged.unwrap_or(elapsed);
        let since_acknowledged = |at: Duration| at.saturating_sub(acknowledged);
        let mut measured = Vec::new();
        let mut succeeded = |metric, elapsed| measured.push(Measured { metric, elapsed, outcome: Ok(()) });
        if let Some(at) = self.acknowledged {
            succeeded(Metric::Acknowledgment, at);
            if let Some(at) = self.first_progress {
                succeeded(Metric::FirstProgress, since_acknowledged(at));
            }
        }
        if let Some((at, _)) = self.completed {
            succeeded(Metric::Complete, at);
        }
        let failed = match outcome {
            Err(failure) => Some(failure),
            Ok(()) if self.first_progress.is_none() => {
                Some((Metric::FirstProgress, Failure::new("the request completed without a progress frame")))
            }
            Ok(()) => None,
        };
        if let Some((metric, failure)) = failed {
            let elapsed = match metric {
                Metric::FirstProgress => since_acknowledged(elapsed),
                Metric::Connect | Metric::Echo | Metric::Acknowledgment | Metric::Complete => elapsed,
            };
            measured.retain(|measured| measured.metric != metric);
            measured.push(Measured { metric, elapsed, outcome: Err(failure) });
        }
        measured
    }

    fn advance(&mut self, seq: Seq) -> Result<(), Failure> {
        if self.completed.is_some() {
            return Err(Failure::new("a frame arrived after the complete frame"));
        }
        if seq <= self.last_seq {
            return Err(Failure::new("the sequence number is not higher than the previous one"));
        }
        self.last_seq = seq;
        Ok(())
    }

    fn is_answered_by(&self, result: &Value) -> bool {
        result["message"] == self.id.as_str()
            && result["rounds"] == Self::ROUNDS
            && result["digest"].as_str().is_some_and(|digest| !digest.is_empty())
    }
}

fn message(action: &str, id: &RequestId, payload: &Value) -> String {
    json!({"action": action, "id": id, "payload": payload}).to_string()
}

/// Returns a failure if `frame` has the id of a different request. An error frame without a request id
/// belongs to the only open request.
fn check_request_id(frame: &Frame, id: &RequestId) -> Result<(), Failure> {
    let about = match frame {
        Frame::Response { request_id, .. }
        | Frame::Acknowledgment { request_id, .. }
        | Frame::Progress { request_id, .. }
        | Frame::Complete { request_id, .. } => Some(request_id),
        Frame::Error { request_id, .. } => request_id.as_ref(),
    };
    match about {
        Some(about) if about != id => {
            Err(Failure::new(format!("{} has the id of a different request", kind(frame))))
        }
        Some(_) | None => Ok(()),
    }
}

fn error_failure(error: &ErrorBody) -> Failure {
    Failure::new(format!("the request failed with {}: {}", error.code, error.message))
}

fn unexpected(expected: &str, frame: &Frame) -> Failure {
    Failure::new(format!("expected {expected}, got {}", kind(frame)))
}

const fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Response { .. } => "a response",
        Frame::Acknowledgment { .. } => "an acknowledgment",
        Frame::Progress { .. } => "a progress frame",
        Frame::Complete { .. } => "a complete frame",
        Frame::Error { .. } => "an error frame",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use streamer_protocol::ErrorCode;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn echo() -> Echo {
        Echo::new("r1".into())
    }

    fn response(id: &str, data: Value) -> Frame {
        Frame::Response { request_id: id.into(), success: true, data: Some(data), error: None }
    }

    fn acknowledgment(status: &str) -> Frame {
        Frame::Acknowledgment { request_id: "r1".into(), status: status.into(), message: String::new() }
    }

    fn progress(percentage: f64, seq: u64) -> Frame {
        Frame::Progress {
            request_id: "r1".into(),
            percentage,
            message: String::new(),
            timestamp: 1,
            metadata: Map::new(),
            seq: Seq::from_stored(seq),
        }
    }

    fn complete(result: Value, seq: u64) -> Frame {
        let seq = Seq::from_stored(seq);
        Frame::Complete { request_id: "r1".into(), success: true, result, timestamp: 1, seq }
    }

    fn result() -> Value {
        json!({"message": "r1", "rounds": SlowRequest::ROUNDS, "digest": "0123456789abcdef"})
    }

    fn error(request: Option<&str>, seq: Option<u64>) -> Frame {
        let error = ErrorBody::new(ErrorCode::RateLimited, "Wait a second");
        let (request_id, seq) = (request.map(RequestId::from), seq.map(Seq::from_stored));
        Frame::Error { request_id, error, timestamp: 1, seq }
    }

    /// Receives frames that arrive 10 ms apart, until a check fails, and returns the measurements 10 ms later.
    fn measure(frames: &[Frame]) -> Vec<(Metric, u64, Result<(), String>)> {
        let mut request = SlowRequest::new("r1".into());
        let mut at = Duration::ZERO;
        let mut receive = |frame| {
            at += ms(10);
            request.receive(frame, at)
        };
        let outcome = frames.iter().try_for_each(&mut receive);
        let outcome = match outcome {
            Ok(()) if !request.is_over() => Err((request.awaited(), Failure::new("no frame arrived"))),
            outcome => outcome,
        };
        request
            .measured(outcome, at + ms(10))
            .into_iter()
            .map(|Measured { metric, elapsed, outcome }| {
                let millis = u64::try_from(elapsed.as_millis()).unwrap();
                (metric, millis, outcome.map_err(|failure| failure.to_string()))
            })
            .collect()
    }

    fn failed(metric: Metric, millis: u64, text: &str) -> (Metric, u64, Result<(), String>) {
        (metric, millis, Err(text.to_owned()))
    }

    #[test]
    fn sent_messages_are_valid_protocol_messages() {
        for (text, action) in
            [(echo().message(), "echo"), (SlowRequest::new("r1".into()).message(), "echo_async")]
        {
            let message = streamer_protocol::Message::parse(&text).unwrap();
            assert_eq!((message.action.as_str(), message.id), (action, Some("r1".into())));
            assert_eq!(message.payload["message"], "r1");
        }
    }

    #[test]
    fn response_with_the_sent_payload_is_a_correct_echo() {
        assert_eq!(echo().check(&response("r1", echo().payload)), Ok(()));
    }

    #[test]
    fn each_wrong_answer_to_an_echo_fails_with_its_reason() {
        let unsuccessful =
            |error| Frame::Response { request_id: "r1".into(), success: false, data: None, error };
        let body = ErrorBody::new(ErrorCode::ProcessingFailed, "No");
        let cases = [
            (response("r2", echo().payload), "a response has the id of a different request"),
            (response("r1", Echo::new("r2".into()).payload), "the response differs from the sent payload"),
            (response("r1", Value::Null), "the response differs from the sent payload"),
            (unsuccessful(Some(body)), "the request failed with PROCESSING_FAILED: No"),
            (unsuccessful(None), "the request failed without an error in its response"),
            (error(Some("r1"), None), "the request failed with RATE_LIMITED: Wait a second"),
            (error(None, None), "the request failed with RATE_LIMITED: Wait a second"),
            (error(Some("r2"), None), "an error frame has the id of a different request"),
            (acknowledgment("queued"), "expected a response, got an acknowledgment"),
            (progress(1.0, 1), "expected a response, got a progress frame"),
            (complete(result(), 1), "expected a response, got a complete frame"),
        ];
        for (frame, text) in cases {
            assert_eq!(echo().check(&frame).unwrap_err().to_string(), text, "{frame:?}");
        }
    }

    #[test]
    fn slow_request_is_measured_until_its_complete_frame() {
        let frames = [acknowledgment("queued"), progress(0.0, 1), progress(50.0, 2), complete(result(), 3)];
        assert_eq!(
            measure(&frames),
            [
                (Metric::Acknowledgment, 10, Ok(())),
                (Metric::FirstProgress, 10, Ok(())),
                (Metric::Complete, 40, Ok(()))
            ]
        );
    }

    #[test]
    fn acknowledgment_may_arrive_after_the_complete_frame() {
        let frames =
            [progress(100.0, 1), complete(result(), 2), complete(result(), 2), acknowledgment("queued")];
        assert_eq!(
            measure(&frames),
            [
                (Metric::Acknowledgment, 40, Ok(())),
                (Metric::FirstProgress, 0, Ok(())),
                (Metric::Complete, 20, Ok(()))
            ]
        );
    }

    #[test]
    fn first_missing_frame_is_the_only_failure_of_a_slow_request() {
        assert_eq!(measure(&[]), [failed(Metric::Acknowledgment, 10, "no frame arrived")]);
        let acknowledged = (Metric::Acknowledgment, 10, Ok(()));
        assert_eq!(
            measure(&[acknowledgment("queued")]),
            [acknowledged.clone(), failed(Metric::FirstProgress, 10, "no frame arrived")]
        );
        assert_eq!(
            measure(&[acknowledgment("queued"), progress(1.0, 1)]),
            [
                acknowledged,
                (Metric::FirstProgress, 10, Ok(())),
                failed(Metric::Complete, 30, "no frame arrived")
            ]
        );
        assert_eq!(
            measure(&[progress(1.0, 1), complete(result(), 2)]),
            [(Metric::Complete, 20, Ok(())), failed(Metric::Acknowledgment, 30, "no frame arrived")]
        );
    }

    #[test]
    fn completion_without_progress_fails_the_first_progress_metric() {
        assert_eq!(
            measure(&[acknowledgment("queued"), complete(result(), 1)]),
            [
                (Metric::Acknowledgment, 10, Ok(())),
                (Metric::Complete, 20, Ok(())),
                failed(Metric::FirstProgress, 20, "the request completed without a progress frame"),
            ]
        );
    }

    #[test]
    fn each_wrong_frame_fails_exactly_one_metric() {
        let (queued, first) = (|| acknowledgment("queued"), || progress(10.0, 5));
        let unsuccessful = Frame::Complete {
            request_id: "r1".into(),
            success: false,
            result: result(),
            timestamp: 1,
            seq: Seq::from_stored(9),
        };
        let rounds = json!({"message": "r1", "rounds": 1, "digest": "0123456789abcdef"});
        let digest = json!({"message": "r1", "rounds": SlowRequest::ROUNDS, "digest": ""});
        let cases = [
            (
                vec![acknowledgment("completed")],
                Metric::Acknowledgment,
                "the acknowledgment of a new request has a status other than queued",
            ),
            (vec![queued(), queued()], Metric::Acknowledgment, "the request was acknowledged twice"),
            (
                vec![error(Some("r1"), None)],
                Metric::Acknowledgment,
                "the request failed with RATE_LIMITED: Wait a second",
            ),
            (
                vec![response("r1", Value::Null)],
                Metric::Acknowledgment,
                "expected a frame of a queued request, got a response",
            ),
            (
                vec![response("r2", Value::Null)],
                Metric::Acknowledgment,
                "a response has the id of a different request",
            ),
            (
                vec![queued(), error(None, None)],
                Metric::FirstProgress,
                "the request failed with RATE_LIMITED: Wait a second",
            ),
            (
                vec![queued(), progress(100.1, 5)],
                Metric::FirstProgress,
                "the percentage is not from 0 to 100",
            ),
            (
                vec![queued(), progress(1.0, 0)],
                Metric::FirstProgress,
                "the sequence number is not higher than the previous one",
            ),
            (
                vec![queued(), first(), first()],
                Metric::Complete,
                "the sequence number is not higher than the previous one",
            ),
            (
                vec![queued(), error(Some("r1"), Some(6))],
                Metric::Complete,
                "the request failed with RATE_LIMITED: Wait a second",
            ),
            (
                vec![queued(), first(), complete(result(), 5)],
                Metric::Complete,
                "the sequence number is not higher than the previous one",
            ),
            (
                vec![queued(), first(), complete(rounds, 6)],
                Metric::Complete,
                "the result does not match the request",
            ),
            (
                vec![queued(), first(), complete(digest, 6)],
                Metric::Complete,
                "the result does not match the request",
            ),
            (
                vec![queued(), first(), unsuccessful],
                Metric::Complete,
                "the result does not match the request",
            ),
            (
                vec![first(), complete(result(), 6), progress(11.0, 7)],
                Metric::Complete,
                "a frame arrived after the complete frame",
            ),
            (
                vec![first(), complete(result(), 6), complete(result(), 7)],
                Metric::Complete,
                "a frame arrived after the complete frame",
            ),
        ];
        for (frames, metric, text) in cases {
            let measured = measure(&frames);
            let failures: Vec<_> = measured.iter().filter(|(_, _, outcome)| outcome.is_err()).collect();
            let rows = measured.iter().filter(|(of, ..)| *of == metric).count();
            assert_eq!((failures.len(), rows), (1, 1), "{frames:?} gave {measured:?}");
            assert_eq!((failures[0].0, failures[0].2.clone()), (metric, Err(text.to_owned())), "{frames:?}");
        }
    }
}
