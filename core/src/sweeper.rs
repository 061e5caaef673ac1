//! What brings back whatever was lost: once a minute, through the timer index alone.
//!
//! Every open request, and every ended one that somebody still has to hear of, has one timer. A run looks at the timers
//! that fire until its next look, and sees to each request when its moment has come: a pending one that nobody has claimed
//! is made to appear in the stream again, one whose lease has ended is taken back, one whose next attempt is due is made
//! pending, and what has ended is told to whoever has not heard of it.
//!
//! Each write is conditional on how the request was seen. So two runs at once act once, and a run that is killed anywhere
//! leaves nothing that the next one does not find.

mod handle;
mod run;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Environment;
use crate::lifecycle::Rules;
use crate::ports::{Clock, Timestamp};
use crate::telemetry::{MetricLine, MetricSink};

/// How the sweeper works.
#[derive(Clone, Debug)]
pub struct SweeperSettings {
    /// How long a run lasts, from its begin to where the next one begins. Default 60 s.
    pub run: Duration,
    /// How often it looks for what falls due. Default 5 s.
    pub pace: Duration,
    /// How many requests are seen to at once; four times as many ends are told at once, since clients can be slow.
    /// Default 16.
    pub concurrency: usize,
    /// How many requests are seen to in a run. Default 10,000.
    pub most: usize,
    /// How long one frame may take to one client. Default 3 s.
    pub push_timeout: Duration,
    /// The rules that requests live by.
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
    /// Reads `SWEEPER_PACE_MS` and `MAX_CONTINUATIONS`, as [`lambda`](crate::lambda) has them.
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

/// Sees to the requests whose timers have fired.
#[derive(Debug)]
pub struct Sweeper<Q, P, D> {
    /// Where requests are kept.
    pub queue: Q,
    /// The way to the clients.
    pub connections: P,
    /// Where it is told what has failed for good.
    pub dead_letters: D,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where it is told what each run has done.
    pub metrics: Arc<dyn MetricSink>,
    /// How it works.
    pub settings: SweeperSettings,
}

/// What a run has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Swept {
    /// Requests that were seen to: the sum of all that follow but [`delivered`](Self::delivered), [`delivery_incomplete`](Self::delivery_incomplete) and
    /// [`failed_queries`](Self::failed_queries).
    pub handled: usize,
    /// Pending requests that nobody had claimed, and that appear in the stream once more.
    pub nudged: usize,
    /// Requests whose lease lives: they are looked at again when it has ended.
    pub held: usize,
    /// Requests whose next attempt was due, and that are pending.
    pub retried: usize,
    /// Requests whose process had died, and that the worker runs again.
    pub taken_back: usize,
    /// Requests that it has ended: their attempts were used up, or their end had been asked for.
    pub ended: usize,
    /// Requests that had ended before, and of whose end somebody had not heard.
    pub undelivered: usize,
    /// Requests that had moved on when their turn came.
    pub moved_on: usize,
    /// Requests that cannot be read or written to: they are looked at again in a quarter of an hour, and an operator must.
    pub unreadable: usize,
    /// Requests for which the store had no answer: the next look finds them again.
    pub failed: usize,
    /// Ends of which everybody has heard now.
    pub delivered: usize,
    /// Ends of which not everybody could be told yet.
    pub delivery_incomplete: usize,
    /// Looks that the store did not answer.
    pub failed_queries: usize,
    /// By how much the latest was seen to after its timer.
    pub lateness: Duration,
}

impl Swept {
    fn metrics(&self, at: Timestamp) -> MetricLine {
        let counts = [
            ("RequestsNudged", self.nudged),
            ("LeasesHeld", self.held),
            ("RetriesDue", self.retried),
            ("RequestsTakenBack", self.taken_back),
            ("RequestsEnded", self.ended),
            ("UndeliveredFound", self.undelivered),
            ("DeliveriesCompleted", self.delivered),
            ("DeliveriesIncomplete", self.delivery_incomplete),
            ("RequestsMovedOn", self.moved_on),
            ("RequestsUnreadable", self.unreadable),
            ("RequestsFailed", self.failed),
            ("DueQueriesFailed", self.failed_queries),
        ];
        let line = MetricLine::at(at).by("Function", "sweeper");
        let line = counts.into_iter().fold(line, |line, (name, count)| line.count(name, count as u64));
        line.duration("Lateness", self.lateness)
    }
}
