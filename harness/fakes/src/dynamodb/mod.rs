//! A fake of DynamoDB that runs in the test's or stage's process.
//!
//! Tables, expressions, indexes and transactions come from `dynoxide`, an engine on SQLite. Streams are implemented
//! in this module. The time comes from the stage's clock.
//!
//! A [`DynamoDb`] can be called in three ways:
//!
//! * [`DynamoDb::client`] and [`DynamoDb::http_client`]: the AWS SDK in process, without sockets;
//! * [`DynamoDb::router`]: the HTTP protocol, for any AWS SDK and the AWS CLI;
//! * [`DynamoDb::handle`]: one call, given as header and JSON body, into which no fault is injected.
//!
//! All three run the same code, and so return the same answers. [`DynamoDb::streams`] reads the streams without the
//! API, for the event source mapping.
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
//! # Differences from AWS
//!
//! * Changes take effect immediately: a table is `ACTIVE` when `CreateTable` returns, and index reads are current.
//!   A fault can make reads of a global index stale, by at most the latest 10,000 index changes.
//! * Requests need no signature, and a signature is not checked.
//! * An update that only removes attributes of a missing item creates the item inside a transaction, in PartiQL, and
//!   with the legacy `AttributeUpdates`. `UpdateItem` with an expression creates nothing in this case, as on AWS.
//! * A transaction repeated with the same client token returns the first answer unchanged. AWS reports the capacity of
//!   a read in the repeated answer.
//! * A shard splits only when [`Streams::split_shard`] is called. A shard is replaced by a child only if
//!   [`Builder::shard_lifetime`] is set; AWS replaces a shard after about four hours.
//! * Items whose time to live has expired are deleted only by [`DynamoDb::sweep_expired`] and
//!   [`DynamoDb::sweep_every`]. The local stage sweeps every 30 seconds.
//! * When a fault refuses one table of a batch, the request's entries for this table are not validated: neither the
//!   table's existence nor the number of entries is checked.
//! * When a fault throttles a transaction, or fails it with a conflict, all actions of the transaction have the same
//!   cancellation reason.
//! * Capacity is counted by AWS's rules, with the exceptions listed in [`Ledger`].
//! * The attributes of a returned item have no particular order; the attributes of a stream record are sorted.

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
