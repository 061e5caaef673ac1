//! The item of a queued request, attribute by attribute.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `request_id` | S | table key: tenant, user and client id in one ([`RequestKey`](crate::ids::RequestKey)) |
//! | `part` | S | table sort key: `request`; big values lie beside it, see [`part_item`](super::part_item) |
//! | `client_id`, `user_id`, `tenant_id`, `action` | S | |
//! | `connection_id` | S | key of `connection-requests`, sorted by `created_at` |
//! | `payload` | S, JSON | unless it is big |
//! | `payload_part` | S | instead of it: the part that holds it |
//! | `metadata` | S, JSON | |
//! | `status` | S | [`Status`](crate::store::Status) |
//! | `status_shard` | S | `{status}#{shard}`; key of `status-time`, sorted by `created_at` |
//! | `attempt`, `max_attempts`, `continuations`, `epoch`, `seq` | N | |
//! | `runner` | S | `worker`, where only the worker may run it |
//! | `nudges` | N | how often it was made to appear in the stream once more, since nobody had claimed it |
//! | `owner` | S | who holds the lease, or has given it back or ended the request: by it a lost answer is told from a lost lease. Gone once the request is taken back, or ended by somebody else |
//! | `lease_expires_at` | N, ms | only while PROCESSING |
//! | `cancel_requested` | BOOL | only while PROCESSING: whether whoever holds the lease is asked to stop |
//! | `percentage` | N | |
//! | `progress_message` | S | |
//! | `progress_metadata` | S, JSON | |
//! | `result` | S, JSON | only when COMPLETED, and unless it is big |
//! | `result_part` | S | instead of it: the part that holds it |
//! | `error` | S, JSON | only when FAILED |
//! | `checkpoint` | S, JSON | what the handler saved last, unless it is big |
//! | `checkpoint_part` | S | the part that holds it; beside a `checkpoint`, the part that held an earlier one |
//! | `history` | S, JSON | the attempts that did not end it well, the latest last, bounded |
//! | `dead_letter` | BOOL | only when FAILED: whether its dead letter is still to be sent |
//! | `redrive_of` | S | the dead letter that it was made from |
//! | `redriven_as` | S | the client id of the request that was made from its dead letter |
//! | `subscribers` | M of N | connection ids, each with the number of the last frame that it knew when it came to listen |
//! | `created_at`, `started_at`, `finished_at` | N, ms | |
//! | `timer_shard` | S | key of `timers`; gone when nothing is left to do |
//! | `timer_at` | N, ms | when the sweeper must look at the request |
//! | `ttl` | N, s | DynamoDB's time to live; only once ended, so that nothing open can expire |

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
