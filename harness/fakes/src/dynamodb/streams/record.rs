//! A record of a stream, and the two shapes in which AWS shows it.

use std::str::FromStr;

use serde_json::{Value, json};
use streamer::ports::Timestamp;

use super::sequence_number::SequenceNumber;

/// One change of one item.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamRecord {
    /// 32 hexadecimal digits, the same whenever the record is read.
    pub event_id: String,
    /// What happened to the item.
    pub event_name: EventName,
    /// The item's key, as DynamoDB JSON.
    pub keys: Value,
    /// The item after the change, if the view type includes it.
    pub new_image: Option<Value>,
    /// The item before the change, if the view type includes it.
    pub old_image: Option<Value>,
    /// Where it stands in its shard.
    pub sequence_number: SequenceNumber,
    /// The size of key and images as DynamoDB counts them.
    pub size_bytes: u64,
    /// When the change was written; AWS shows it in whole seconds.
    pub approximate_creation: Timestamp,
    /// Who made the change, if it was DynamoDB itself.
    pub user_identity: Option<UserIdentity>,
    /// The stream it is in.
    pub stream_arn: String,
    /// What the stream shows of each change.
    pub view_type: StreamViewType,
    /// The stream's region.
    pub region: String,
}

impl StreamRecord {
    /// The record as a Lambda function receives it in its event.
    #[must_use]
    pub fn to_event_record(&self) -> Value {
        let created = std::time::Duration::from_secs(self.approximate_creation.as_secs()).as_secs_f64();
        let mut record = self.to_json(json!(created));
        record["eventSourceARN"] = json!(self.stream_arn);
        if let Some(identity) = &self.user_identity {
            record["userIdentity"] = json!({ "type": identity.kind, "principalId": identity.principal_id });
        }
        record
    }

    /// The record as `GetRecords` gives it.
    pub(super) fn to_api_record(&self) -> Value {
        let mut record = self.to_json(json!(self.approximate_creation.as_secs()));
        if let Some(identity) = &self.user_identity {
            record["userIdentity"] = json!({ "PrincipalId": identity.principal_id, "Type": identity.kind });
        }
        record
    }

    fn to_json(&self, approximate_creation: Value) -> Value {
        let mut change = json!({ "ApproximateCreationDateTime": approximate_creation, "Keys": self.keys });
        for (name, image) in [("NewImage", &self.new_image), ("OldImage", &self.old_image)] {
            if let Some(image) = image {
                change[name] = image.clone();
            }
        }
        change["SequenceNumber"] = json!(self.sequence_number.to_string());
        change["SizeBytes"] = json!(self.size_bytes);
        change["StreamViewType"] = json!(self.view_type.as_str());
        json!({
            "eventID": self.event_id,
            "eventName": self.event_name.as_str(),
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self.region,
            "dynamodb": change,
        })
    }
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventName {
    /// It was created.
    Insert,
    /// One or more of its attributes changed.
    Modify,
    /// It was deleted.
    Remove,
}

impl EventName {
    /// As AWS writes it, such as `INSERT`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }
}

impl FromStr for EventName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Insert, Self::Modify, Self::Remove].into_iter().find(|name| name.as_str() == text).ok_or(())
    }
}

/// Who made a change, when it was not a caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserIdentity {
    /// `Service` for DynamoDB's own deletions.
    pub kind: String,
    /// `dynamodb.amazonaws.com` for deletions by time to live.
    pub principal_id: String,
}

/// What a stream shows of each change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamViewType {
    /// Only the key.
    KeysOnly,
    /// The item after the change.
    NewImage,
    /// The item before the change.
    OldImage,
    /// Both.
    NewAndOldImages,
}

impl StreamViewType {
    /// As AWS writes it, such as `NEW_AND_OLD_IMAGES`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    pub(in crate::dynamodb) fn has_new_image(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }

    pub(in crate::dynamodb) fn has_old_image(self) -> bool {
        matches!(self, Self::OldImage | Self::NewAndOldImages)
    }
}

impl FromStr for StreamViewType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::KeysOnly, Self::NewImage, Self::OldImage, Self::NewAndOldImages]
            .into_iter()
            .find(|view_type| view_type.as_str() == text)
            .ok_or(())
    }
}
