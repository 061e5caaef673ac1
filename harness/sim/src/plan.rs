//! What happens in a world, all that is decided before it begins: a plan is drawn from a seed, can be kept in a file,
//! and can be made smaller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A scenario. The same plan makes the same world, byte for byte.
///
/// [`from_json`](Self::from_json) and [`to_json`](Self::to_json) read and write it as a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is left to chance while the world runs: ids, jitter, which calls a fault strikes.
    pub seed: u64,
    /// For how long faults may strike, in milliseconds from the start; after that everything must settle.
    pub faults_until_ms: u64,
    /// How the stage is set.
    pub stage: StagePlan,
    /// Who uses it.
    pub clients: Vec<ClientPlan>,
    /// What goes wrong.
    pub faults: Vec<FaultPlan>,
}

/// How the stage is set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StagePlan {
    /// Environment variables of every function, such as `LEASE_MS`.
    pub variables: BTreeMap<String, String>,
    /// How many shards a stream has; 0: as many as by default.
    pub shards: u16,
    /// How long a shard takes records, in milliseconds; 0: for ever.
    pub shard_lifetime_ms: u64,
    /// How many invocations of each function, by its binary's name, may run at once, where that is limited.
    pub concurrency: BTreeMap<String, u32>,
    /// Whether a request whose client goes is cancelled.
    pub cancel_on_disconnect: bool,
}

/// One client: a user at one device, over one connection at a time. One that loses its connection comes back by itself,
/// and goes on with what it waits for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// The token's `sub`.
    pub user: String,
    /// The token's `tenant_id`.
    pub tenant: String,
    /// The token's `permissions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// How long each of its tokens is valid, in milliseconds; 0: for a day.
    #[serde(default, skip_serializing_if = "is_none")]
    pub token_ttl_ms: u64,
    /// Whether it leaves it at that when a message was not answered, and never sends it again.
    #[serde(default, skip_serializing_if = "is_not_so")]
    pub gives_up: bool,
    /// What it does, in the order of time.
    pub steps: Vec<Step>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
const fn is_none(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
const fn is_not_so(is_so: &bool) -> bool {
    !*is_so
}

/// One thing that a client does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, in milliseconds from the start.
    pub at_ms: u64,
    /// What.
    pub act: Act,
}

/// What a client can do. Without a connection, whatever needs one is left out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Connects, unless it is connected.
    Connect,
    /// Closes its connection in order.
    Close,
    /// Is gone without a word.
    Vanish,
    /// Is cut off so that the gateway does not notice: what is sent to it from then on goes nowhere.
    CutOff,
    /// Sends a request; the same id again, or with another payload, is a client that repeats itself.
    Request {
        /// The request's id.
        id: String,
        /// Its action.
        action: String,
        /// Its payload.
        payload: Value,
    },
    /// Cancels a request.
    Cancel {
        /// The request's id.
        id: String,
    },
    /// Subscribes to a request, from the last sequence number on that it has seen.
    Subscribe {
        /// The request's id.
        id: String,
    },
    /// Queries the status of a request.
    Status {
        /// The request's id.
        id: String,
    },
    /// Sends a text of any kind.
    SendText {
        /// This text.
        text: String,
    },
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// What.
    pub kind: FaultKind,
    /// How likely it is each time that it can happen, from 0 to 1.
    pub rate: f64,
    /// From when on, in milliseconds from the start.
    #[serde(default)]
    pub from_ms: u64,
    /// Until when; [`Plan::faults_until_ms`] at the latest.
    #[serde(default = "for_ever")]
    pub until_ms: u64,
}

const fn for_ever() -> u64 {
    u64::MAX
}

macro_rules! fault_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FaultKind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl FaultKind {
            /// Every kind, in the order in which a summary names them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The kind as a plan's file has it.
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
    /// A call of DynamoDB is throttled.
    Throttle => "throttle",
    /// A call of DynamoDB fails with a 500, without effect.
    FailBefore => "fail_before",
    /// A call of DynamoDB takes effect and is answered with a 500.
    FailAfter => "fail_after",
    /// A call of DynamoDB takes effect and is never answered.
    LoseAnswer => "lose_answer",
    /// A call of DynamoDB takes effect later, up to some seconds, whether or not its caller still waits.
    SlowCall => "slow_call",
    /// A write of DynamoDB meets a transaction.
    Conflict => "conflict",
    /// A query of an index does not see the latest writes.
    StaleIndex => "stale_index",
    /// Stream records are delivered twice.
    DuplicateRecords => "duplicate_records",
    /// Stream records are delivered late.
    LateRecords => "late_records",
    /// Reading the stream fails.
    FailedReads => "failed_reads",
    /// A shard of the stream splits.
    SplitShard => "split_shard",
    /// A function dies at one of its awaits.
    Kill => "kill",
    /// A function dies at a call, before it has an effect.
    KillAtCall => "kill_at_call",
    /// A function stands still for a while, up to minutes, and goes on.
    Freeze => "freeze",
    /// A function hangs until its time is up.
    Hang => "hang",
    /// A function takes seconds to start.
    SlowStart => "slow_start",
    /// A function's environment dies while it starts.
    FailedStart => "failed_start",
    /// An invocation is refused for its rate.
    InvokeThrottled => "invoke_throttled",
    /// An invocation fails.
    InvokeFailed => "invoke_failed",
    /// A function is invoked twice with one event, side by side.
    InvokeTwice => "invoke_twice",
    /// The call that hands a request over to the worker fails, or is not answered.
    HandOverFailed => "hand_over_failed",
    /// The event of an asynchronous invocation is lost in its queue.
    EventLost => "event_lost",
    /// A post finds its connection gone, though it is open.
    PostGone => "post_gone",
    /// A post is refused for its rate.
    PostThrottled => "post_throttled",
    /// A post fails with a 500.
    PostFailed => "post_failed",
    /// A post arrives and is not answered.
    PostUnanswered => "post_unanswered",
    /// A post takes seconds.
    SlowPost => "slow_post",
    /// A `$disconnect` never comes.
    DisconnectLost => "disconnect_lost",
    /// A message is not taken by its queue.
    QueueFailed => "queue_failed",
    /// A message is taken by its queue, which does not say so.
    QueueUnanswered => "queue_unanswered",
    /// An environment's clock is off by up to three seconds.
    ClockSkew => "clock_skew",
    /// A deploy: every environment is replaced by one of a new version, as soon as it has answered.
    Deploy => "deploy",
}
