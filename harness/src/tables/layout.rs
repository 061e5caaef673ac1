//! The layout of a table (its keys, indexes and settings, without its items), and the comparison of two
//! layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_dynamodb::types::{KeyType, ProjectionType, ScalarAttributeType, StreamViewType, TableClass};

/// Text for a setting that is turned off.
pub(super) const OFF: &str = "off";

/// Layout of a DynamoDB table: its keys, indexes and settings. Describes a wanted table or an existing table.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// Primary key of the table: the partition key, then the sort key if there is one.
    pub keys: Vec<Key>,
    /// Secondary indexes of the table, by name.
    pub indexes: BTreeMap<String, Index>,
    /// Billing mode of the table, on demand or provisioned.
    pub billing: Billing,
    /// View type of the table's stream: the images of a changed item in each stream record. `None` if the
    /// table has no stream.
    pub stream: Option<StreamViewType>,
    /// Name of the attribute that holds an item's expiry (epoch seconds); `None` if time to live is off.
    pub ttl_attribute: Option<String>,
    /// True if the table can be restored to its state at any second of its recovery period, by default 35
    /// days.
    pub point_in_time_recovery: bool,
    /// Key that encrypts the table.
    pub encryption: Encryption,
    /// True if DynamoDB refuses to delete the table.
    pub deletion_protection: bool,
    /// Table class, which sets the price of storage relative to the price of access.
    pub class: TableClass,
}

impl Layout {
    /// Describes an on-demand table with these keys and DynamoDB's defaults for everything else.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self {
            keys,
            indexes: BTreeMap::new(),
            billing: Billing::OnDemand,
            stream: None,
            ttl_attribute: None,
            point_in_time_recovery: false,
            encryption: Encryption::Owned,
            deletion_protection: false,
            class: TableClass::Standard,
        }
    }

    /// Describes an on-demand table whose only key is a string attribute, with DynamoDB's defaults for
    /// everything else.
    #[must_use]
    pub fn keyed_by(attribute: impl Into<String>) -> Self {
        Self::new(vec![Key {
            name: attribute.into(),
            attribute_type: ScalarAttributeType::S,
            key_type: KeyType::Hash,
        }])
    }

    /// Adds a stream to the table. `view` selects the images of a changed item in each stream record.
    #[must_use]
    pub fn with_stream(mut self, view: StreamViewType) -> Self {
        self.stream = Some(view);
        self
    }

    /// Returns each setting as a text, for comparison with a second layout.
    fn aspects(&self) -> BTreeMap<Aspect, String> {
        let on_off = |on: bool| if on { "on" } else { OFF }.to_owned();
        let stream = self.stream.as_ref().map_or(OFF.to_owned(), |view| view.as_str().to_owned());
        let ttl = self.ttl_attribute.as_ref().map_or(OFF.to_owned(), |name| format!("on {name}"));
        let mut aspects = BTreeMap::from([
            (Aspect::Keys, key_list(&self.keys)),
            (Aspect::Billing, self.billing.to_string()),
            (Aspect::Stream, stream),
            (Aspect::TimeToLive, ttl),
            (Aspect::PointInTimeRecovery, on_off(self.point_in_time_recovery)),
            (Aspect::Encryption, self.encryption.to_string()),
            (Aspect::DeletionProtection, on_off(self.deletion_protection)),
            (Aspect::Class, self.class.as_str().to_owned()),
        ]);
        for (name, index) in &self.indexes {
            aspects.insert(Aspect::Index(name.clone()), index.to_string());
        }
        aspects
    }

    /// Returns the differences between this wanted layout and the existing layout `found`, without the
    /// aspects in `unknown`. Adds each aspect that cannot be compared to `unknown`, with the reason.
    pub(super) fn differences(
        &self,
        found: &Self,
        unknown: &mut BTreeMap<Aspect, &'static str>,
    ) -> Vec<Difference> {
        let mut found = found.clone();
        let admitted = self.encryption.admits(&found.encryption).unwrap_or_else(|why| {
            unknown.insert(Aspect::EncryptionKey, why);
            true
        });
        if admitted {
            found.encryption = self.encryption.clone();
        }
        let (wanted, found) = (self.aspects(), found.aspects());
        let aspects: BTreeSet<&Aspect> = wanted.keys().chain(found.keys()).collect();
        aspects
            .into_iter()
            .filter(|aspect| !unknown.contains_key(aspect) && wanted.get(aspect) != found.get(aspect))
            .map(|aspect| Difference {
                aspect: aspect.clone(),
                wanted: wanted.get(aspect).cloned(),
                found: found.get(aspect).cloned(),
            })
            .collect()
    }
}

/// An attribute that is part of a primary key or of an index key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    /// Name of the key attribute.
    pub name: String,
    /// Type of the key attribute: `S`, `N` or `B`.
    pub attribute_type: ScalarAttributeType,
    /// Role in the key: `HASH` for the partition key, `RANGE` for the sort key.
    pub key_type: KeyType,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.attribute_type, self.key_type)
    }
}

fn key_list(keys: &[Key]) -> String {
    keys.iter().map(Key::to_string).collect::<Vec<_>>().join(", ")
}

/// A secondary index of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Index {
    /// Scope of the index: global or local.
    pub scope: IndexScope,
    /// Key of the index: the partition key, then the sort key if there is one.
    pub keys: Vec<Key>,
    /// Selection of the attributes that the index contains in addition to the keys.
    pub projection: ProjectionType,
    /// Names of the additional attributes in the index if the projection is `INCLUDE`; otherwise empty.
    pub attributes: BTreeSet<String>,
    /// Provisioned capacity of the index; `None` for a local index or an on-demand table.
    pub throughput: Option<Throughput>,
}

/// Formats the index as `global, status_shard S HASH, created_at N RANGE, KEYS_ONLY`.
impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            IndexScope::Global => "global",
            IndexScope::Local => "local",
        };
        write!(f, "{scope}, {}, {}", key_list(&self.keys), self.projection)?;
        for (position, attribute) in self.attributes.iter().enumerate() {
            write!(f, "{}{attribute}", if position == 0 { " " } else { ", " })?;
        }
        self.throughput.map_or(Ok(()), |throughput| write!(f, ", {throughput}"))
    }
}

/// Scope of a secondary index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IndexScope {
    /// Global: a query covers the whole table.
    Global,
    /// Local: a query covers the items of one partition key.
    Local,
}

/// Billing mode of a table's capacity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Billing {
    /// The table is billed by request (`PAY_PER_REQUEST`).
    OnDemand,
    /// Capacity is provisioned, and billed by the hour, used or unused.
    Provisioned(Throughput),
}

impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnDemand => f.write_str("PAY_PER_REQUEST"),
            Self::Provisioned(throughput) => write!(f, "PROVISIONED, {throughput}"),
        }
    }
}

/// Provisioned capacity of a table or a global index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Throughput {
    /// Read capacity units per second.
    pub read_units: i64,
    /// Write capacity units per second.
    pub write_units: i64,
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} RCU and {} WCU", self.read_units, self.write_units)
    }
}

/// Key that encrypts a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Encryption {
    /// A key that DynamoDB owns.
    Owned,
    /// A KMS key of the account.
    Kms {
        /// Id, ARN or alias of the KMS key; `None` for the AWS managed key `aws/dynamodb`.
        key: Option<String>,
    },
    /// A KMS key that only CloudFormation knows, for example because the template creates it.
    KmsFromCloudFormation,
}

impl Encryption {
    /// Returns true if the encryption `found` satisfies this wanted encryption. The error is the reason why
    /// the two cannot be compared.
    fn admits(&self, found: &Self) -> Result<bool, &'static str> {
        match (self, found) {
            (Self::Owned, Self::Owned) => Ok(true),
            (Self::Owned, _) | (_, Self::Owned) => Ok(false),
            (Self::Kms { key: wanted }, Self::Kms { key: Some(found) }) => match wanted {
                Some(alias) if alias.contains("alias/") => {
                    Err("DescribeTable reports the key and not the alias")
                }
                Some(wanted) => Ok(found == wanted || found.ends_with(&format!(":key/{wanted}"))),
                None => {
                    Err("DescribeTable does not report whether the key is the account's default for DynamoDB")
                }
            },
            (Self::Kms { key: wanted }, Self::Kms { key: None }) => Ok(wanted.is_none()),
            (Self::KmsFromCloudFormation, _) | (_, Self::KmsFromCloudFormation) => {
                Err("only CloudFormation knows the wanted key")
            }
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned => f.write_str("with a key that DynamoDB owns"),
            Self::Kms { key: None } => f.write_str("with the account's default KMS key for DynamoDB"),
            Self::Kms { key: Some(key) } => write!(f, "with the KMS key {key}"),
            Self::KmsFromCloudFormation => f.write_str("with a KMS key that only CloudFormation knows"),
        }
    }
}

/// A setting of a table in which two layouts may differ.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Aspect {
    /// Status of the table, such as `ACTIVE`.
    Status,
    /// Status of the index of this name, such as `ACTIVE`.
    IndexStatus(String),
    /// Primary key of the table.
    Keys,
    /// Definition of the index of this name.
    Index(String),
    /// Stream of the table.
    Stream,
    /// Time to live of the table.
    TimeToLive,
    /// Billing mode of the table, on demand or provisioned.
    Billing,
    /// Continuous backups (point-in-time recovery) of the table.
    PointInTimeRecovery,
    /// Encryption of the table.
    Encryption,
    /// Id of the KMS key that encrypts the table.
    EncryptionKey,
    /// Deletion protection of the table.
    DeletionProtection,
    /// Table class, which sets the price of storage relative to the price of access.
    Class,
}

impl Aspect {
    /// Returns whether this setting affects how a function reads and writes the table: status, keys, indexes
    /// and stream.
    #[must_use]
    pub const fn concerns_functions(&self) -> bool {
        match self {
            Self::Status | Self::IndexStatus(_) | Self::Keys | Self::Index(_) | Self::Stream => true,
            Self::TimeToLive
            | Self::Billing
            | Self::PointInTimeRecovery
            | Self::Encryption
            | Self::EncryptionKey
            | Self::DeletionProtection
            | Self::Class => false,
        }
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "status",
            Self::IndexStatus(name) => return write!(f, "status of index {name}"),
            Self::Keys => "keys",
            Self::Index(name) => return write!(f, "index {name}"),
            Self::Stream => "stream",
            Self::TimeToLive => "time to live",
            Self::Billing => "billing",
            Self::PointInTimeRecovery => "point-in-time recovery",
            Self::Encryption => "encryption",
            Self::EncryptionKey => "KMS key",
            Self::DeletionProtection => "deletion protection",
            Self::Class => "class",
        })
    }
}

/// One difference between a table and its wanted layout.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// Setting that differs.
    pub aspect: Aspect,
    /// Wanted value in words; `None` for an index that should not exist.
    pub wanted: Option<String>,
    /// Actual value in words; `None` for an index that does not exist.
    pub found: Option<String>,
}

/// Formats the difference as `stream: should be NEW_IMAGE; is off`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.as_deref().unwrap_or("absent");
        let found = self.found.as_deref().unwrap_or("missing");
        write!(f, "{}: should be {wanted}; is {found}", self.aspect)
    }
}
