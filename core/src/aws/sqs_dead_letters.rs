use std::sync::Arc;

use http::Uri;
use serde_json::{Value, json};

use super::AwsEnvironment;
use super::signed_call::{CallPolicy, SignedCall};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::ports::Clock;
use crate::service_error::ServiceError;

/// Sends dead letters to an SQS queue. The body of each message is the [`DeadLetter`] as JSON.
///
/// An SQS message has at most 1 MiB. A larger dead letter is sent without its payload, and without more fields if
/// necessary. [`DeadLetter::left_out`] lists the removed fields.
#[derive(Clone, Debug)]
pub struct SqsDeadLetters {
    aws: AwsEnvironment,
    clock: Arc<dyn Clock>,
    queue_url: String,
}

impl SqsDeadLetters {
    /// Maximum size of an SQS message, in bytes: 1 MiB.
    const MAX_MESSAGE_BYTES: usize = 1_048_576;

    /// Creates a sender that sends dead letters to the queue with this URL.
    #[must_use]
    pub fn new(aws: AwsEnvironment, clock: Arc<dyn Clock>, queue_url: impl Into<String>) -> Self {
        Self { aws, clock, queue_url: queue_url.into() }
    }

    /// Builds a `SendMessage` call in SQS's JSON protocol.
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
        let context = format!("dead letter {} was not sent to {}", letter.id, self.queue_url);
        let message = match message(letter, Self::MAX_MESSAGE_BYTES) {
            Ok(message) => message,
            Err(error) => return Err(ServiceError::refused(context, error)),
        };
        self.call(&message).make(&self.aws, self.clock.now(), CallPolicy::SHORT, &context).await.map(drop)
    }
}

/// Returns the scheme, the host and the optional port of a URL; `None` if `url` is not an absolute URL.
fn origin(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme()?, url.authority()?))
}

/// A function that removes one field from a dead letter, and returns the field's name and value.
type TakeField = fn(&mut DeadLetter) -> (&'static str, Value);

/// Returns the dead letter as the body of an SQS message.
///
/// If the body is larger than `max_bytes`, fields are removed until the body fits, in this order: payload, error
/// details, history, metadata.
fn message(letter: &DeadLetter, max_bytes: usize) -> Result<String, serde_json::Error> {
    let mut message = text(letter)?;
    if message.len() <= max_bytes {
        return Ok(message);
    }
    let mut letter = letter.clone();
    let fields: [TakeField; 4] = [
        |letter| ("payload", letter.payload.take()),
        |letter| ("error.details", json!(std::mem::take(&mut letter.error.details))),
        |letter| ("history", json!(std::mem::take(&mut letter.history))),
        |letter| ("metadata", json!(std::mem::take(&mut letter.metadata))),
    ];
    for take_field in fields {
        let (field, value) = take_field(&mut letter);
        let bytes = value.to_string().len();
        tracing::warn!(letter = letter.id, field, bytes, "dead letter too large; field left out");
        letter.left_out.insert(field.to_owned(), bytes);
        message = text(&letter)?;
        if message.len() <= max_bytes {
            break;
        }
    }
    Ok(message)
}

/// Returns the dead letter as JSON that contains only characters that SQS accepts.
///
/// serde escapes all characters that SQS rejects, except U+FFFE and U+FFFF. This function escapes these two. They can
/// occur only within JSON strings, where an escape has the same meaning.
fn text(letter: &DeadLetter) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(letter)?;
    Ok(json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{UNREACHABLE, serve, with_endpoints, without_host_and_signature};
    use super::*;
    use crate::ports::Timestamp;
    use crate::protocol::{ErrorBody, ErrorCode};
    use crate::store::{AttemptOutcome, Ending, PastAttempt, Request};
    use crate::telemetry::Causes;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    /// A clock that always shows [`NOW`].
    #[derive(Debug)]
    struct FixedClock;

    impl Clock for FixedClock {
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
        // No endpoint is configured, so the call goes to the host in the queue's URL.
        let aws = with_endpoints(&[]);
        let letters =
            SqsDeadLetters::new(aws, Arc::new(FixedClock), format!("{url}/123456789012/dead-letters"));
        let was_sent = letters.send(letter).await;
        (was_sent, requests.join().unwrap())
    }

    #[tokio::test]
    async fn dead_letter_is_sent_with_one_signed_sqs_call() {
        let (was_sent, requests) = send(&letter(json!({"n": 1})), &[(200, r#"{"MessageId":"m"}"#)]).await;
        was_sent.unwrap();
        let [request] = &requests[..] else { panic!("expected exactly one call, found {requests:?}") };
        let call = without_host_and_signature(request);
        let (before, url) = call.split_once("http://127.0.0.1:").unwrap();
        let (_port, after) = url.split_once('/').unwrap();
        insta::assert_snapshot!(format!("{before}http://[host]/{after}"));
    }

    #[tokio::test]
    async fn configured_sqs_endpoint_takes_precedence_over_the_queue_url() {
        for specific in [true, false] {
            let (url, requests) = serve(&[(200, "{}")]);
            let (own, general) = if specific { (url.as_str(), UNREACHABLE) } else { ("", url.as_str()) };
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", general), ("AWS_ENDPOINT_URL_SQS", own)]);
            let queue_url = "https://sqs.eu-west-1.amazonaws.com/123456789012/dead-letters";
            SqsDeadLetters::new(aws, Arc::new(FixedClock), queue_url)
                .send(&letter(Value::Null))
                .await
                .unwrap();
            assert!(requests.join().unwrap()[0].contains(queue_url));
        }
    }

    #[tokio::test]
    async fn dead_letter_send_is_tried_three_times_on_transient_errors_and_once_if_refused() {
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
        let causes = Causes(&error).to_string();
        assert!(
            causes.ends_with("HTTP 400, QueueDoesNotExist, The specified queue does not exist."),
            "{causes}"
        );
    }

    #[test]
    fn dead_letter_above_the_size_limit_omits_fields_and_lists_them_in_left_out() {
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
            "a dead letter that is one byte too large is sent without its payload, and is otherwise unchanged"
        );

        let least: DeadLetter = serde_json::from_str(&message(&whole, 1).unwrap()).unwrap();
        let left_out: Vec<&str> = least.left_out.keys().map(String::as_str).collect();
        assert_eq!(left_out, ["error.details", "history", "metadata", "payload"]);
        assert_eq!((least.id, least.error.message), (whole.id, whole.error.message));
    }

    #[test]
    fn dead_letter_json_contains_only_characters_that_sqs_accepts() {
        let payload = json!("\u{0}\u{1f}\u{fffe}\u{ffff}\u{fffd}é😀");
        let text = message(&letter(payload.clone()), SqsDeadLetters::MAX_MESSAGE_BYTES).unwrap();
        // SQS accepts the characters of XML 1.0, section 2.2.
        let is_accepted =
            |c: char| matches!(c, '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        assert!(text.chars().all(is_accepted), "{text}");
        assert_eq!(serde_json::from_str::<DeadLetter>(&text).unwrap().payload, payload);
    }

    #[test]
    fn origin_of_a_queue_url_is_its_scheme_and_host() {
        for (url, expected) in [
            ("https://sqs.us-east-1.amazonaws.com/1/q", Some("https://sqs.us-east-1.amazonaws.com")),
            ("http://localhost:9324", Some("http://localhost:9324")),
            ("dead-letters", None),
        ] {
            assert_eq!(origin(url).as_deref(), expected);
        }
    }
}
