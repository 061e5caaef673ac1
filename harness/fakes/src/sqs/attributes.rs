//! Queue attributes, with SQS's defaults and bounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ApiError;

/// Maximum size of a message with its attributes, in bytes: 1 MiB since August 2025 (`SendMessage` in SQS's API
/// reference).
pub(super) const MAX_MESSAGE_BYTES: u32 = 1_048_576;

/// Attributes of a queue. Attributes that have no effect in this fake are stored as given.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Attributes {
    pub(super) visibility_timeout_secs: u32,
    pub(super) retention_secs: u32,
    pub(super) delay_secs: u32,
    pub(super) wait_secs: u32,
    pub(super) max_bytes: u32,
    pub(super) redrive: Option<Redrive>,
    others: BTreeMap<String, String>,
}

/// A queue's redrive policy: the dead-letter queue, and the number of receives after which a message becomes a dead
/// letter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Redrive {
    pub(super) dead_letter_target_arn: String,
    pub(super) max_receive_count: u32,
}

impl Default for Attributes {
    fn default() -> Self {
        let others = [("SqsManagedSseEnabled".to_owned(), "true".to_owned())];
        Self {
            visibility_timeout_secs: 30,
            retention_secs: 345_600,
            delay_secs: 0,
            wait_secs: 0,
            max_bytes: MAX_MESSAGE_BYTES,
            redrive: None,
            others: others.into(),
        }
    }
}

impl Attributes {
    /// Validates the attributes `given` in a call, and sets them.
    pub(super) fn set(&mut self, given: &BTreeMap<String, String>) -> Result<(), ApiError> {
        for (name, value) in given {
            let number = |range: std::ops::RangeInclusive<u32>| {
                let number = value.parse().ok().filter(|number| range.contains(number));
                number.ok_or_else(|| ApiError::attribute_value(name))
            };
            match name.as_str() {
                "VisibilityTimeout" => self.visibility_timeout_secs = number(0..=43_200)?,
                "MessageRetentionPeriod" => self.retention_secs = number(60..=1_209_600)?,
                "DelaySeconds" => self.delay_secs = number(0..=900)?,
                "ReceiveMessageWaitTimeSeconds" => self.wait_secs = number(0..=20)?,
                "MaximumMessageSize" => self.max_bytes = number(1_024..=MAX_MESSAGE_BYTES)?,
                "RedrivePolicy" if value.is_empty() => self.redrive = None,
                "RedrivePolicy" => self.redrive = Some(redrive(value)?),
                "FifoQueue" | "ContentBasedDeduplication" | "DeduplicationScope" | "FifoThroughputLimit" => {
                    return Err(fifo());
                }
                "Policy"
                | "RedriveAllowPolicy"
                | "KmsMasterKeyId"
                | "KmsDataKeyReusePeriodSeconds"
                | "SqsManagedSseEnabled" => {
                    self.others.insert(name.clone(), value.clone());
                }
                _ => return Err(ApiError::attribute_name(name)),
            }
        }
        Ok(())
    }

    /// Returns all attributes, in the format of `GetQueueAttributes`.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.others.clone();
        all.retain(|_, value| !value.is_empty());
        for (name, value) in [
            ("VisibilityTimeout", self.visibility_timeout_secs),
            ("MessageRetentionPeriod", self.retention_secs),
            ("DelaySeconds", self.delay_secs),
            ("ReceiveMessageWaitTimeSeconds", self.wait_secs),
            ("MaximumMessageSize", self.max_bytes),
        ] {
            all.insert(name.to_owned(), value.to_string());
        }
        if let Some(redrive) = &self.redrive {
            let policy = json!({
                "deadLetterTargetArn": redrive.dead_letter_target_arn,
                "maxReceiveCount": redrive.max_receive_count,
            });
            all.insert("RedrivePolicy".to_owned(), policy.to_string());
        }
        all
    }

    /// Returns the name of the first attribute in `names` whose value differs between `self` and `given`.
    pub(super) fn differs_in(&self, given: &Self, names: &BTreeMap<String, String>) -> Option<String> {
        let (ours, theirs) = (self.all(), given.all());
        names.keys().find(|name| ours.get(*name) != theirs.get(*name)).cloned()
    }
}

pub(super) fn fifo() -> ApiError {
    ApiError::unsupported("FIFO queues are not emulated on the local stage; use a standard queue.")
}

/// Parses a redrive policy. `maxReceiveCount` may be a JSON number or a string, because the console, SDKs and
/// CloudFormation send different types.
fn redrive(policy: &str) -> Result<Redrive, ApiError> {
    let invalid = || ApiError::attribute_value("RedrivePolicy");
    let policy: Value = serde_json::from_str(policy).map_err(|_| invalid())?;
    let count = &policy["maxReceiveCount"];
    let count = count.as_str().map_or_else(|| count.as_u64(), |text| text.parse().ok());
    let count = count.filter(|count| (1..=1_000).contains(count)).and_then(|count| u32::try_from(count).ok());
    let target = policy["deadLetterTargetArn"].as_str();
    let (Some(max_receive_count), Some(target)) = (count, target) else { return Err(invalid()) };
    Ok(Redrive { dead_letter_target_arn: target.to_owned(), max_receive_count })
}
