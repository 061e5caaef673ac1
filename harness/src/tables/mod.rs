//! Creates tables at a DynamoDB endpoint from their layouts, compares existing tables with layouts, and
//! deletes tables.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType};
//! use streamer_harness::dynamodb::DynamoDb;
//! use streamer_harness::tables::{Key, Layout, Tables};
//!
//! let db = DynamoDb::builder().in_memory()?;
//! let tables = Tables::new(db.client(), "the embedded DynamoDB");
//! let mut layout = Layout::new(vec![Key {
//!     name: "id".into(), attribute_type: ScalarAttributeType::S, key_type: KeyType::Hash,
//! }]);
//! assert!(tables.create("things", &layout).await?.is_new);
//! layout.ttl_attribute = Some("ttl".into());
//! let found = tables.check("things", &layout).await?.expect("the table exists");
//! assert_eq!(found.differences[0].to_string(), "time to live: should be on ttl; is off");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod layout;
mod requests;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    IndexStatus, PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};

pub use error::{TablesError, TablesErrorKind, innermost};
pub use layout::{Aspect, Billing, Difference, Encryption, Index, IndexScope, Key, Layout, Throughput};

const NOT_AT_ENDPOINT: &str = "the endpoint does not know this setting";

/// The DynamoDB tables at one endpoint.
#[derive(Clone, Debug)]
pub struct Tables {
    client: Client,
    /// Name of the endpoint, for messages.
    endpoint: String,
}

/// Result of creating one table.
#[derive(Debug)]
#[non_exhaustive]
pub struct Created {
    /// True if the call created the table; false if the table already existed.
    pub is_new: bool,
    /// Comparison of the table with its wanted layout. It describes the table as [`Tables::create`] leaves it.
    /// That method does not change an existing table, with one exception: it turns on time to live and backups
    /// if only these two differ, because an interrupted creation may have left them off.
    pub comparison: Comparison,
}

/// Comparison of a table with its wanted layout.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// Settings that differ; empty if the table has the wanted layout.
    pub differences: Vec<Difference>,
    /// Settings that could not be compared, each with the reason.
    pub unknown: BTreeMap<Aspect, &'static str>,
}

impl Tables {
    /// Maximum wait for a table to be created or deleted. AWS takes seconds, or minutes for a table with
    /// indexes.
    const PATIENCE: Duration = Duration::from_mins(10);
    const POLL_INTERVAL: Duration = Duration::from_millis(500);

    /// Returns a handle to the tables at the endpoint of `client`. `endpoint` is the name of the endpoint in
    /// messages.
    #[must_use]
    pub fn new(client: Client, endpoint: impl Into<String>) -> Self {
        Self { client, endpoint: endpoint.into() }
    }

    /// Returns the name of the endpoint, as used in messages.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Creates a table if it does not exist, waits until the table and its indexes are active, and turns on
    /// time to live and backups. A failed call can be repeated.
    ///
    /// # Errors
    /// [`TablesError`] if the endpoint does not answer or refuses a call, or if the table does not exist and
    /// only CloudFormation knows its KMS key.
    pub async fn create(&self, name: &str, layout: &Layout) -> Result<Created, TablesError> {
        let is_new = self.create_if_missing(name, layout).await?;
        self.wait_until_active(name).await?;
        let mut comparison = self.comparison(name, layout).await?;
        let is_late = |difference: &Difference| {
            matches!(difference.aspect, Aspect::TimeToLive | Aspect::PointInTimeRecovery)
        };
        if !comparison.differences.is_empty() && comparison.differences.iter().all(is_late) {
            let failed = self.turn_on_late_settings(name, layout, &comparison).await?;
            comparison = self.comparison(name, layout).await?;
            for (aspect, error) in failed {
                if error.kind() == TablesErrorKind::UnknownOperation {
                    comparison.differences.retain(|difference| difference.aspect != aspect);
                    comparison.unknown.insert(aspect, NOT_AT_ENDPOINT);
                } else if let Some(difference) =
                    comparison.differences.iter_mut().find(|d| d.aspect == aspect)
                {
                    difference.found = Some(format!("{} ({error})", layout::OFF));
                }
            }
        }
        Ok(Created { is_new, comparison })
    }

    /// Creates the table if it does not exist. Returns whether the table was created.
    async fn create_if_missing(&self, name: &str, layout: &Layout) -> Result<bool, TablesError> {
        if layout.encryption == Encryption::KmsFromCloudFormation {
            return match self.describe(name).await? {
                Some(_) => Ok(false),
                None => Err(TablesError::new(
                    TablesErrorKind::Refused,
                    format!(
                        "table {name} is not created, because only CloudFormation knows its KMS key; deploy the \
                         template, or write the key's ARN into the template"
                    ),
                )),
            };
        }
        let request =
            requests::create(self.client.create_table().table_name(name), layout).map_err(|error| {
                TablesError::new(
                    TablesErrorKind::Refused,
                    format!("the request to create table {name} is invalid: {error}"),
                )
            })?;
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(false),
            Err(error) => Err(self.failed("CreateTable", name, error)),
        }
    }

    /// Compares a table with its wanted layout. Returns `None` if the table does not exist.
    ///
    /// # Errors
    /// [`TablesError`] if the endpoint does not answer or refuses a call.
    pub async fn check(&self, name: &str, layout: &Layout) -> Result<Option<Comparison>, TablesError> {
        match self.describe(name).await? {
            Some(_) => self.comparison(name, layout).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the ARN of a table, which contains the id of the AWS account. Returns `None` if the table does
    /// not exist.
    ///
    /// # Errors
    /// [`TablesError`] if the endpoint does not answer or refuses the call.
    pub async fn arn(&self, name: &str) -> Result<Option<String>, TablesError> {
        let table = self.describe(name).await?;
        Ok(table.map(|table| table.table_arn.unwrap_or_else(|| name.to_owned())))
    }

    /// Deletes a table with all its items, and waits until the table no longer exists. A missing table is not
    /// an error.
    ///
    /// # Errors
    /// [`TablesError`] if the endpoint does not answer or refuses the call, for example because the table has
    /// deletion protection.
    pub async fn delete(&self, name: &str) -> Result<(), TablesError> {
        match self.client.delete_table().table_name(name).send().await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => {
                // `ResourceInUseException` means that the table is being created or deleted. If the table is
                // being deleted, waiting is enough.
                let is_in_use = error.code() == Some("ResourceInUseException");
                let status = if is_in_use {
                    self.describe(name).await?.and_then(|table| table.table_status)
                } else {
                    None
                };
                if status != Some(TableStatus::Deleting) {
                    return Err(self.failed("DeleteTable", name, error));
                }
            }
        }
        self.poll(name, "deleted", |table| Ok(table.is_none())).await
    }

    /// Turns on time to live and backups, which `CreateTable` cannot set. Returns the error of each setting
    /// that the endpoint does not support or refuses. For example, AWS refuses a second change of time to
    /// live within an hour.
    async fn turn_on_late_settings(
        &self,
        name: &str,
        layout: &Layout,
        comparison: &Comparison,
    ) -> Result<BTreeMap<Aspect, TablesError>, TablesError> {
        let mut failed = BTreeMap::new();
        // A setting that is on, but has a different value than in the layout, stays unchanged.
        let is_off = |difference: &&Difference| difference.found.as_deref() == Some(layout::OFF);
        for difference in comparison.differences.iter().filter(is_off) {
            let done = match (&difference.aspect, &layout.ttl_attribute) {
                (Aspect::TimeToLive, Some(attribute)) => self.turn_on_time_to_live(name, attribute).await,
                (Aspect::PointInTimeRecovery, _) if layout.point_in_time_recovery => {
                    self.turn_on_recovery(name).await
                }
                _ => Ok(()),
            };
            match done {
                Err(error)
                    if matches!(
                        error.kind(),
                        TablesErrorKind::UnknownOperation | TablesErrorKind::Refused
                    ) =>
                {
                    failed.insert(difference.aspect.clone(), error);
                }
                done => done?,
            }
        }
        Ok(failed)
    }

    async fn turn_on_time_to_live(&self, name: &str, attribute: &str) -> Result<(), TablesError> {
        let specification =
            TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build();
        let specification =
            specification.map_err(|error| TablesError::new(TablesErrorKind::Refused, error.to_string()))?;
        let request = self.client.update_time_to_live().table_name(name);
        match request.time_to_live_specification(specification).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("UpdateTimeToLive", name, error)),
        }
    }

    /// Turns on point-in-time recovery. AWS refuses the call for a while after a new table becomes active, so
    /// the call is repeated.
    async fn turn_on_recovery(&self, name: &str) -> Result<(), TablesError> {
        let specification = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
        let specification = specification
            .build()
            .map_err(|error| TablesError::new(TablesErrorKind::Refused, error.to_string()))?;
        let request = self.client.update_continuous_backups().table_name(name);
        let request = request.point_in_time_recovery_specification(specification);
        let mut waited = Duration::ZERO;
        loop {
            match request.clone().send().await {
                Ok(_) => return Ok(()),
                Err(error)
                    if error.code() == Some("ContinuousBackupsUnavailableException")
                        && waited < Self::PATIENCE =>
                {
                    tokio::time::sleep(Self::POLL_INTERVAL).await;
                    waited += Self::POLL_INTERVAL;
                }
                Err(error) => return Err(self.failed("UpdateContinuousBackups", name, error)),
            }
        }
    }

    async fn comparison(&self, name: &str, layout: &Layout) -> Result<Comparison, TablesError> {
        let Some(table) = self.describe(name).await? else {
            return Err(TablesError::new(
                TablesErrorKind::Busy,
                format!("table {name} was deleted during this operation; run this command again"),
            ));
        };
        let mut found = requests::layout(&table);
        let mut unknown = BTreeMap::new();
        match self.ttl_attribute(name).await {
            Ok(attribute) => found.ttl_attribute = attribute,
            Err(error) if error.kind() == TablesErrorKind::UnknownOperation => {
                unknown.insert(Aspect::TimeToLive, NOT_AT_ENDPOINT);
            }
            Err(error) => return Err(error),
        }
        match self.point_in_time_recovery(name).await {
            Ok(on) => found.point_in_time_recovery = on,
            Err(error) if error.kind() == TablesErrorKind::UnknownOperation => {
                unknown.insert(Aspect::PointInTimeRecovery, NOT_AT_ENDPOINT);
            }
            Err(error) => return Err(error),
        }
        let mut differences = requests::unusable(&table);
        differences.extend(layout.differences(&found, &mut unknown));
        Ok(Comparison { differences, unknown })
    }

    async fn describe(&self, name: &str) -> Result<Option<TableDescription>, TablesError> {
        match self.client.describe_table().table_name(name).send().await {
            Ok(answer) => Ok(answer.table),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed("DescribeTable", name, error)),
        }
    }

    async fn ttl_attribute(&self, name: &str) -> Result<Option<String>, TablesError> {
        let answer = self.client.describe_time_to_live().table_name(name).send().await;
        let answer = answer.map_err(|error| self.failed("DescribeTimeToLive", name, error))?;
        let is_on = |status: Option<&TimeToLiveStatus>| {
            matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        Ok(answer
            .time_to_live_description
            .filter(|description| is_on(description.time_to_live_status()))
            .and_then(|description| description.attribute_name))
    }

    async fn point_in_time_recovery(&self, name: &str) -> Result<bool, TablesError> {
        let answer = self.client.describe_continuous_backups().table_name(name).send().await;
        let answer = answer.map_err(|error| self.failed("DescribeContinuousBackups", name, error))?;
        Ok(answer
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status)
            == Some(PointInTimeRecoveryStatus::Enabled))
    }

    async fn wait_until_active(&self, name: &str) -> Result<(), TablesError> {
        self.poll(name, "active", |table| {
            let Some(table) = table else { return Ok(false) };
            let are_active = table
                .global_secondary_indexes()
                .iter()
                .all(|index| index.index_status() == Some(&IndexStatus::Active));
            match table.table_status() {
                Some(TableStatus::Active) => Ok(are_active),
                Some(TableStatus::Creating | TableStatus::Updating) => Ok(false),
                status => {
                    let status = status.map_or("UNKNOWN", TableStatus::as_str);
                    let message =
                        format!("table {name} is {status}; run this command again when the table is ACTIVE");
                    Err(TablesError::new(TablesErrorKind::Busy, message))
                }
            }
        })
        .await
    }

    /// Calls `DescribeTable` at intervals until `is_done` returns `true`. `state` names the awaited state in
    /// the error message.
    async fn poll(
        &self,
        name: &str,
        state: &str,
        is_done: impl Fn(Option<&TableDescription>) -> Result<bool, TablesError>,
    ) -> Result<(), TablesError> {
        let mut waited = Duration::ZERO;
        while !is_done(self.describe(name).await?.as_ref())? {
            if waited >= Self::PATIENCE {
                let minutes = Self::PATIENCE.as_secs() / 60;
                let message =
                    format!("table {name} is not {state} after {minutes} minutes; run this command again");
                return Err(TablesError::new(TablesErrorKind::Busy, message));
            }
            tokio::time::sleep(Self::POLL_INTERVAL).await;
            waited += Self::POLL_INTERVAL;
        }
        Ok(())
    }

    fn failed<E>(&self, operation: &str, table: &str, error: SdkError<E>) -> TablesError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        TablesError::of_call(&self.endpoint, operation, table, error)
    }
}

fn is_not_found<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}
