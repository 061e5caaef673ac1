//! Whether what came back is what had to come back.

use std::time::Duration;

use serde_json::{Value, json};
use streamer_protocol::{ErrorBody, Frame, RequestId, Seq};

use crate::measure::{Failure, Measured, Metric};

/// A quick request, which is answered with its own payload.
#[derive(Debug)]
pub(crate) struct Echo {
    id: RequestId,
    payload: Value,
}

impl Echo {
    pub(crate) fn new(id: RequestId) -> Self {
        // The id in the payload makes sure that no other request's answer is taken for this one's.
        let payload = json!({"message": id.as_str(), "numbers": [0, -1, 2.5], "text": "äöü ✓ \"quoted\""});
        Self { id, payload }
    }

    pub(crate) fn message(&self) -> String {
        message("echo", &self.id, &self.payload)
    }

    /// Whether `reply` is the answer.
    pub(crate) fn check(&self, reply: &Frame) -> Result<(), Failure> {
        of_request(reply, &self.id)?;
        match reply {
            Frame::Response { success: true, data: Some(data), error: None, .. } if *data == self.payload => {
                Ok(())
            }
            Frame::Response { success: true, .. } => Err(Failure::new("the echo is not what was sent")),
            Frame::Response { error: Some(error), .. } | Frame::Error { error, .. } => Err(told(error)),
            Frame::Response { error: None, .. } => {
                Err(Failure::new("the request failed, and does not say why"))
            }
            Frame::Acknowledgment { .. } | Frame::Progress { .. } | Frame::Complete { .. } => {
                Err(unexpected("the response", reply))
            }
        }
    }
}

/// A request that is queued, and what has come of it so far.
///
/// The acknowledgment goes another way than the frames after it, and may be overtaken by any of them.
#[derive(Debug)]
pub(crate) struct SlowRequest {
    id: RequestId,
    acknowledged: Option<Duration>,
    first_progress: Option<Duration>,
    /// When, and by which frame.
    completed: Option<(Duration, Frame)>,
    last_seq: Seq,
}

/// A frame that should not have come, and what failed by it.
type Wrong = (Metric, Failure);

impl SlowRequest {
    /// Enough for several progress frames, and over within a second on an idle stage.
    const ROUNDS: u32 = 10;

    pub(crate) fn new(id: RequestId) -> Self {
        Self { id, acknowledged: None, first_progress: None, completed: None, last_seq: Seq::default() }
    }

    pub(crate) fn message(&self) -> String {
        message("echo_async", &self.id, &json!({"message": self.id.as_str(), "rounds": Self::ROUNDS}))
    }

    /// Takes the next frame, which came `at` this time after the request was sent.
    pub(crate) fn take(&mut self, frame: &Frame, at: Duration) -> Result<(), Wrong> {
        of_request(frame, &self.id).map_err(|failure| (self.awaited(), failure))?;
        match frame {
            Frame::Acknowledgment { status, .. } => {
                let wrong = |text| Err((Metric::Acknowledgment, Failure::new(text)));
                if self.acknowledged.is_some() {
                    return wrong("the request was acknowledged twice");
                }
                if status != "queued" {
                    return wrong("a new request was not acknowledged as queued");
                }
                self.acknowledged = Some(at);
                Ok(())
            }
            Frame::Progress { percentage, seq, .. } => {
                let metric =
                    if self.first_progress.is_none() { Metric::FirstProgress } else { Metric::Complete };
                self.advance(*seq).map_err(|failure| (metric, failure))?;
                if !(0.0..=100.0).contains(percentage) {
                    return Err((metric, Failure::new("a percentage is not from 0 to 100")));
                }
                self.first_progress.get_or_insert(at);
                Ok(())
            }
            // The last frame may come again, since its sender cannot always know that it has arrived.
            Frame::Complete { .. } if self.completed.as_ref().is_some_and(|(_, last)| last == frame) => {
                Ok(())
            }
            Frame::Complete { success, result, seq, .. } => {
                let wrong = |failure| (Metric::Complete, failure);
                self.advance(*seq).map_err(wrong)?;
                if !success || !self.is_answered_by(result) {
                    return Err(wrong(Failure::new("the result is not what was asked for")));
                }
                self.completed = Some((at, frame.clone()));
                Ok(())
            }
            Frame::Error { error, seq, .. } => {
                // One that ends a queued request has a sequence number; one that refuses it has none.
                let metric = if seq.is_some() { Metric::Complete } else { self.awaited() };
                Err((metric, told(error)))
            }
            Frame::Response { .. } => Err((self.awaited(), unexpected("a queued request's frames", frame))),
        }
    }

    /// Whether nothing more is to come.
    pub(crate) const fn is_over(&self) -> bool {
        self.acknowledged.is_some() && self.completed.is_some()
    }

    /// What has to come next.
    pub(crate) const fn awaited(&self) -> Metric {
        match (self.acknowledged, self.first_progress) {
            (None, _) => Metric::Acknowledgment,
            (Some(_), None) => Metric::FirstProgress,
            (Some(_), Some(_)) => Metric::Complete,
        }
    }

    /// What there is to report of the request after `elapsed`, which ended in order or with what was wrong.
    ///
    /// What was waited for behind the failure is neither a success nor a failure of its own.
    pub(crate) fn measured(&self, ended: Result<(), Wrong>, elapsed: Duration) -> Vec<Measured> {
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
        let failed = match ended {
            Err(wrong) => Some(wrong),
            Ok(()) if self.first_progress.is_none() => {
                Some((Metric::FirstProgress, Failure::new("the request completed without any progress")))
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
            return Err(Failure::new("a frame came after the one that completed the request"));
        }
        if seq <= self.last_seq {
            return Err(Failure::new("the sequence numbers do not rise"));
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

/// Whether `frame` is about this request. An error about no request is the answer to the only one that is open.
fn of_request(frame: &Frame, id: &RequestId) -> Result<(), Failure> {
    let about = match frame {
        Frame::Response { request_id, .. }
        | Frame::Acknowledgment { request_id, .. }
        | Frame::Progress { request_id, .. }
        | Frame::Complete { request_id, .. } => Some(request_id),
        Frame::Error { request_id, .. } => request_id.as_ref(),
    };
    match about {
        Some(about) if about != id => Err(Failure::new(format!("{} is about another request", kind(frame)))),
        Some(_) | None => Ok(()),
    }
}

fn told(error: &ErrorBody) -> Failure {
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

    /// Hands over frames that come 10 ms apart until one is wrong, and returns what is measured after another 10 ms.
    fn measure(frames: &[Frame]) -> Vec<(Metric, u64, Result<(), String>)> {
        let mut request = SlowRequest::new("r1".into());
        let mut at = Duration::ZERO;
        let mut take = |frame| {
            at += ms(10);
            request.take(frame, at)
        };
        let ended = frames.iter().try_for_each(&mut take);
        let ended = match ended {
            Ok(()) if !request.is_over() => Err((request.awaited(), Failure::new("nothing came"))),
            ended => ended,
        };
        request
            .measured(ended, at + ms(10))
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
            (response("r2", echo().payload), "a response is about another request"),
            (response("r1", Echo::new("r2".into()).payload), "the echo is not what was sent"),
            (response("r1", Value::Null), "the echo is not what was sent"),
            (unsuccessful(Some(body)), "the request failed with PROCESSING_FAILED: No"),
            (unsuccessful(None), "the request failed, and does not say why"),
            (error(Some("r1"), None), "the request failed with RATE_LIMITED: Wait a second"),
            (error(None, None), "the request failed with RATE_LIMITED: Wait a second"),
            (error(Some("r2"), None), "an error frame is about another request"),
            (acknowledgment("queued"), "expected the response, got an acknowledgment"),
            (progress(1.0, 1), "expected the response, got a progress frame"),
            (complete(result(), 1), "expected the response, got a complete frame"),
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
        assert_eq!(measure(&[]), [failed(Metric::Acknowledgment, 10, "nothing came")]);
        let acknowledged = (Metric::Acknowledgment, 10, Ok(()));
        assert_eq!(
            measure(&[acknowledgment("queued")]),
            [acknowledged.clone(), failed(Metric::FirstProgress, 10, "nothing came")]
        );
        assert_eq!(
            measure(&[acknowledgment("queued"), progress(1.0, 1)]),
            [acknowledged, (Metric::FirstProgress, 10, Ok(())), failed(Metric::Complete, 30, "nothing came")]
        );
        assert_eq!(
            measure(&[progress(1.0, 1), complete(result(), 2)]),
            [(Metric::Complete, 20, Ok(())), failed(Metric::Acknowledgment, 30, "nothing came")]
        );
    }

    #[test]
    fn completion_without_progress_fails_the_first_progress_metric() {
        assert_eq!(
            measure(&[acknowledgment("queued"), complete(result(), 1)]),
            [
                (Metric::Acknowledgment, 10, Ok(())),
                (Metric::Complete, 20, Ok(())),
                failed(Metric::FirstProgress, 20, "the request completed without any progress"),
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
                "a new request was not acknowledged as queued",
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
                "expected a queued request's frames, got a response",
            ),
            (
                vec![response("r2", Value::Null)],
                Metric::Acknowledgment,
                "a response is about another request",
            ),
            (
                vec![queued(), error(None, None)],
                Metric::FirstProgress,
                "the request failed with RATE_LIMITED: Wait a second",
            ),
            (vec![queued(), progress(100.1, 5)], Metric::FirstProgress, "a percentage is not from 0 to 100"),
            (vec![queued(), progress(1.0, 0)], Metric::FirstProgress, "the sequence numbers do not rise"),
            (vec![queued(), first(), first()], Metric::Complete, "the sequence numbers do not rise"),
            (
                vec![queued(), error(Some("r1"), Some(6))],
                Metric::Complete,
                "the request failed with RATE_LIMITED: Wait a second",
            ),
            (
                vec![queued(), first(), complete(result(), 5)],
                Metric::Complete,
                "the sequence numbers do not rise",
            ),
            (
                vec![queued(), first(), complete(rounds, 6)],
                Metric::Complete,
                "the result is not what was asked for",
            ),
            (
                vec![queued(), first(), complete(digest, 6)],
                Metric::Complete,
                "the result is not what was asked for",
            ),
            (vec![queued(), first(), unsuccessful], Metric::Complete, "the result is not what was asked for"),
            (
                vec![first(), complete(result(), 6), progress(11.0, 7)],
                Metric::Complete,
                "a frame came after the one that completed the request",
            ),
            (
                vec![first(), complete(result(), 6), complete(result(), 7)],
                Metric::Complete,
                "a frame came after the one that completed the request",
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
