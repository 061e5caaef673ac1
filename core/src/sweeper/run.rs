//! One run: looks at what falls due, and acts on it, side by side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::act::{Acted, Due, Untold};
use super::{Sweeper, Swept};
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::delivery::Settled;
use crate::ids::RequestKey;
use crate::ports::Timestamp;
use crate::store::{Page, PageRequest, RequestQueue, RequestSummary, StoreError, StoreErrorKind};
use crate::telemetry::Causes;

/// How long before its invocation's end a run begins nothing more.
const MARGIN: Duration = Duration::from_secs(5);
/// How long before its invocation's end it has let go of everything.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// How long after its end a run waits for what it has begun.
const FINISH_TIME: Duration = Duration::from_secs(10);
/// How long a page, or what is done about a request, may take.
const CALL_TIME: Duration = Duration::from_secs(10);
/// How long nothing is begun once the store has said that it is asked too much.
const PAUSE: Duration = Duration::from_millis(500);
/// How many more ends are told at once than requests are written to.
const TELLING_SHARE: usize = 4;

type Listed = Result<Page<RequestSummary>, StoreError>;

/// A look at what falls due until a moment, at one of its pages.
struct Look<'a> {
    until: Timestamp,
    page: PageRequest,
    listing: BoxFuture<'a, Listed>,
}

pub(super) struct Run<'a, Q, P, D> {
    sweeper: &'a Sweeper<Q, P, D>,
    swept: Swept,
    /// When the next run begins: what falls due later is its.
    ends_at: Timestamp,
    ends: Instant,
    /// Until when what was begun may go on.
    finish_by: Instant,
    look: Option<Look<'a>>,
    next_look: Instant,
    /// What is to be done, by its time.
    waiting: BTreeMap<(Timestamp, RequestKey), Due>,
    acting: FuturesUnordered<BoxFuture<'a, (RequestKey, Acted)>>,
    untold: VecDeque<Untold>,
    telling: FuturesUnordered<BoxFuture<'a, (RequestKey, Option<Settled>)>>,
    /// All that waits, is acted on, or is told.
    in_hand: BTreeSet<RequestKey>,
    /// How many may be acted on at once: fewer where the store is asked too much.
    at_once: usize,
    paused_until: Instant,
}

/// What a run waits for.
enum Happened {
    Acted(RequestKey, Acted),
    Told(RequestKey, Option<Settled>),
    Listed(Listed),
    TimePassed,
}

impl<'a, Q: RequestQueue, P: Connections, D: DeadLetters> Run<'a, Q, P, D> {
    pub(super) fn new(sweeper: &'a Sweeper<Q, P, D>, deadline: Timestamp) -> Self {
        let (now, begins) = (sweeper.clock.now(), Instant::now());
        let time_left = deadline.since(now);
        let lasts = sweeper.settings.run.min(time_left.saturating_sub(MARGIN));
        let ends = begins + lasts;
        Self {
            sweeper,
            swept: Swept::default(),
            ends_at: now + lasts,
            ends,
            finish_by: (ends + FINISH_TIME).min(begins + time_left.saturating_sub(LAST_MOMENT)),
            look: None,
            next_look: begins,
            waiting: BTreeMap::new(),
            acting: FuturesUnordered::new(),
            untold: VecDeque::new(),
            telling: FuturesUnordered::new(),
            in_hand: BTreeSet::new(),
            at_once: sweeper.settings.concurrency.max(1),
            paused_until: begins,
        }
    }

    pub(super) async fn finish(mut self) -> Swept {
        while Instant::now() < self.finish_by {
            if self.is_over() {
                self.look = None;
                if self.acting.is_empty() && self.telling.is_empty() && self.untold.is_empty() {
                    break;
                }
            } else {
                self.begin_look();
                self.begin_acting();
            }
            self.begin_telling();
            match self.next().await {
                Happened::Acted(key, acted) => self.acted(key, acted),
                Happened::Told(key, settled) => self.told(&key, settled),
                Happened::Listed(listed) => self.listed(listed),
                Happened::TimePassed => {}
            }
        }
        if self.swept.seen_to >= self.sweeper.settings.most {
            tracing::warn!(
                seen_to = self.swept.seen_to,
                "this run has done its part: the rest is left to the next"
            );
        }
        if !(self.acting.is_empty() && self.telling.is_empty() && self.untold.is_empty()) {
            let in_hand = self.acting.len() + self.telling.len() + self.untold.len();
            tracing::warn!(in_hand, "not all is done that this run has begun: it is left to the next");
        }
        self.swept
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.swept.seen_to >= self.sweeper.settings.most
    }

    /// Begins a look when it is time for one and none is under way.
    fn begin_look(&mut self) {
        let now = Instant::now();
        if self.look.is_some() || now < self.next_look {
            return;
        }
        let pace = self.sweeper.settings.pace.max(Duration::from_millis(100));
        self.next_look = now + pace;
        let until = (self.sweeper.clock.now() + pace).min(self.ends_at);
        self.look = Some(self.look_at(until, PageRequest::first(PageRequest::MAX_LIMIT)));
    }

    fn look_at(&self, until: Timestamp, page: PageRequest) -> Look<'a> {
        let (queue, asked) = (&self.sweeper.queue, page.clone());
        let listing = Box::pin(async move {
            timeout(CALL_TIME, queue.due(until, asked)).await.unwrap_or_else(|_| {
                let problem = format!("list what is due: no answer within {} s", CALL_TIME.as_secs());
                Err(StoreError::new(StoreErrorKind::Unavailable, problem))
            })
        });
        Look { until, page, listing }
    }

    fn listed(&mut self, listed: Listed) {
        let Some(Look { until, page, .. }) = self.look.take() else { return };
        let Page { items, unreadable, next } = match listed {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(error = %Causes(&error), "what is due could not be listed: the next look tries again");
                self.swept.failed_looks += 1;
                if error.kind() == StoreErrorKind::Throttled {
                    self.slow_down();
                }
                return;
            }
        };
        for seen in items {
            let timer_at = seen.timer_at.unwrap_or_default();
            self.wait_for(timer_at, seen.key(), Due::Request(Box::new(seen)));
        }
        for error in unreadable {
            match error.entry() {
                Some((key, timer_at)) => {
                    self.wait_for(timer_at, RequestKey::from_stored(key), Due::Unreadable(timer_at, error));
                }
                None => tracing::error!(error = %Causes(&error), "something is due, and cannot be read"),
            }
        }
        let is_enough = self.swept.seen_to + self.waiting.len() >= self.sweeper.settings.most;
        if let Some(cursor) = next.filter(|_| !is_enough) {
            self.look = Some(self.look_at(until, page.after(cursor)));
        }
    }

    fn wait_for(&mut self, timer_at: Timestamp, key: RequestKey, due: Due) {
        if self.in_hand.insert(key.clone()) {
            self.waiting.insert((timer_at, key), due);
        }
    }

    /// Begins to act on what is due, as far as that may be done at once.
    fn begin_acting(&mut self) {
        if Instant::now() < self.paused_until {
            return;
        }
        let now = self.sweeper.clock.now();
        while self.acting.len() < self.at_once && self.swept.seen_to < self.sweeper.settings.most {
            let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) else { return };
            let ((timer_at, key), due) = first.remove_entry();
            self.swept.seen_to += 1;
            self.swept.latest = self.swept.latest.max(now.since(timer_at));
            let sweeper = self.sweeper;
            self.acting.push(Box::pin(async move {
                let acted = timeout(CALL_TIME, sweeper.see_to(&key, &due)).await;
                let acted = acted.unwrap_or_else(|_| {
                    tracing::error!(request = %key, "the store has not answered: the next look finds it again");
                    Acted::Failed(StoreErrorKind::Unavailable)
                });
                (key, acted)
            }));
        }
    }

    fn acted(&mut self, key: RequestKey, acted: Acted) {
        let swept = &mut self.swept;
        match acted {
            Acted::Failed(kind) => {
                swept.failed += 1;
                if kind == StoreErrorKind::Throttled {
                    self.slow_down();
                }
                self.in_hand.remove(&key);
                return;
            }
            // It is told by this run, and stays in hand.
            Acted::Ended(untold) => {
                swept.ended += 1;
                self.untold.push_back(untold);
            }
            Acted::Untold(untold) => {
                swept.untold += 1;
                self.untold.push_back(untold);
            }
            Acted::Nudged => self.done_with(&key, |swept| &mut swept.nudged),
            Acted::Held => self.done_with(&key, |swept| &mut swept.held),
            Acted::Retried => self.done_with(&key, |swept| &mut swept.retried),
            Acted::TakenBack => self.done_with(&key, |swept| &mut swept.taken_back),
            Acted::MovedOn => self.done_with(&key, |swept| &mut swept.moved_on),
            Acted::Unreadable => self.done_with(&key, |swept| &mut swept.unreadable),
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
    fn begin_telling(&mut self) {
        let at_once = self.sweeper.settings.concurrency.max(1) * TELLING_SHARE;
        while self.telling.len() < at_once {
            let Some(untold) = self.untold.pop_front() else { return };
            let (sweeper, until) = (self.sweeper, self.finish_by);
            self.telling.push(Box::pin(async move {
                let settled = sweeper.tell(&untold, until).await;
                (untold.key, settled)
            }));
        }
    }

    fn told(&mut self, key: &RequestKey, settled: Option<Settled>) {
        match settled {
            Some(Settled::Fully) => self.swept.settled += 1,
            Some(Settled::Owed) => self.swept.owed += 1,
            None => {}
        }
        self.in_hand.remove(key);
    }

    /// Waits until something happens. Always in the same order, so that a simulated run comes out the same each time.
    async fn next(&mut self) -> Happened {
        let wake = self.wakes_at();
        let Self { acting, telling, look, .. } = self;
        let listing = async {
            match look {
                Some(look) => (&mut look.listing).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((key, acted)) = acting.next() => Happened::Acted(key, acted),
            listed = listing => Happened::Listed(listed),
            Some((key, settled)) = telling.next() => Happened::Told(key, settled),
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
        if self.look.is_none() {
            wakes = wakes.min(self.next_look);
        }
        if self.acting.len() < self.at_once
            && let Some(((timer_at, _), _)) = self.waiting.first_key_value()
        {
            let due = now + timer_at.since(self.sweeper.clock.now());
            wakes = wakes.min(due.max(self.paused_until));
        }
        wakes
    }
}
