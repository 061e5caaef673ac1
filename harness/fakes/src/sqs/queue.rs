//! Operations on queues: create, deploy, list, purge, and attributes.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::attributes::{Attributes, fifo};
use super::error::ApiError;
use super::queues::Queues;
use super::state::{State, name_in};
use super::store::Queue;

/// Time after a purge of a queue during which the next purge is refused.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListQueues {
    queue_name_prefix: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

impl Queues {
    /// Creates a queue. If a queue with this name exists, does nothing if the queue has the given attributes, and fails
    /// if the value of a given attribute differs.
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

    /// Sets a queue's attributes to `attributes`, and all other attributes to their defaults.
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

    pub(super) fn set_attributes(
        &self,
        state: &State,
        queue: &mut Queue,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        queue.attributes.set(attributes)?;
        check_redrive(state, &queue.attributes)?;
        queue.modified = self.now();
        Ok(state.store.put_queue(queue)?)
    }

    /// Deletes all messages of a queue.
    pub(super) fn purge(&self, state: &State, queue: &mut Queue) -> Result<(), ApiError> {
        let now = self.now();
        if queue.purged.is_some_and(|purged| now.since(purged) < PURGE_INTERVAL) {
            return Err(ApiError::purge_in_progress(&queue.name));
        }
        state.store.purge(&queue.name)?;
        queue.purged = Some(now);
        Ok(state.store.put_queue(queue)?)
    }

    pub(super) fn list_queues(&self, request: ListQueues, origin: &str) -> Result<Value, ApiError> {
        let prefix = request.queue_name_prefix.unwrap_or_default();
        let names = self.lock().store.queues()?.into_iter().map(|queue| queue.name);
        let urls = names.filter(|name| name.starts_with(&prefix)).map(|name| self.url(origin, &name));
        page("QueueUrls", urls.collect(), request.max_results, request.next_token.as_deref())
    }

    pub(super) fn attributes(
        &self,
        state: &State,
        queue: &Queue,
        names: &[String],
    ) -> Result<Value, ApiError> {
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

    /// Returns the names of the queues whose dead letters go to the queue `name`.
    pub(super) fn sources(&self, state: &State, name: &str) -> Result<Vec<String>, ApiError> {
        let arn = self.arn(name);
        let of = |queue: &Queue| {
            queue.attributes.redrive.as_ref().is_some_and(|redrive| redrive.dead_letter_target_arn == arn)
        };
        Ok(state.store.queues()?.into_iter().filter(of).map(|queue| queue.name).collect())
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

/// Returns one page of `urls`. Without a limit, the page has the first 1,000 URLs, and no token for the next page.
pub(super) fn page(
    member: &str,
    urls: Vec<String>,
    limit: Option<usize>,
    token: Option<&str>,
) -> Result<Value, ApiError> {
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
