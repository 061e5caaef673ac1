//! DynamoDB, embedded: tables, expressions, indexes and transactions from an engine on SQLite, and streams of
//! our own, on the stage's clock.
//!
//! One [`DynamoDb`] is reached in three ways, and all three give the same answers, since each of them is a thin
//! skin over [`DynamoDb::handle`]:
//!
//! * [`DynamoDb::client`] and [`DynamoDb::http_client`]: the AWS SDK in process, without sockets;
//! * [`DynamoDb::router`]: the HTTP protocol, for any AWS SDK and the AWS CLI;
//! * [`DynamoDb::streams`]: the reading side of the streams, for the event source mapping.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use streamer_fakes::dynamodb::DynamoDb;
//!
//! let db = DynamoDb::builder().in_memory()?;
//! let tables = db.client().list_tables().send().await?;
//! assert!(tables.table_names().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where it departs from AWS
//!
//! * Everything is consistent at once: tables are `ACTIVE` when `CreateTable` returns, and index reads are never
//!   stale unless a fault has them so, which concerns global indexes and the latest 10,000 changes of them.
//! * Signatures are not checked, and neither is whether there is one.
//! * Inside a transaction, in PartiQL, and by the legacy `AttributeUpdates`, an update of a missing item that
//!   only removes creates it; `UpdateItem` with an expression creates nothing, as on AWS.
//! * A replayed transaction repeats its first answer, while AWS reports the capacity of a read.
//! * Shards split only when [`Streams::split_shard`] says so, and are not replaced after about four hours unless
//!   [`Builder::shard_lifetime`] is set.
//! * Time to live deletes nothing by itself: whoever owns the clock calls [`DynamoDb::sweep_expired`], or has it called
//!   by [`DynamoDb::sweep_every`], as the stage does every 30 seconds.
//! * The tables that a fault takes out of a batch are not checked: neither that they are there, nor how many items there are.
//! * A transaction that is throttled or meets a conflict on request names the reason for each of its actions.
//! * Capacity is counted by AWS's rules, with the exceptions that [`Ledger`] names.
//! * Attributes of an answered item come in no particular order; those of a stream record are sorted.

mod capacity;
mod client;
mod client_tokens;
mod database;
mod dispatch;
mod engine;
mod error;
mod faults;
mod folder_lock;
mod http;
mod idempotency;
mod json;
mod last_sweep;
mod ledger;
mod nesting;
mod open;
mod outbox;
mod removal;
mod response;
mod stale;
mod streams;
mod tables;
mod time_to_live;

pub use database::DynamoDb;
pub use ledger::{Call, Calls, Charge, Ledger};
pub use open::{Builder, OpenError, OpenErrorKind};
pub use response::Response;
pub use streams::{
    EventName, SequenceNumber, ShardId, ShardInfo, StreamError, StreamErrorKind, StreamRecord,
    StreamViewType, Streams, UserIdentity,
};
pub use time_to_live::SweepError;
