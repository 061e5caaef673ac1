use std::sync::Arc;

use http::Uri;
use serde_json::{Value, json};

use super::AwsEnvironment;
use super::signed_call::{Patience, SignedCall};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::ports::Clock;
use crate::service_error::ServiceError;

/// Dead letters as messages of an SQS queue: the body of each is the [`DeadLetter`] as JSON.
///
/// A message holds 1 MiB. What is larger goes without its payload, and if need be without more, as
/// [`DeadLetter::left_out`] says then.
#[derive(Clone, Debug)]
pub struct SqsDeadLetters {
    aws: AwsEnvironment,
    clock: Arc<dyn Clock>,
    queue_url: String,
}

impl SqsDeadLetters {
    /// The largest message that SQS takes.
    const MAX_MESSAGE_BYTES: usize = 1_048_576;

    /// The queue of this URL.
    #[must_use]
    pub fn new(aws: AwsEnvironment, clock: Arc<dyn Clock>, queue_url: impl Into<String>) -> Self {
        Self { aws, clock, queue_url: queue_url.into() }
    }

    /// `SendMessage` of SQS's JSON protocol.
    fn call(&self, message: &str) -> SignedCall {
        let endpoint = self.aws.sqs_endpoint.as_ref().or(self.aws.endpoint.as_ref());
        SignedCall {
            service: "sqs",
            endpoint: endpoint.cloned().or_else(|| origin(&self.queue_url)),
            path: "/".to_owned(),
            headers: vec![
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amz-target", "AmazonSQS.SendMessage"),
            ],
            body: json!({"QueueUrl": self.queue_url, "MessageBody": message}).to_string(),
        }
    }
}

impl DeadLetters for SqsDeadLetters {
    async fn send(&self, letter: &DeadLetter) -> Result<(), ServiceError> {
        let what = format!("dead letter {} was not sent to {}", letter.id, self.queue_url);
        let message = match message(letter, Self::MAX_MESSAGE_BYTES) {
            Ok(message) => message,
            Err(error) => return Err(ServiceError::refused(what, error)),
        };
        self.call(&message).make(&self.aws, self.clock.now(), Patience::SHORT, &what).await.map(drop)
    }
}

/// Scheme and host of a URL.
fn origin(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme()?, url.authority()?))
}

/// Takes a part out of a letter, and names it.
type LeaveOut = fn(&mut DeadLetter) -> (&'static str, Value);

/// The letter as a message's body: without what makes it too large, the least needed first.
fn message(letter: &DeadLetter, max_bytes: usize) -> Result<String, serde_json::Error> {
    let mut message = text(letter)?;
    if message.len() <= max_bytes {
        return Ok(message);
    }
    let mut letter = letter.clone();
    let parts: [LeaveOut; 4] = [
        |letter| ("payload", letter.payload.take()),
        |letter| ("error.details", json!(std::mem::take(&mut letter.error.details))),
        |letter| ("history", json!(std::mem::take(&mut letter.history))),
        |letter| ("metadata", json!(std::mem::take(&mut letter.metadata))),
    ];
    for leave_out in parts {
        let (part, value) = leave_out(&mut letter);
        let bytes = value.to_string().len();
        tracing::warn!(letter = letter.id, part, bytes, "too large for a message: this part is left out");
        letter.left_out.insert(part.to_owned(), bytes);
        message = text(&letter)?;
        if message.len() <= max_bytes {
            break;
        }
    }
    Ok(message)
}

/// JSON in characters that SQS takes. Of those that it does not, serde leaves two as they are, which stand in strings alone.
fn text(letter: &DeadLetter) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(letter)?;
    Ok(json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOWHERE, sent, serve, with_endpoints};
    use super::*;
    use crate::ports::Timestamp;
    use crate::protocol::{ErrorBody, ErrorCode};
    use crate::store::{AttemptOutcome, Ending, PastAttempt, Request};
    use crate::telemetry::Causes;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    /// When the calls are made.
    #[derive(Debug)]
    struct Then;

    impl Clock for Then {
        fn now(&self) -> Timestamp {
            NOW
        }
    }

    fn letter(payload: Value) -> DeadLetter {
        let error = ErrorBody::new(ErrorCode::ProcessingFailed, "The request could not be processed");
        let mut request = Request::new(
            "r1".into(),
            "ann".into(),
            "acme".into(),
            "c1".into(),
            "report".to_owned(),
            payload,
            NOW,
        );
        request.history = vec![PastAttempt {
            attempt: 1,
            epoch: 1,
            started_at: Some(NOW),
            ended_at: NOW,
            outcome: AttemptOutcome::Failed,
            error: error.clone(),
        }];
        request.metadata.insert("k".to_owned(), "v".to_owned());
        (request.attempt, request.epoch, request.finished_at) = (1, 1, Some(NOW));
        request.ending = Some(Ending::Failed(error));
        DeadLetter::of(&request).unwrap()
    }

    async fn send(letter: &DeadLetter, answers: &[(u16, &str)]) -> (Result<(), ServiceError>, Vec<String>) {
        let (url, requests) = serve(answers);
        // What the queue's URL says is where it is looked for, unless something else is set.
        let aws = with_endpoints(&[]);
        let letters = SqsDeadLetters::new(aws, Arc::new(Then), format!("{url}/123456789012/dead-letters"));
        let was_sent = letters.send(letter).await;
        (was_sent, requests.join().unwrap())
    }

    #[tokio::test]
    async fn a_letter_is_sent_with_one_signed_call() {
        let (was_sent, requests) = send(&letter(json!({"n": 1})), &[(200, r#"{"MessageId":"m"}"#)]).await;
        was_sent.unwrap();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        let call = sent(request);
        let (before, url) = call.split_once("http://127.0.0.1:").unwrap();
        let (_port, after) = url.split_once('/').unwrap();
        insta::assert_snapshot!(format!("{before}http://[host]/{after}"));
    }

    #[tokio::test]
    async fn the_queue_is_looked_for_at_an_endpoint_that_is_set() {
        for specific in [true, false] {
            let (url, requests) = serve(&[(200, "{}")]);
            let (own, general) = if specific { (url.as_str(), NOWHERE) } else { ("", url.as_str()) };
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", general), ("AWS_ENDPOINT_URL_SQS", own)]);
            let queue_url = "https://sqs.eu-west-1.amazonaws.com/123456789012/dead-letters";
            SqsDeadLetters::new(aws, Arc::new(Then), queue_url).send(&letter(Value::Null)).await.unwrap();
            assert!(requests.join().unwrap()[0].contains(queue_url));
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_three_times_and_what_is_refused_once() {
        let letter = letter(Value::Null);
        let throttled = (400, r#"{"__type":"com.amazonaws.sqs#RequestThrottled","message":"Rate exceeded"}"#);
        let (was_sent, requests) = send(&letter, &[throttled, (500, ""), (200, "{}")]).await;
        assert_eq!((was_sent.is_ok(), requests.len()), (true, 3));

        let (was_sent, requests) = send(&letter, &[throttled, throttled, (503, "")]).await;
        assert_eq!((was_sent.unwrap_err().is_transient(), requests.len()), (true, 3));

        let missing = (
            400,
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}"#,
        );
        let (was_sent, requests) = send(&letter, &[missing]).await;
        let error = was_sent.unwrap_err();
        assert_eq!((error.is_transient(), requests.len()), (false, 1));
        let said = Causes(&error).to_string();
        assert!(said.ends_with("HTTP 400, QueueDoesNotExist, The specified queue does not exist."), "{said}");
    }

    #[test]
    fn a_letter_goes_as_it_is_up_to_the_limit_and_says_what_it_lacks_above() {
        let whole = letter(json!("x".repeat(1_000)));
        let text = serde_json::to_string(&whole).unwrap();
        let fits = message(&whole, text.len()).unwrap();
        assert_eq!(fits, text);
        assert_eq!(serde_json::from_str::<DeadLetter>(&fits).unwrap(), whole);

        let cut: DeadLetter = serde_json::from_str(&message(&whole, text.len() - 1).unwrap()).unwrap();
        assert_eq!(cut.left_out, [("payload".to_owned(), 1_002)].into());
        assert_eq!(
            cut,
            DeadLetter { payload: Value::Null, left_out: cut.left_out.clone(), ..whole.clone() },
            "nothing else is missing"
        );

        let least: DeadLetter = serde_json::from_str(&message(&whole, 1).unwrap()).unwrap();
        let parts: Vec<&str> = least.left_out.keys().map(String::as_str).collect();
        assert_eq!(parts, ["error.details", "history", "metadata", "payload"]);
        assert_eq!((least.id, least.error.message), (whole.id, whole.error.message));
    }

    #[test]
    fn a_letter_has_only_characters_that_sqs_takes() {
        let payload = json!("\u{0}\u{1f}\u{fffe}\u{ffff}\u{fffd}é😀");
        let text = message(&letter(payload.clone()), SqsDeadLetters::MAX_MESSAGE_BYTES).unwrap();
        // XML 1.0, section 2.2, which SQS refers to.
        let is_taken = |c: char| matches!(c, '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        assert!(text.chars().all(is_taken), "{text}");
        assert_eq!(serde_json::from_str::<DeadLetter>(&text).unwrap().payload, payload);
    }

    #[test]
    fn a_queue_is_asked_at_its_own_host() {
        for (url, expected) in [
            ("https://sqs.us-east-1.amazonaws.com/1/q", Some("https://sqs.us-east-1.amazonaws.com")),
            ("http://localhost:9324", Some("http://localhost:9324")),
            ("dead-letters", None),
        ] {
            assert_eq!(origin(url).as_deref(), expected);
        }
    }
}
