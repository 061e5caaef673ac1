//! The operations of SQS on the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use streamer::ports::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::attributes::{Attributes, MAX_MESSAGE_BYTES, fifo};
use super::error::ApiError;
use super::message::{MessageAttribute, MessageAttributes, check, md5, md5_of_attributes};
use super::store::{Queue, Stored};
use super::{Queues, State, moves};
use crate::aws_format::uuid;
use crate::observe::Observation;

const MAX_BATCH: usize = 10;
const MAX_VISIBILITY_SECS: u64 = 43_200;
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

type Answer = Result<Value, ApiError>;

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(field) => ApiError::missing(field),
            None => ApiError::serialization(&text),
        }
    })
}

/// The name of the queue that a call is about, for faults.
pub(super) fn queue_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = ["QueueUrl", "QueueName", "SourceArn"].iter().find_map(|member| body[*member].as_str())?;
    Some(name_in(text).to_owned())
}

/// The name at the end of a queue's URL or ARN.
pub(super) fn name_in(url_or_arn: &str) -> &str {
    url_or_arn.rsplit(['/', ':']).next().unwrap_or(url_or_arn)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Send {
    queue_url: String,
    #[serde(flatten)]
    message: Message,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message_body: String,
    delay_seconds: Option<u32>,
    message_attributes: Option<MessageAttributes>,
    message_system_attributes: Option<MessageAttributes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    attribute_names: Option<Vec<String>>,
    message_system_attribute_names: Option<Vec<String>>,
    message_attribute_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handle {
    receipt_handle: String,
    visibility_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfQueue {
    queue_url: String,
    attribute_names: Option<Vec<String>>,
    attributes: Option<BTreeMap<String, String>>,
    entries: Option<Vec<Value>>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    queue_name: String,
    attributes: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    queue_name_prefix: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

impl Queues {
    /// Answers one call. `origin` is what queue URLs begin with.
    pub(super) async fn answer(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        if operation == "ReceiveMessage" {
            return self.receive(&read(body)?).await;
        }
        self.at_once(operation, body, origin)
    }

    fn at_once(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        let answer = match operation {
            "CreateQueue" => {
                let Named { queue_name, attributes } = read(body)?;
                self.create_queue(&queue_name, &attributes.unwrap_or_default())?;
                Ok(json!({ "QueueUrl": self.url(origin, &queue_name) }))
            }
            "GetQueueUrl" => {
                let name = read::<Named>(body)?.queue_name;
                let queue = self.lock().queue(&name)?;
                Ok(json!({ "QueueUrl": self.url(origin, &queue.name) }))
            }
            "ListQueues" => self.list_queues(read(body)?, origin),
            "SendMessage" => {
                let Send { queue_url, message } = read(body)?;
                let state = self.lock();
                self.send_message(&state, &state.queue(&queue_url)?, message)
            }
            "StartMessageMoveTask" => moves::start(self, read(body)?),
            "ListMessageMoveTasks" => moves::list(&self.lock(), read(body)?),
            "CancelMessageMoveTask" => moves::cancel(&self.lock(), read(body)?),
            "DeleteQueue"
            | "PurgeQueue"
            | "GetQueueAttributes"
            | "SetQueueAttributes"
            | "ListDeadLetterSourceQueues"
            | "SendMessageBatch"
            | "DeleteMessage"
            | "DeleteMessageBatch"
            | "ChangeMessageVisibility"
            | "ChangeMessageVisibilityBatch" => self.on_queue(operation, body, origin),
            _ => Err(ApiError::unknown_operation()),
        };
        self.changed();
        answer
    }

    fn on_queue(&self, operation: &str, body: &[u8], origin: &str) -> Answer {
        let request: OfQueue = read(body)?;
        let state = self.lock();
        let mut queue = state.queue(&request.queue_url)?;
        let now = self.now();
        match operation {
            "DeleteQueue" => state.store.delete_queue(&queue.name)?,
            "PurgeQueue" => {
                if queue.purged.is_some_and(|purged| now.since(purged) < PURGE_INTERVAL) {
                    return Err(ApiError::purge_in_progress(&queue.name));
                }
                state.store.purge(&queue.name)?;
                queue.purged = Some(now);
                state.store.put_queue(&queue)?;
            }
            "GetQueueAttributes" => {
                return self.attributes(&state, &queue, &request.attribute_names.unwrap_or_default());
            }
            "SetQueueAttributes" => {
                queue.attributes.set(&request.attributes.ok_or_else(|| ApiError::missing("Attributes"))?)?;
                check_redrive(&state, &queue.attributes)?;
                queue.modified = now;
                state.store.put_queue(&queue)?;
            }
            "ListDeadLetterSourceQueues" => {
                let sources = self.sources(&state, &queue.name)?;
                let urls = sources.iter().map(|name| self.url(origin, name)).collect();
                return page("queueUrls", urls, request.max_results, request.next_token.as_deref());
            }
            "DeleteMessage" => self.delete(&state, &queue, &read(body)?)?,
            "ChangeMessageVisibility" => self.change_visibility(&state, &queue, &read(body)?)?,
            _ => {
                let entries = request.entries.ok_or_else(|| ApiError::missing("Entries"))?;
                return self.batch(&state, &queue, operation, &entries);
            }
        }
        Ok(json!({}))
    }

    /// Creates a queue, unless there is one that is the same in all that is given.
    pub(super) fn create_queue(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        if name.ends_with(".fifo") {
            return Err(fifo());
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=80).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(ApiError::parameter(
                "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
            ));
        }
        let mut given = Attributes::default();
        given.set(attributes)?;
        let state = self.lock();
        check_redrive(&state, &given)?;
        if let Some(queue) = state.store.queue(name)? {
            return match queue.attributes.differs_in(&given, attributes) {
                Some(attribute) => Err(ApiError::queue_exists(&attribute)),
                None => Ok(()),
            };
        }
        let now = self.now();
        let queue =
            Queue { name: name.to_owned(), attributes: given, created: now, modified: now, purged: None };
        Ok(state.store.put_queue(&queue)?)
    }

    /// Has a queue be set to exactly these attributes.
    pub(super) fn deploy_queue(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        let state = self.lock();
        let mut queue = state.queue(name)?;
        let mut given = Attributes::default();
        given.set(attributes)?;
        check_redrive(&state, &given)?;
        if queue.attributes != given {
            queue.attributes = given;
            queue.modified = self.now();
            state.store.put_queue(&queue)?;
        }
        Ok(())
    }

    fn list_queues(&self, request: List, origin: &str) -> Answer {
        let prefix = request.queue_name_prefix.unwrap_or_default();
        let names = self.lock().store.queues()?.into_iter().map(|queue| queue.name);
        let urls = names.filter(|name| name.starts_with(&prefix)).map(|name| self.url(origin, &name));
        page("QueueUrls", urls.collect(), request.max_results, request.next_token.as_deref())
    }

    fn attributes(&self, state: &State, queue: &Queue, names: &[String]) -> Answer {
        let now = self.now();
        self.expire(state, queue, now)?;
        let counts = state.store.counts(&queue.name, now)?;
        let mut all = queue.attributes.all();
        for (name, value) in [
            ("QueueArn", self.arn(&queue.name)),
            ("ApproximateNumberOfMessages", counts.waiting.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
            ("CreatedTimestamp", queue.created.as_secs().to_string()),
            ("LastModifiedTimestamp", queue.modified.as_secs().to_string()),
        ] {
            all.insert(name.to_owned(), value);
        }
        const UNSET: &[&str] = &[
            "RedrivePolicy",
            "RedriveAllowPolicy",
            "Policy",
            "KmsMasterKeyId",
            "KmsDataKeyReusePeriodSeconds",
            "SqsManagedSseEnabled",
            "FifoQueue",
            "ContentBasedDeduplication",
            "DeduplicationScope",
            "FifoThroughputLimit",
        ];
        let known = |name: &str| name == "All" || all.contains_key(name) || UNSET.contains(&name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(ApiError::attribute_name(name));
        }
        if !names.iter().any(|name| name == "All") {
            all.retain(|name, _| names.contains(name));
        }
        Ok(if all.is_empty() { json!({}) } else { json!({ "Attributes": all }) })
    }

    /// The queues whose dead letters go to `name`.
    pub(super) fn sources(&self, state: &State, name: &str) -> Result<Vec<String>, ApiError> {
        let arn = self.arn(name);
        let of = |queue: &Queue| {
            queue.attributes.redrive.as_ref().is_some_and(|redrive| redrive.dead_letter_target_arn == arn)
        };
        Ok(state.store.queues()?.into_iter().filter(of).map(|queue| queue.name).collect())
    }

    fn send_message(&self, state: &State, queue: &Queue, message: Message) -> Answer {
        let (name, body) = (queue.name.clone(), message.message_body.clone());
        let sent = self.put(state, queue, message)?;
        self.faults.notify(|| Observation::Queued { queue: name, body });
        Ok(sent)
    }

    fn put(&self, state: &State, queue: &Queue, message: Message) -> Answer {
        let attributes = message.message_attributes.unwrap_or_default();
        let system = message.message_system_attributes.unwrap_or_default();
        let bytes = check(&message.message_body, &attributes)?;
        if bytes > usize::try_from(queue.attributes.max_bytes).unwrap_or(usize::MAX) {
            let limit = queue.attributes.max_bytes;
            let reason = format!("Message must be shorter than {limit} bytes.");
            return Err(ApiError::parameter(format!("One or more parameters are invalid. Reason: {reason}")));
        }
        let delay = message.delay_seconds.unwrap_or(queue.attributes.delay_secs);
        if delay > 900 {
            let message = format!(
                "Value {delay} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."
            );
            return Err(ApiError::parameter(message));
        }
        if let Some(name) = system.keys().find(|name| *name != "AWSTraceHeader") {
            let message = format!("Message system attribute name '{name}' is invalid.");
            return Err(ApiError::parameter(message));
        }
        let now = self.now();
        let mut answer = json!({
            "MessageId": uuid(&*self.inner.entropy),
            "MD5OfMessageBody": md5(&message.message_body),
        });
        if let Some(digest) = md5_of_attributes(&attributes) {
            answer["MD5OfMessageAttributes"] = digest.into();
        }
        if let Some(digest) = md5_of_attributes(&system) {
            answer["MD5OfMessageSystemAttributes"] = digest.into();
        }
        state.store.add(&Stored {
            number: 0,
            queue: queue.name.clone(),
            id: answer["MessageId"].as_str().unwrap_or_default().to_owned(),
            body: message.message_body,
            attributes,
            trace: system.into_values().next().and_then(|attribute| attribute.string_value),
            sent: now,
            visible: now + Duration::from_secs(delay.into()),
            received: 0,
            first_received: None,
            handle: None,
            source: None,
        })?;
        Ok(answer)
    }

    /// As `SendMessage` without attributes.
    pub(super) fn send_text(&self, queue: &str, body: String) -> Answer {
        let message = Message {
            message_body: body,
            delay_seconds: None,
            message_attributes: None,
            message_system_attributes: None,
        };
        let answer = {
            let state = self.lock();
            self.send_message(&state, &state.queue(queue)?, message)
        };
        self.changed();
        answer
    }

    fn batch(&self, state: &State, queue: &Queue, operation: &str, entries: &[Value]) -> Answer {
        if entries.is_empty() {
            return Err(ApiError::empty_batch());
        }
        if entries.len() > MAX_BATCH {
            return Err(ApiError::batch_too_many(entries.len()));
        }
        let mut ids = BTreeSet::new();
        for entry in entries {
            let id = entry["Id"].as_str().ok_or_else(|| ApiError::missing("Id"))?;
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !(1..=80).contains(&id.len()) || !id.bytes().all(allowed) {
                return Err(ApiError::batch_id());
            }
            if !ids.insert(id) {
                return Err(ApiError::batch_id_twice(id));
            }
        }
        if operation == "SendMessageBatch" {
            let size = |entry: &Value| entry["MessageBody"].as_str().map_or(0, str::len);
            let (bytes, limit) = (entries.iter().map(size).sum(), usize::try_from(MAX_MESSAGE_BYTES));
            if let Some(limit) = limit.ok().filter(|limit| bytes > *limit) {
                return Err(ApiError::batch_too_long(limit, bytes));
            }
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let text = entry.to_string();
            let result = match operation {
                "SendMessageBatch" => {
                    read(text.as_bytes()).and_then(|message| self.send_message(state, queue, message))
                }
                "DeleteMessageBatch" => read(text.as_bytes())
                    .and_then(|handle| self.delete(state, queue, &handle))
                    .map(|()| json!({})),
                _ => read(text.as_bytes())
                    .and_then(|handle| self.change_visibility(state, queue, &handle))
                    .map(|()| json!({})),
            };
            match result {
                Ok(mut answer) => {
                    answer["Id"] = entry["Id"].clone();
                    successful.push(answer);
                }
                Err(error) => failed.push(json!({
                    "Id": entry["Id"], "Code": error.code(), "Message": error.message(),
                    "SenderFault": error.is_callers(),
                })),
            }
        }
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    /// Waits for messages as long as the call or its queue says.
    async fn receive(&self, request: &Receive) -> Answer {
        let mut changes = self.inner.changes.subscribe();
        let mut deadline = None;
        loop {
            changes.mark_unchanged();
            let (messages, wait, next) = self.take(request)?;
            if !messages.is_empty() {
                return Ok(json!({ "Messages": messages }));
            }
            if wait.is_zero() {
                return Ok(json!({}));
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + wait);
            if Instant::now() >= until {
                return Ok(json!({}));
            }
            let wake =
                next.map_or(until, |next| until.min(Instant::now() + next.max(Duration::from_millis(1))));
            tokio::select! {
                biased;
                // The sender lives as long as we do.
                _ = changes.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// What can be received now; else how long the call waits, and when the next message will be there.
    fn take(&self, request: &Receive) -> Result<(Vec<Value>, Duration, Option<Duration>), ApiError> {
        let state = self.lock();
        let queue = state.queue(&request.queue_url)?;
        let limit = request.max_number_of_messages.unwrap_or(1);
        if !(1..=10).contains(&limit) {
            return Err(ApiError::parameter(format!(
                "Value {limit} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if \
                 provided."
            )));
        }
        let timeout = visibility(
            request.visibility_timeout.unwrap_or(queue.attributes.visibility_timeout_secs.into()),
        )?;
        let wait = request.wait_time_seconds.unwrap_or(queue.attributes.wait_secs.into());
        if wait > 20 {
            return Err(ApiError::parameter(format!(
                "Value {wait} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."
            )));
        }
        let now = self.now();
        self.expire(&state, &queue, now)?;
        self.set_dead_letters_aside(&state, &queue, now)?;
        let mut messages = Vec::new();
        for message in state.store.waiting(&queue.name, now, limit)? {
            let handle = receipt(&message, &uuid(&*self.inner.entropy));
            state.store.received(message.number, &handle, now, now + timeout)?;
            messages.push(self.received(&message, &handle, request, now));
        }
        let next = state.store.next_visible(&queue.name, now)?.map(|next| next.since(now));
        Ok((messages, Duration::from_secs(wait), next))
    }

    /// What has been received as often as the queue's redrive policy allows goes to its dead-letter queue, instead of
    /// being received once more.
    fn set_dead_letters_aside(&self, state: &State, queue: &Queue, now: Timestamp) -> Result<(), ApiError> {
        let Some(redrive) = &queue.attributes.redrive else { return Ok(()) };
        // Its queue is gone: on AWS as well, the messages stay then.
        let Some(target) = state.store.queue(name_in(&redrive.dead_letter_target_arn))? else {
            return Ok(());
        };
        let source = self.arn(&queue.name);
        for number in state.store.received_too_often(&queue.name, now, redrive.max_receive_count)? {
            state.store.transfer(number, &target.name, now, &source)?;
            self.changed();
        }
        Ok(())
    }

    pub(super) fn expire(&self, state: &State, queue: &Queue, now: Timestamp) -> Result<(), ApiError> {
        let retention = u64::from(queue.attributes.retention_secs) * 1_000;
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(retention));
        Ok(state.store.expire(&queue.name, before)?)
    }

    /// A message as `ReceiveMessage` has it.
    fn received(&self, message: &Stored, handle: &str, request: &Receive, now: Timestamp) -> Value {
        let mut answer = json!({
            "MessageId": message.id,
            "ReceiptHandle": handle,
            "MD5OfBody": md5(&message.body),
            "Body": message.body,
        });
        let first = message.first_received.unwrap_or(now);
        let mut system = vec![
            ("SenderId", self.inner.account_id.clone()),
            ("SentTimestamp", message.sent.as_millis().to_string()),
            ("ApproximateReceiveCount", (message.received + 1).to_string()),
            ("ApproximateFirstReceiveTimestamp", first.as_millis().to_string()),
        ];
        system.extend(message.source.clone().map(|source| ("DeadLetterQueueSourceArn", source)));
        system.extend(message.trace.clone().map(|trace| ("AWSTraceHeader", trace)));
        let asked: Vec<&String> =
            request.attribute_names.iter().chain(&request.message_system_attribute_names).flatten().collect();
        let asked_for = |name: &str| asked.iter().any(|asked| *asked == name || *asked == "All");
        let system: Map<String, Value> = system
            .into_iter()
            .filter(|(name, _)| asked_for(name))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        if !system.is_empty() {
            answer["Attributes"] = system.into();
        }
        let patterns = request.message_attribute_names.as_deref().unwrap_or_default();
        let matches = |name: &String| {
            patterns.iter().any(|pattern| match pattern.strip_suffix(".*") {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == "All" || pattern == name,
            })
        };
        let asked: BTreeMap<&String, &MessageAttribute> =
            message.attributes.iter().filter(|(name, _)| matches(name)).collect();
        if let Some(digest) = md5_of_attributes(asked.iter().map(|(name, value)| (*name, *value))) {
            answer["MD5OfMessageAttributes"] = digest.into();
            answer["MessageAttributes"] = json!(asked);
        }
        answer
    }

    /// Deletes the message, if its handle is the latest; one that is older is taken without effect.
    fn delete(&self, state: &State, queue: &Queue, request: &Handle) -> Result<(), ApiError> {
        if let Some(message) = found(state, queue, &request.receipt_handle)? {
            state.store.delete(message.number)?;
        }
        Ok(())
    }

    fn change_visibility(&self, state: &State, queue: &Queue, request: &Handle) -> Result<(), ApiError> {
        let timeout = request.visibility_timeout.ok_or_else(|| ApiError::missing("VisibilityTimeout"))?;
        let (timeout, now) = (visibility(timeout)?, self.now());
        match found(state, queue, &request.receipt_handle)? {
            Some(message) if message.visible > now => {
                Ok(state.store.set_visible(message.number, now + timeout)?)
            }
            Some(_) | None => Err(ApiError::not_in_flight(&request.receipt_handle)),
        }
    }
}

impl State {
    /// The queue of a name, a URL or an ARN.
    pub(super) fn queue(&self, name: &str) -> Result<Queue, ApiError> {
        self.store.queue(name_in(name))?.ok_or_else(ApiError::no_queue)
    }
}

fn check_redrive(state: &State, attributes: &Attributes) -> Result<(), ApiError> {
    let Some(redrive) = &attributes.redrive else { return Ok(()) };
    match state.store.queue(name_in(&redrive.dead_letter_target_arn))? {
        Some(_) => Ok(()),
        None => Err(ApiError::parameter(format!(
            "Value {} for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist.",
            redrive.dead_letter_target_arn
        ))),
    }
}

fn visibility(secs: u64) -> Result<Duration, ApiError> {
    if secs > MAX_VISIBILITY_SECS {
        return Err(ApiError::parameter(format!(
            "Value {secs} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200."
        )));
    }
    Ok(Duration::from_secs(secs))
}

/// A receipt handle: which message it is, and which of its receipts.
fn receipt(message: &Stored, nonce: &str) -> String {
    BASE64_STANDARD.encode(format!("{}/{}/{nonce}", message.queue, message.number))
}

/// The message that was last received with `handle`; nothing when it is gone, or was received again since.
fn found(state: &State, queue: &Queue, handle: &str) -> Result<Option<Stored>, ApiError> {
    let number = || {
        let text = String::from_utf8(BASE64_STANDARD.decode(handle).ok()?).ok()?;
        let mut parts = text.split('/');
        let (name, number) = (parts.next()?, parts.next()?.parse::<i64>().ok()?);
        (name == queue.name && parts.next().is_some()).then_some(number)
    };
    let number = number().ok_or_else(|| ApiError::receipt_handle(handle))?;
    let message = state.store.message(number)?;
    Ok(message.filter(|message| message.queue == queue.name && message.handle.as_deref() == Some(handle)))
}

/// One page of `urls`. Without a limit it is the first 1,000, and there is no token for more.
fn page(member: &str, urls: Vec<String>, limit: Option<usize>, token: Option<&str>) -> Answer {
    if limit.is_some_and(|limit| !(1..=1_000).contains(&limit)) {
        return Err(ApiError::parameter(
            "Value for parameter MaxResults is invalid. Reason: Must be between 1 and 1000.",
        ));
    }
    let after = match token {
        Some(token) => BASE64_STANDARD
            .decode(token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| ApiError::parameter("Invalid or expired next token."))?,
        None => String::new(),
    };
    let mut left = urls.into_iter().filter(|url| *name_in(url) > *after);
    let urls: Vec<String> = left.by_ref().take(limit.unwrap_or(1_000)).collect();
    let mut answer = json!({});
    if limit.is_some() && left.next().is_some() {
        let last = urls.last().map(|url| name_in(url)).unwrap_or_default();
        answer["NextToken"] = BASE64_STANDARD.encode(last).into();
    }
    if !urls.is_empty() {
        answer[member] = urls.into();
    }
    Ok(answer)
}
