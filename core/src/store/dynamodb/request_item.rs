//! The DynamoDB item of a queued request: its attributes, keys and codec.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `request_id` | S | table partition key: tenant, user and client id, joined ([`RequestKey`](crate::ids::RequestKey)) |
//! | `part` | S | table sort key: `request`; large values have separate items, see [`part_item`](super::part_item) |
//! | `client_id`, `user_id`, `tenant_id`, `action` | S | the request's id as chosen by its client, its user, tenant and action |
//! | `connection_id` | S | partition key of the index `connection-requests`, sorted by `created_at` |
//! | `payload` | S, JSON | the payload, unless it is a part item |
//! | `payload_part` | S | instead of `payload`: name of the part item that holds the payload |
//! | `metadata` | S, JSON | key-value pairs from the client |
//! | `status` | S | [`Status`](crate::store::Status) |
//! | `status_shard` | S | `{status}#{shard}`; partition key of the index `status-time`, sorted by `created_at` |
//! | `attempt`, `max_attempts`, `continuations`, `epoch`, `seq` | N | as the fields of [`Request`](crate::store::Request) |
//! | `runner` | S | `worker` if only the worker may run the request; otherwise absent |
//! | `nudges` | N | number of the sweeper's nudges, which make the stream deliver an unclaimed request again |
//! | `owner` | S | owner token of the last claim. It outlives the lease, so that an attempt whose response was lost recognizes its own write. Removed when the request is reclaimed, or made terminal by another writer |
//! | `lease_expires_at` | N, ms | expiry of the lease; only while PROCESSING |
//! | `cancel_requested` | BOOL | whether the running attempt is asked to stop; only while PROCESSING |
//! | `percentage` | N | progress, from 0 to 100 |
//! | `progress_message` | S | description of the current step |
//! | `progress_metadata` | S, JSON | additional values that the handler reported with its progress |
//! | `result` | S, JSON | only when COMPLETED: the result, unless it is a part item |
//! | `result_part` | S | instead of `result`: name of the part item that holds the result |
//! | `error` | S, JSON | only when FAILED: the error that clients receive |
//! | `checkpoint` | S, JSON | the handler's last checkpoint, unless it is a part item |
//! | `checkpoint_part` | S | name of the part item that holds the checkpoint; if `checkpoint` is also present, of the part item that held an earlier checkpoint |
//! | `history` | S, JSON | the latest failed attempts, the newest last |
//! | `dead_letter` | BOOL | only when FAILED: true until the request's dead letter has been sent |
//! | `redrive_of` | S | id of the dead letter from which the request was created |
//! | `redriven_as` | S | client id of the request that was created from this request's dead letter |
//! | `subscribers` | M of N | connection ids, each with the sequence number of the last frame known to the connection when it subscribed |
//! | `created_at`, `started_at`, `finished_at` | N, ms | time of the request's queueing, last claim and terminal write |
//! | `timer_shard` | S | partition key of the index `timers`, sorted by `timer_at`; removed when nothing is left to do |
//! | `timer_at` | N, ms | time at which the sweeper must handle the request |
//! | `ttl` | N, s | DynamoDB's time to live; only when terminal, so that no open request can expire |

mod attributes;
mod decode;
mod encode;
mod key;
mod parts;

pub use attributes::{
    RUNNER, WORKER, cancel_requested, epoch, finished_at, has_attempts_left, is_dead_letter_due, runner, seq,
    status_and_lease, subscribers, subscribers_with_seen, timer_at, ttl,
};
pub use decode::{SUMMARY_ATTRIBUTES, decode, decode_summary};
pub use encode::{Encoded, encode, error_value, history_value};
pub use key::{KEY, PART, REQUEST_PART, key, shard_of_status, status_shard, timer_shard};
pub(super) use parts::{OPEN_PARTS, text_or_part};
pub use parts::{open_parts, parts};

#[cfg(test)]
mod tests;
