//! Plans of simulated runs. A plan contains all choices that are made before the run begins. It is derived
//! from a seed or read from a file, and can be shrunk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Scenario of one simulated run (a world): the stage, its clients, and the faults to inject. The same plan
/// always produces the same run, byte for byte.
///
/// [`from_json`](Self::from_json) and [`to_json`](Self::to_json) read and write a plan as a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Seed of everything that is random during the run: ids, jitter, and which calls a fault strikes.
    pub seed: u64,
    /// Time from the start of the run until which faults may be injected, in milliseconds. After this time,
    /// all open requests must become terminal.
    pub faults_until_ms: u64,
    /// Settings of the simulated stage.
    pub stage: StagePlan,
    /// Clients that use the stage; at least one.
    pub clients: Vec<ClientPlan>,
    /// Faults to inject during the run.
    pub faults: Vec<FaultPlan>,
}

/// Settings of the simulated stage. With the default value, the stage uses its own default for each setting.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StagePlan {
    /// Environment variables of every function, such as `LEASE_MS`. Key: the variable's name.
    pub variables: BTreeMap<String, String>,
    /// Number of shards of each DynamoDB stream, at most 64; 0 for the stage's default.
    pub shards: u16,
    /// Age at which a stream shard closes and is followed by a new shard, in milliseconds. 0 means never; any
    /// other value is at least 1000.
    pub shard_lifetime_ms: u64,
    /// Limits of concurrent invocations. Key: the name of the function's binary, such as `worker`. A function
    /// without an entry keeps the stage's default.
    pub concurrency: BTreeMap<String, u32>,
    /// Whether the end of a connection cancels the requests that were sent over it and have no other
    /// subscriber. Default: false.
    pub cancel_on_disconnect: bool,
}

/// A simulated client: one device of a user, with one connection at a time. A client that loses its
/// connection reconnects by itself and resumes its open requests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// User of the client: the `sub` claim of its tokens.
    pub user: String,
    /// Tenant of the client: the `tenant_id` claim of its tokens.
    pub tenant: String,
    /// Permissions of the client: the `permissions` claim of its tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Lifetime of each of the client's tokens, in milliseconds; 0 for one day.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub token_ttl_ms: u64,
    /// Whether the client never resends a message that was not answered. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gives_up: bool,
    /// Actions of the client with their times, sorted by time.
    pub steps: Vec<Step>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// An action of a simulated client, and its time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Time of the action, in milliseconds from the start of the run.
    pub at_ms: u64,
    /// Action of the client.
    pub act: Act,
}

/// An action of a simulated client. An action that needs a connection is skipped while the client has none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Connects, unless the client is connected already.
    Connect,
    /// Closes the connection with a WebSocket close handshake.
    Close,
    /// Drops the connection without a close handshake.
    Vanish,
    /// Cuts the client off without closing its connection: the gateway considers the connection open, but the
    /// client does not receive the frames sent over it.
    CutOff,
    /// Sends a request. Several steps may send the same id, with equal or different payloads.
    Request {
        /// Request id to send.
        id: String,
        /// Action of the request.
        action: String,
        /// Payload of the request.
        payload: Value,
    },
    /// Cancels a request.
    Cancel {
        /// Id of the request to cancel.
        id: String,
    },
    /// Subscribes to a request, from the last sequence number that the client has received.
    Subscribe {
        /// Id of the request to subscribe to.
        id: String,
    },
    /// Queries the status of a request.
    Status {
        /// Id of the request to query.
        id: String,
    },
    /// Sends any text, which need not be a valid message.
    SendText {
        /// Text to send.
        text: String,
    },
}

/// A kind of fault to inject, with a rate and a time span.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Probability of the fault at each occasion, such as each call, from 0 to 1.
    pub rate: f64,
    /// Start of the fault's time span, in milliseconds from the start of the run. Default: 0.
    #[serde(default)]
    pub from_ms: u64,
    /// End of the fault's time span, in milliseconds from the start of the run. Default and latest end:
    /// [`Plan::faults_until_ms`].
    #[serde(default = "no_end")]
    pub until_ms: u64,
}

const fn no_end() -> u64 {
    u64::MAX
}

macro_rules! fault_kinds {
    ($($(#[$attribute:meta])+ $name:ident => $text:literal,)+) => {
        /// Kind of a fault that the simulator can inject.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FaultKind {
            $($(#[$attribute])+ $name,)+
        }

        impl FaultKind {
            /// All kinds of faults, in the order in which a summary lists them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the kind's name in a plan file, such as `lose_answer`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

fault_kinds! {
    /// A DynamoDB call is throttled.
    Throttle => "throttle",
    /// A DynamoDB call fails with status 500, without effect.
    FailBefore => "fail_before",
    /// A DynamoDB call takes effect, and its caller receives status 500.
    FailAfter => "fail_after",
    /// A DynamoDB call takes effect, and its caller never receives an answer.
    LoseAnswer => "lose_answer",
    /// A DynamoDB call takes effect up to 8 s late, even if its caller has stopped waiting.
    SlowCall => "slow_call",
    /// A DynamoDB write fails because it conflicts with a transaction.
    Conflict => "conflict",
    /// A query of an index misses the latest writes.
    StaleIndex => "stale_index",
    /// Stream records are delivered twice.
    DuplicateRecords => "duplicate_records",
    /// Stream records are delivered up to 30 s late.
    LateRecords => "late_records",
    /// A read of the stream fails.
    FailedReads => "failed_reads",
    /// A shard of the requests table's stream splits.
    SplitShard => "split_shard",
    /// A function's process is killed at one of its awaits.
    Kill => "kill",
    /// A function's process is killed at a call, before the call takes effect.
    KillAtCall => "kill_at_call",
    /// A function freezes for up to 3 min, and then continues.
    Freeze => "freeze",
    /// A function hangs until its invocation times out.
    Hang => "hang",
    /// A function's environment takes up to 11 s to start.
    SlowStart => "slow_start",
    /// A function's environment dies while it starts.
    FailedStart => "failed_start",
    /// An invocation is throttled.
    InvokeThrottled => "invoke_throttled",
    /// An invocation fails, with or without having run the function.
    InvokeFailed => "invoke_failed",
    /// A function is invoked twice with one event, concurrently.
    InvokeTwice => "invoke_twice",
    /// The call that dispatches a request to the worker fails, or is not answered.
    // Name of this kind in plan files that an earlier version wrote.
    #[serde(alias = "hand_over_failed")]
    DispatchFailed => "dispatch_failed",
    /// The event of an asynchronous invocation is lost in Lambda's queue.
    EventLost => "event_lost",
    /// A post to an open connection is answered with 410 Gone.
    PostGone => "post_gone",
    /// A post to a connection is throttled.
    PostThrottled => "post_throttled",
    /// A post to a connection fails with status 500.
    PostFailed => "post_failed",
    /// A post reaches its connection, but its caller receives no answer.
    PostUnanswered => "post_unanswered",
    /// A post to a connection takes up to 10 s.
    SlowPost => "slow_post",
    /// The `$disconnect` event of a connection is never delivered.
    DisconnectLost => "disconnect_lost",
    /// A queue does not accept a message, and the send fails.
    QueueFailed => "queue_failed",
    /// A queue accepts a message, but the sender receives no answer or an error.
    QueueUnanswered => "queue_unanswered",
    /// The clock of a function's environment is off by up to 3 s.
    ClockSkew => "clock_skew",
    /// A new version of every function is deployed: each environment is replaced, a busy one after its
    /// answer.
    Deploy => "deploy",
}
