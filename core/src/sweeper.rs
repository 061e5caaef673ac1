//! The sweeper: a function that runs once a minute and handles requests whose timers have fired.
//!
//! Every open request has one timer. So does every terminal request whose terminal frame or dead letter is not
//! delivered yet. A sparse index, the timer index, lists the requests by these timers. A sweep queries that
//! index every few seconds, and handles each item when its timer fires:
//!
//! - It nudges a pending request that no function has claimed: it writes the request into the stream again.
//! - It reclaims a request whose lease has expired, so that the worker runs the request again.
//! - It makes a retrying request pending when the request's next attempt is due.
//! - It delivers the terminal frame to subscribers that do not have it, and sends a dead letter that is due.
//!
//! Each write is conditional on the state that the sweep has read. So of two concurrent sweeps only one acts,
//! and the next sweep finds all items that a killed sweep did not handle.

mod handle;
mod run;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Environment;
use crate::lifecycle::Rules;
use crate::ports::{Clock, Timestamp};
use crate::telemetry::{MetricLine, MetricSink};

/// Settings of the [`Sweeper`].
#[derive(Clone, Debug)]
pub struct SweeperSettings {
    /// Duration of one sweep, which equals the interval between the starts of two sweeps. Default 60 s.
    pub run: Duration,
    /// Interval between two queries of the timer index. Default 5 s.
    pub pace: Duration,
    /// Maximum number of due items that a sweep handles concurrently. Up to four times as many deliveries run
    /// concurrently, because clients can be slow. Default 16.
    pub concurrency: usize,
    /// Maximum number of due items that one sweep handles. Default 10,000.
    pub most: usize,
    /// Timeout for sending one frame to one client. Default 3 s.
    pub push_timeout: Duration,
    /// Limits of the request state machine, such as the maximum number of continuations.
    pub rules: Rules,
}

impl Default for SweeperSettings {
    fn default() -> Self {
        Self {
            run: Duration::from_secs(60),
            pace: Duration::from_secs(5),
            concurrency: 16,
            most: 10_000,
            push_timeout: Duration::from_secs(3),
            rules: Rules::default(),
        }
    }
}

impl SweeperSettings {
    /// Reads `SWEEPER_PACE_MS` and `MAX_CONTINUATIONS` from the environment; all other settings keep their
    /// defaults.
    ///
    /// See [`lambda`](crate::lambda) for the environment variables.
    #[must_use]
    pub fn from_env(environment: &mut Environment<'_>) -> Self {
        let defaults = Self::default();
        Self {
            pace: environment.milliseconds("SWEEPER_PACE_MS", defaults.pace, 1_000..=60_000),
            rules: Rules::from_env(environment),
            ..defaults
        }
    }
}

/// Handles the requests whose timers have fired.
#[derive(Debug)]
pub struct Sweeper<Q, P, D> {
    /// The request store, which holds the requests and their timers.
    pub queue: Q,
    /// The port that sends frames to clients.
    pub connections: P,
    /// The port that sends dead letters, which report requests that failed for good.
    pub dead_letters: D,
    /// The clock that gives the current time.
    pub clock: Arc<dyn Clock>,
    /// Receives the counts of each sweep as metrics.
    pub metrics: Arc<dyn MetricSink>,
    /// Settings of a sweep, such as its duration and its concurrency.
    pub settings: SweeperSettings,
}

/// Counts of one sweep.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Swept {
    /// Number of due items that the sweep has started to handle. Each finished item counts in one of the fields
    /// from [`nudged`](Self::nudged) to [`failed`](Self::failed) too.
    pub handled: usize,
    /// Number of pending, unclaimed requests that the sweep nudged (wrote into the stream again).
    pub nudged: usize,
    /// Number of requests whose timer the sweep postponed, because their lease has not expired or their retry
    /// is not due.
    pub held: usize,
    /// Number of requests that the sweep made pending because their next attempt was due.
    pub retried: usize,
    /// Number of requests that the sweep reclaimed because their lease had expired; the worker runs them again.
    pub reclaimed: usize,
    /// Number of requests that the sweep made terminal, because all attempts were used or a cancel was
    /// requested.
    pub ended: usize,
    /// Number of due items that were terminal requests with an undelivered terminal frame or an unsent dead
    /// letter.
    pub undelivered: usize,
    /// Number of due items that the sweep skipped because they had changed since they were read.
    pub changed: usize,
    /// Number of requests that cannot be read or written. Their timers are postponed by 15 minutes; an operator
    /// must fix the items.
    pub unreadable: usize,
    /// Number of due items that were not handled because the store failed or did not answer; a later query
    /// finds them again.
    pub failed: usize,
    /// Number of terminal requests whose delivery the sweep completed.
    pub delivered: usize,
    /// Number of terminal requests whose delivery the sweep tried and could not complete.
    pub delivery_incomplete: usize,
    /// Number of timer index queries that failed.
    pub failed_queries: usize,
    /// Longest delay in this sweep from the time at which an item was due to the start of its handling.
    pub max_timer_delay: Duration,
}

impl Swept {
    fn metrics(&self, at: Timestamp) -> MetricLine {
        let counts = [
            ("RequestsNudged", self.nudged),
            ("TimersPostponed", self.held),
            ("RetriesStarted", self.retried),
            ("RequestsReclaimed", self.reclaimed),
            ("RequestsMadeTerminal", self.ended),
            ("UndeliveredFound", self.undelivered),
            ("DeliveriesCompleted", self.delivered),
            ("DeliveriesIncomplete", self.delivery_incomplete),
            ("ChangedItemsSkipped", self.changed),
            ("RequestsUnreadable", self.unreadable),
            ("DueItemsFailed", self.failed),
            ("DueQueriesFailed", self.failed_queries),
        ];
        let line = MetricLine::at(at).by("Function", "sweeper");
        let line = counts.into_iter().fold(line, |line, (name, count)| line.count(name, count as u64));
        line.duration("MaxTimerDelay", self.max_timer_delay)
    }
}
