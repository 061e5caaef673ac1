//! One run: looks at what falls due, and acts on it, side by side.

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

/// How long before its invocation's end a run begins nothing more.
const MARGIN: Duration = Duration::from_secs(5);
/// How long before its invocation's end it has let go of everything.
const LET_GO: Duration = Duration::from_secs(1);
/// How long after its end a run waits for what it has begun.
const FINISH_TIME: Duration = Duration::from_secs(10);
/// How long a page, or what is done about a request, may take.
const CALL_TIME: Duration = Duration::from_secs(10);
/// How long nothing is begun once the store has said that it is asked too much.
const PAUSE: Duration = Duration::from_millis(500);
/// How many more ends are told at once than requests are written to.
const DELIVERIES_PER_WRITE: usize = 4;

type Listed = Result<Page<RequestSummary>, StoreError>;

/// A look at what falls due until a moment, at one of its pages.
struct DueQuery<'a> {
    until: Timestamp,
    page: PageRequest,
    listing: BoxFuture<'a, Listed>,
}

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Sweeper<Q, P, D> {
    /// Sees to whatever falls due until the run is over, or `deadline` is near, when the invocation ends.
    ///
    /// Whatever goes wrong is logged, and found again by the next look, or the next run.
    pub async fn sweep(&self, deadline: Timestamp) -> Swept {
        let swept = Run::new(self, deadline).finish().await;
        self.metrics.write(&swept.metrics(self.clock.now()));
        if swept.handled > 0 || swept.failed_queries > 0 {
            tracing::info!(
                handled = swept.handled,
                nudged = swept.nudged,
                held = swept.held,
                retried = swept.retried,
                taken_back = swept.taken_back,
                ended = swept.ended,
                undelivered = swept.undelivered,
                delivered = swept.delivered,
                delivery_incomplete = swept.delivery_incomplete,
                moved_on = swept.moved_on,
                unreadable = swept.unreadable,
                failed = swept.failed,
                failed_queries = swept.failed_queries,
                "swept"
            );
        }
        swept
    }
}

struct Run<'a, Q, P, D> {
    sweeper: &'a Sweeper<Q, P, D>,
    swept: Swept,
    /// When the next run begins: what falls due later is its.
    ends_at: Timestamp,
    ends: Instant,
    /// Until when what was begun may go on.
    finish_by: Instant,
    query: Option<DueQuery<'a>>,
    next_query_at: Instant,
    /// What is to be done, by its time.
    waiting: BTreeMap<(Timestamp, RequestKey), DueItem>,
    handling: FuturesUnordered<BoxFuture<'a, (RequestKey, Handled)>>,
    undelivered: VecDeque<Undelivered>,
    delivering: FuturesUnordered<BoxFuture<'a, (RequestKey, Option<Delivered>)>>,
    /// All that waits, is handled on, or is told.
    in_hand: BTreeSet<RequestKey>,
    /// How many may be handled on at once: fewer where the store is asked too much.
    at_once: usize,
    paused_until: Instant,
}

/// What a run waits for.
enum Happened {
    Handled(RequestKey, Handled),
    Delivered(RequestKey, Option<Delivered>),
    Listed(Listed),
    TimePassed,
}

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Run<'a, Q, P, D> {
    fn new(sweeper: &'a Sweeper<Q, P, D>, deadline: Timestamp) -> Self {
        let (now, begins) = (sweeper.clock.now(), Instant::now());
        let time_left = deadline.since(now);
        let lasts = sweeper.settings.run.min(time_left.saturating_sub(MARGIN));
        let ends = begins + lasts;
        Self {
            sweeper,
            swept: Swept::default(),
            ends_at: now + lasts,
            ends,
            finish_by: (ends + FINISH_TIME).min(begins + time_left.saturating_sub(LET_GO)),
            query: None,
            next_query_at: begins,
            waiting: BTreeMap::new(),
            handling: FuturesUnordered::new(),
            undelivered: VecDeque::new(),
            delivering: FuturesUnordered::new(),
            in_hand: BTreeSet::new(),
            at_once: sweeper.settings.concurrency.max(1),
            paused_until: begins,
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
                Happened::Handled(key, handled) => self.handled(key, handled),
                Happened::Delivered(key, delivered) => self.delivered(&key, delivered),
                Happened::Listed(listed) => self.listed(listed),
                Happened::TimePassed => {}
            }
        }
        if self.swept.handled >= self.sweeper.settings.most {
            tracing::warn!(
                handled = self.swept.handled,
                "this run has done its part: the rest is left to the next"
            );
        }
        if !(self.handling.is_empty() && self.delivering.is_empty() && self.undelivered.is_empty()) {
            let in_hand = self.handling.len() + self.delivering.len() + self.undelivered.len();
            tracing::warn!(in_hand, "not all is done that this run has begun: it is left to the next");
        }
        self.swept
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.swept.handled >= self.sweeper.settings.most
    }

    /// Begins a look when it is time for one and none is under way.
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
        let (queue, asked) = (&self.sweeper.queue, page.clone());
        let listing = Box::pin(async move {
            timeout(CALL_TIME, queue.due(until, asked)).await.unwrap_or_else(|_| {
                let problem = format!("list what is due: no answer within {} s", CALL_TIME.as_secs());
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
                tracing::error!(error = %Causes(&error), "what is due could not be listed: the next look tries again");
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
                None => tracing::error!(error = %Causes(&error), "something is due, and cannot be read"),
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

    /// Begins to act on what is due, as far as that may be done at once.
    fn begin_handling(&mut self) {
        if Instant::now() < self.paused_until {
            return;
        }
        let now = self.sweeper.clock.now();
        while self.handling.len() < self.at_once && self.swept.handled < self.sweeper.settings.most {
            let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) else { return };
            let ((timer_at, key), due) = first.remove_entry();
            self.swept.handled += 1;
            self.swept.lateness = self.swept.lateness.max(now.since(timer_at));
            let sweeper = self.sweeper;
            self.handling.push(Box::pin(async move {
                let handled = timeout(CALL_TIME, sweeper.handle(&key, &due)).await;
                let handled = handled.unwrap_or_else(|_| {
                    tracing::error!(request = %key, "the store has not answered: the next look finds it again");
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
            // It is told by this run, and stays in hand.
            Handled::Ended(undelivered) => {
                swept.ended += 1;
                self.undelivered.push_back(undelivered);
            }
            Handled::Undelivered(undelivered) => {
                swept.undelivered += 1;
                self.undelivered.push_back(undelivered);
            }
            Handled::Nudged => self.done_with(&key, |swept| &mut swept.nudged),
            Handled::Held => self.done_with(&key, |swept| &mut swept.held),
            Handled::Retried => self.done_with(&key, |swept| &mut swept.retried),
            Handled::TakenBack => self.done_with(&key, |swept| &mut swept.taken_back),
            Handled::MovedOn => self.done_with(&key, |swept| &mut swept.moved_on),
            Handled::Unreadable => self.done_with(&key, |swept| &mut swept.unreadable),
        }
        self.at_once = (self.at_once + 1).min(self.sweeper.settings.concurrency.max(1));
    }

    fn done_with(&mut self, key: &RequestKey, count: impl Fn(&mut Swept) -> &mut usize) {
        *count(&mut self.swept) += 1;
        self.in_hand.remove(key);
    }

    /// Asks less of a store that is asked too much.
    fn slow_down(&mut self) {
        self.at_once = (self.at_once / 2).max(1);
        self.paused_until = Instant::now() + PAUSE;
    }

    /// Begins to tell ends, apart from what is written: a client that is slow delays nothing but other ends.
    fn begin_delivering(&mut self) {
        let at_once = self.sweeper.settings.concurrency.max(1) * DELIVERIES_PER_WRITE;
        while self.delivering.len() < at_once {
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

    /// Waits until something happens. Always in the same order, so that a simulated run comes out the same each time.
    async fn next(&mut self) -> Happened {
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
            Some((key, handled)) = handling.next() => Happened::Handled(key, handled),
            listed = listing => Happened::Listed(listed),
            Some((key, delivered)) = delivering.next() => Happened::Delivered(key, delivered),
            () = sleep_until(wake) => Happened::TimePassed,
        }
    }

    /// When something is to be begun, or ended, whatever happens until then.
    fn wakes_at(&self) -> Instant {
        let now = Instant::now();
        if self.is_over() {
            return self.finish_by;
        }
        let mut wakes = self.ends.min(self.finish_by);
        if self.query.is_none() {
            wakes = wakes.min(self.next_query_at);
        }
        if self.handling.len() < self.at_once
            && let Some(((timer_at, _), _)) = self.waiting.first_key_value()
        {
            let due = now + timer_at.since(self.sweeper.clock.now());
            wakes = wakes.min(due.max(self.paused_until));
        }
        wakes
    }
}
