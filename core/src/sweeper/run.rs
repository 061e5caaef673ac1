//! One sweep: queries the timer index, handles due items and delivers terminal requests, all concurrently.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::handle::{DueItem, Handled, Undelivered};
use super::{Sweeper, Swept};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::Delivered;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::{Page, PageRequest, RequestQueue, RequestSummary, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

/// Time before the end of the invocation at which a sweep stops starting work.
const START_MARGIN: Duration = Duration::from_secs(5);
/// Time before the end of the invocation at which a sweep drops all unfinished work.
const DROP_MARGIN: Duration = Duration::from_secs(1);
/// Time that a sweep waits for unfinished work after it has stopped starting work.
const FINISH_TIME: Duration = Duration::from_secs(10);
/// Timeout for one page of a query, and for handling one due item.
const CALL_TIME: Duration = Duration::from_secs(10);
/// Time for which a sweep starts to handle no item after the store has throttled a call.
const PAUSE: Duration = Duration::from_millis(500);
/// Maximum number of concurrent deliveries, as a multiple of the sweep's concurrency setting.
const DELIVERIES_PER_ITEM: usize = 4;

type Listed = Result<Page<RequestSummary>, StoreError>;

/// A running query for one page of the timer index. Lists the timers that fire before `until`.
struct DueQuery<'a> {
    until: Timestamp,
    page: PageRequest,
    listing: BoxFuture<'a, Listed>,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Sweeper<Q, P, D> {
    /// Handles due items until the sweep's duration is over, or until shortly before the invocation ends at
    /// `deadline`.
    ///
    /// Errors are logged. A later query, or the next sweep, finds the affected items again.
    pub async fn sweep(&self, deadline: Timestamp) -> Swept {
        let swept = Run::new(self, deadline).finish().await;
        self.metrics.write(&swept.metrics(self.clock.now()));
        if swept.handled > 0 || swept.failed_queries > 0 {
            tracing::info!(
                handled = swept.handled,
                nudged = swept.nudged,
                postponed = swept.held,
                retried = swept.retried,
                reclaimed = swept.reclaimed,
                made_terminal = swept.ended,
                undelivered = swept.undelivered,
                delivered = swept.delivered,
                delivery_incomplete = swept.delivery_incomplete,
                changed = swept.changed,
                unreadable = swept.unreadable,
                failed = swept.failed,
                failed_queries = swept.failed_queries,
                "sweep finished"
            );
        }
        swept
    }
}

/// The state of one sweep.
struct Run<'a, Q, P, D> {
    sweeper: &'a Sweeper<Q, P, D>,
    swept: Swept,
    /// End of the sweep as wall-clock time. Timers that fire later are left to the next sweep.
    ends_at: Timestamp,
    /// End of the sweep as a monotonic instant.
    ends: Instant,
    /// Instant at which unfinished work is dropped.
    finish_by: Instant,
    query: Option<DueQuery<'a>>,
    next_query_at: Instant,
    /// Due items whose handling has not started, sorted by the time of their timer.
    waiting: BTreeMap<(Timestamp, RequestKey), DueItem>,
    handling: FuturesUnordered<BoxFuture<'a, (RequestKey, Handled)>>,
    /// Terminal requests whose delivery has not started.
    undelivered: VecDeque<Undelivered>,
    delivering: FuturesUnordered<BoxFuture<'a, (RequestKey, Option<Delivered>)>>,
    /// Keys of all due items that wait, are being handled, or are being delivered. A query adds no item whose
    /// key is in this set.
    in_hand: BTreeSet<RequestKey>,
    /// Current limit of concurrently handled items; lowered when the store throttles.
    concurrency: usize,
    /// No handling starts before this instant, because the store has throttled a call.
    paused_until: Instant,
}

/// An event that a sweep waits for.
enum SweepEvent {
    Handled(RequestKey, Handled),
    Delivered(RequestKey, Option<Delivered>),
    Listed(Listed),
    TimePassed,
}

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Run<'a, Q, P, D> {
    fn new(sweeper: &'a Sweeper<Q, P, D>, deadline: Timestamp) -> Self {
        let (now, started) = (sweeper.clock.now(), Instant::now());
        let time_left = deadline.since(now);
        let lasts = sweeper.settings.run.min(time_left.saturating_sub(START_MARGIN));
        let ends = started + lasts;
        Self {
            sweeper,
            swept: Swept::default(),
            ends_at: now + lasts,
            ends,
            finish_by: (ends + FINISH_TIME).min(started + time_left.saturating_sub(DROP_MARGIN)),
            query: None,
            next_query_at: started,
            waiting: BTreeMap::new(),
            handling: FuturesUnordered::new(),
            undelivered: VecDeque::new(),
            delivering: FuturesUnordered::new(),
            in_hand: BTreeSet::new(),
            concurrency: sweeper.settings.concurrency.max(1),
            paused_until: started,
        }
    }

    async fn finish(mut self) -> Swept {
        while Instant::now() < self.finish_by {
            if self.is_over() {
                self.query = None;
                if self.handling.is_empty() && self.delivering.is_empty() && self.undelivered.is_empty() {
                    break;
                }
            } else {
                self.begin_query();
                self.begin_handling();
            }
            self.begin_delivering();
            match self.next().await {
                SweepEvent::Handled(key, handled) => self.handled(key, handled),
                SweepEvent::Delivered(key, delivered) => self.delivered(&key, delivered),
                SweepEvent::Listed(listed) => self.listed(listed),
                SweepEvent::TimePassed => {}
            }
        }
        if self.swept.handled >= self.sweeper.settings.most {
            tracing::warn!(
                handled = self.swept.handled,
                "sweep limit reached; remaining items left to the next sweep"
            );
        }
        if !(self.handling.is_empty() && self.delivering.is_empty() && self.undelivered.is_empty()) {
            let unfinished = self.handling.len() + self.delivering.len() + self.undelivered.len();
            tracing::warn!(unfinished, "sweep timed out; unfinished items left to the next sweep");
        }
        self.swept
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.swept.handled >= self.sweeper.settings.most
    }

    /// Starts a query of the timer index if the next query is due and no query is running.
    fn begin_query(&mut self) {
        let now = Instant::now();
        if self.query.is_some() || now < self.next_query_at {
            return;
        }
        let pace = self.sweeper.settings.pace.max(Duration::from_millis(100));
        self.next_query_at = now + pace;
        let until = (self.sweeper.clock.now() + pace).min(self.ends_at);
        self.query = Some(self.query(until, PageRequest::first(PageRequest::MAX_LIMIT)));
    }

    fn query(&self, until: Timestamp, page: PageRequest) -> DueQuery<'a> {
        let (queue, requested) = (&self.sweeper.queue, page.clone());
        let listing = Box::pin(async move {
            timeout(CALL_TIME, queue.due(until, requested)).await.unwrap_or_else(|_| {
                let problem =
                    format!("the query for due items was not answered within {} s", CALL_TIME.as_secs());
                Err(StoreError::new(StoreErrorKind::Unavailable, problem))
            })
        });
        DueQuery { until, page, listing }
    }

    fn listed(&mut self, listed: Listed) {
        let Some(DueQuery { until, page, .. }) = self.query.take() else { return };
        let Page { items, unreadable, next } = match listed {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(error = %Causes(&error), "query for due items failed; next query retries");
                self.swept.failed_queries += 1;
                if error.kind() == StoreErrorKind::Throttled {
                    self.slow_down();
                }
                return;
            }
        };
        for seen in items {
            let timer_at = seen.timer_at.unwrap_or_default();
            self.wait_for(timer_at, seen.key(), DueItem::Request(Box::new(seen)));
        }
        for error in unreadable {
            match error.entry() {
                Some((key, timer_at)) => {
                    self.wait_for(
                        timer_at,
                        RequestKey::from_stored(key),
                        DueItem::Unreadable(timer_at, error),
                    );
                }
                None => {
                    tracing::error!(error = %Causes(&error), "unreadable entry in the timer index; skipped")
                }
            }
        }
        let is_enough = self.swept.handled + self.waiting.len() >= self.sweeper.settings.most;
        if let Some(cursor) = next.filter(|_| !is_enough) {
            self.query = Some(self.query(until, page.after(cursor)));
        }
    }

    fn wait_for(&mut self, timer_at: Timestamp, key: RequestKey, due: DueItem) {
        if self.in_hand.insert(key.clone()) {
            self.waiting.insert((timer_at, key), due);
        }
    }

    /// Starts to handle due items, up to the concurrency limit.
    fn begin_handling(&mut self) {
        if Instant::now() < self.paused_until {
            return;
        }
        let now = self.sweeper.clock.now();
        while self.handling.len() < self.concurrency && self.swept.handled < self.sweeper.settings.most {
            let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) else { return };
            let ((timer_at, key), due) = first.remove_entry();
            self.swept.handled += 1;
            self.swept.max_timer_delay = self.swept.max_timer_delay.max(now.since(timer_at));
            let sweeper = self.sweeper;
            self.handling.push(Box::pin(async move {
                let handled = timeout(CALL_TIME, sweeper.handle(&key, &due)).await;
                let handled = handled.unwrap_or_else(|_| {
                    tracing::error!(request = %key, "handling the due item timed out; next query retries");
                    Handled::Failed(StoreErrorKind::Unavailable)
                });
                (key, handled)
            }));
        }
    }

    fn handled(&mut self, key: RequestKey, handled: Handled) {
        let swept = &mut self.swept;
        match handled {
            Handled::Failed(kind) => {
                swept.failed += 1;
                if kind == StoreErrorKind::Throttled {
                    self.slow_down();
                }
                self.in_hand.remove(&key);
                return;
            }
            // This sweep delivers the terminal frame, so the key stays in `in_hand`.
            Handled::Ended(undelivered) => {
                swept.ended += 1;
                self.undelivered.push_back(undelivered);
            }
            Handled::Undelivered(undelivered) => {
                swept.undelivered += 1;
                self.undelivered.push_back(undelivered);
            }
            Handled::Nudged => self.count(&key, |swept| &mut swept.nudged),
            Handled::Held => self.count(&key, |swept| &mut swept.held),
            Handled::Retried => self.count(&key, |swept| &mut swept.retried),
            Handled::Reclaimed => self.count(&key, |swept| &mut swept.reclaimed),
            Handled::Changed => self.count(&key, |swept| &mut swept.changed),
            Handled::Unreadable => self.count(&key, |swept| &mut swept.unreadable),
        }
        self.concurrency = (self.concurrency + 1).min(self.sweeper.settings.concurrency.max(1));
    }

    /// Adds one to the count that `field` selects, and removes the handled item's key from `in_hand`.
    fn count(&mut self, key: &RequestKey, field: impl Fn(&mut Swept) -> &mut usize) {
        *field(&mut self.swept) += 1;
        self.in_hand.remove(key);
    }

    /// Halves the concurrency limit and pauses handling, because the store throttles.
    fn slow_down(&mut self) {
        self.concurrency = (self.concurrency / 2).max(1);
        self.paused_until = Instant::now() + PAUSE;
    }

    /// Starts deliveries, which have a separate concurrency limit. So a slow client may delay other deliveries,
    /// but not the handling of due items.
    fn begin_delivering(&mut self) {
        let limit = self.sweeper.settings.concurrency.max(1) * DELIVERIES_PER_ITEM;
        while self.delivering.len() < limit {
            let Some(undelivered) = self.undelivered.pop_front() else { return };
            let (sweeper, until) = (self.sweeper, self.finish_by);
            self.delivering.push(Box::pin(async move {
                let delivered = sweeper.deliver(&undelivered, until).await;
                (undelivered.key, delivered)
            }));
        }
    }

    fn delivered(&mut self, key: &RequestKey, delivered: Option<Delivered>) {
        match delivered {
            Some(Delivered::Fully) => self.swept.delivered += 1,
            Some(Delivered::Partly) => self.swept.delivery_incomplete += 1,
            None => {}
        }
        self.in_hand.remove(key);
    }

    /// Waits for the next event. Event sources are polled in a fixed order, so that a simulated run is
    /// reproducible.
    async fn next(&mut self) -> SweepEvent {
        let wake = self.wakes_at();
        let Self { handling, delivering, query, .. } = self;
        let listing = async {
            match query {
                Some(query) => (&mut query.listing).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((key, handled)) = handling.next() => SweepEvent::Handled(key, handled),
            listed = listing => SweepEvent::Listed(listed),
            Some((key, delivered)) = delivering.next() => SweepEvent::Delivered(key, delivered),
            () = sleep_until(wake) => SweepEvent::TimePassed,
        }
    }

    /// Returns the instant at which the sweep must start or stop work even if no event occurs earlier.
    fn wakes_at(&self) -> Instant {
        let now = Instant::now();
        if self.is_over() {
            return self.finish_by;
        }
        let mut wakes = self.ends.min(self.finish_by);
        if self.query.is_none() {
            wakes = wakes.min(self.next_query_at);
        }
        if self.handling.len() < self.concurrency
            && let Some(((timer_at, _), _)) = self.waiting.first_key_value()
        {
            let due = now + timer_at.since(self.sweeper.clock.now());
            wakes = wakes.min(due.max(self.paused_until));
        }
        wakes
    }
}
