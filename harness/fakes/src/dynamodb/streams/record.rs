//! A stream record, and its two JSON formats: Lambda event and `GetRecords` answer.

use std::str::FromStr;

use serde_json::{Value, json};
use streamer::ports::Timestamp;

use super::sequence_number::SequenceNumber;

/// One stream record: one change of one item in a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamRecord {
    /// Id of the record: 32 hexadecimal digits, the same at every read.
    pub event_id: String,
    /// Kind of change to the item: creation, modification or deletion.
    pub event_name: EventName,
    /// Primary key of the changed item, as DynamoDB JSON.
    pub keys: Value,
    /// The item after the change, as DynamoDB JSON; `None` after a deletion, or if the view type excludes new images.
    pub new_image: Option<Value>,
    /// The item before the change, as DynamoDB JSON; `None` for a new item, or if the view type excludes old images.
    pub old_image: Option<Value>,
    /// Sequence number of the record, which orders the records of a stream.
    pub sequence_number: SequenceNumber,
    /// Size of the record's key and images in bytes, by DynamoDB's rules.
    pub size_bytes: u64,
    /// Time at which the change was written to the table. AWS's record formats show whole seconds.
    pub approximate_creation: Timestamp,
    /// Identity of DynamoDB itself, if the change is a deletion by time to live; `None` for changes made by callers.
    pub user_identity: Option<UserIdentity>,
    /// ARN of the stream that contains the record.
    pub stream_arn: String,
    /// View type of the stream, which decides the images that the record contains.
    pub view_type: StreamViewType,
    /// AWS region of the stream, such as `us-east-1`.
    pub region: String,
}

impl StreamRecord {
    /// Returns the record as JSON, in the format of the event that a Lambda function receives.
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

    /// Returns the record as JSON, in the format of a `GetRecords` answer.
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

/// Kind of change to an item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventName {
    /// The item was created.
    Insert,
    /// One or more attributes of an existing item changed.
    Modify,
    /// The item was deleted.
    Remove,
}

impl EventName {
    /// Returns the name that AWS uses in records, such as `INSERT`.
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

/// Identity of the AWS service that made a change on its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserIdentity {
    /// Type of the identity: `Service` for deletions by time to live.
    pub kind: String,
    /// Principal of the identity: `dynamodb.amazonaws.com` for deletions by time to live.
    pub principal_id: String,
}

/// View type of a stream, which decides the parts of a changed item that the stream's records contain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamViewType {
    /// The stream's records contain only the item's key.
    KeysOnly,
    /// The stream's records contain the item's key, and the item after the change.
    NewImage,
    /// The stream's records contain the item's key, and the item before the change.
    OldImage,
    /// The stream's records contain the item's key, and the item both before and after the change.
    NewAndOldImages,
}

impl StreamViewType {
    /// Returns the name that AWS uses in requests and records, such as `NEW_AND_OLD_IMAGES`.
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
