//! What makes up a table, apart from its items; and how one differs from another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_dynamodb::types::{KeyType, ProjectionType, ScalarAttributeType, StreamViewType, TableClass};

/// How an aspect that is not in use is worded.
pub(super) const OFF: &str = "off";

/// What a table is to be, or what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The partition key, then the sort key if there is one.
    pub keys: Vec<Key>,
    /// The secondary indexes by name.
    pub indexes: BTreeMap<String, Index>,
    /// How its capacity is paid for.
    pub billing: Billing,
    /// What its stream shows of a changed item; `None` without a stream.
    pub stream: Option<StreamViewType>,
    /// The attribute that says when an item expires (epoch seconds), where time to live is enabled.
    pub ttl_attribute: Option<String>,
    /// Whether the table can be restored as it was at any second of the last days.
    pub point_in_time_recovery: bool,
    /// Whose key it is encrypted with.
    pub encryption: Encryption,
    /// Whether the table refuses to be deleted.
    pub deletion_protection: bool,
    /// What storage costs against access.
    pub class: TableClass,
}

impl Layout {
    /// A table of these keys, paid by request, with everything else as DynamoDB has it by default.
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

    /// A table whose only key is this attribute, a string, with everything else as DynamoDB has it by default.
    #[must_use]
    pub fn keyed_by(attribute: impl Into<String>) -> Self {
        Self::new(vec![Key {
            name: attribute.into(),
            attribute_type: ScalarAttributeType::S,
            key_type: KeyType::Hash,
        }])
    }

    /// The same with a stream that shows this much of a changed item.
    #[must_use]
    pub fn with_stream(mut self, view: StreamViewType) -> Self {
        self.stream = Some(view);
        self
    }

    /// Each thing in which tables may differ, in words.
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

    /// How `found` differs from this layout, but for the aspects that could not be compared; adds to these.
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

/// An attribute that is part of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    /// The attribute.
    pub name: String,
    /// `S`, `N` or `B`.
    pub attribute_type: ScalarAttributeType,
    /// `HASH` of a partition key, `RANGE` of a sort key.
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

/// A secondary index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Index {
    /// Global, or local to a partition.
    pub scope: IndexScope,
    /// Its partition key, then its sort key if there is one.
    pub keys: Vec<Key>,
    /// What it carries besides keys.
    pub projection: ProjectionType,
    /// The further attributes that it carries, where the projection is `INCLUDE`.
    pub attributes: BTreeSet<String>,
    /// Its own capacity, where the table's is provisioned and the index is global.
    pub throughput: Option<Throughput>,
}

/// As `global, status_shard S HASH, created_at N RANGE, KEYS_ONLY`.
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

/// Where an index looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IndexScope {
    /// At the whole table.
    Global,
    /// At the items of one partition key.
    Local,
}

/// How capacity is paid for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Billing {
    /// By request.
    OnDemand,
    /// By the hour, whether it is used or not.
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

/// Provisioned capacity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Throughput {
    /// Read capacity units.
    pub read_units: i64,
    /// Write capacity units.
    pub write_units: i64,
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} RCU and {} WCU", self.read_units, self.write_units)
    }
}

/// Whose key a table is encrypted with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Encryption {
    /// DynamoDB's own.
    Owned,
    /// One of the account's in KMS.
    Kms {
        /// Its id, ARN or alias; `None` for the account's key for DynamoDB.
        key: Option<String>,
    },
    /// One in KMS that only CloudFormation knows, as where the template makes it.
    KmsUnknown,
}

impl Encryption {
    /// Whether a table that is said to be encrypted as `found` is encrypted as this says; or why one cannot tell which
    /// key it should be.
    fn admits(&self, found: &Self) -> Result<bool, &'static str> {
        match (self, found) {
            (Self::Owned, Self::Owned) => Ok(true),
            (Self::Owned, _) | (_, Self::Owned) => Ok(false),
            (Self::Kms { key: wanted }, Self::Kms { key: Some(found) }) => match wanted {
                Some(alias) if alias.contains("alias/") => Err("a table tells its key, and not the alias"),
                Some(wanted) => Ok(found == wanted || found.ends_with(&format!(":key/{wanted}"))),
                None => Err("a table does not tell whether its key is the account's own for DynamoDB"),
            },
            (Self::Kms { key: wanted }, Self::Kms { key: None }) => Ok(wanted.is_none()),
            (Self::KmsUnknown, _) | (_, Self::KmsUnknown) => {
                Err("only CloudFormation knows which it should be")
            }
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned => f.write_str("with a key of DynamoDB's own"),
            Self::Kms { key: None } => f.write_str("with the account's KMS key for DynamoDB"),
            Self::Kms { key: Some(key) } => write!(f, "with the KMS key {key}"),
            Self::KmsUnknown => f.write_str("with a KMS key that only CloudFormation knows"),
        }
    }
}

/// One thing in which tables may differ.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Aspect {
    /// Whether it can be used.
    Status,
    /// Whether the index of this name can be used.
    IndexStatus(String),
    /// Its primary key.
    Keys,
    /// The index of this name.
    Index(String),
    /// Its stream.
    Stream,
    /// Its time to live.
    TimeToLive,
    /// How its capacity is paid for.
    Billing,
    /// Its continuous backups.
    PointInTimeRecovery,
    /// Whose key it is encrypted with.
    Encryption,
    /// Which of the account's keys it is encrypted with.
    EncryptionKey,
    /// Whether it refuses to be deleted.
    DeletionProtection,
    /// What storage costs against access.
    Class,
}

impl Aspect {
    /// Whether a function of the stage would notice: what it reads and writes by.
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

/// One thing in which a table is not what it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// In what it differs.
    pub aspect: Aspect,
    /// What it should be; `None` for an index that should not be there.
    pub wanted: Option<String>,
    /// What it is; `None` for an index that is not there.
    pub found: Option<String>,
}

/// As `stream: should be NEW_IMAGE; is off`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.as_deref().unwrap_or("absent");
        let found = self.found.as_deref().unwrap_or("missing");
        write!(f, "{}: should be {wanted}; is {found}", self.aspect)
    }
}
