//! The sweeper and the executor agree with the state machine [`step`]. For each state and each event that
//! they handle, they leave the request in the state that [`step`] returns, and execute the effect that
//! [`step`] returns.
//!
//! The tests compute each expected state and effect with [`step`] instead of listing them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::executor::{Executor, ExecutorSettings};
use streamer::handler::{Context, HandlerError, HandlerRuntime, RetryPolicy, handler_fn};
use streamer::ids::RequestKey;
use streamer::lifecycle::{Budget, Effect, Event, Hold, State, Step, step};
use streamer::ports::{Clock, SystemEntropy, Timestamp};
use streamer::store::dynamodb::DynamoRequestQueue;
use streamer::store::{Status, SubmitRequests as _, SweepRequests as _};
use streamer::sweeper::{Sweeper, SweeperSettings};
use streamer::worker::Worker;
use streamer::worker::dispatch::WorkerEvent;
use tokio::runtime::Handle;

use crate::lifecycle::{ALLOWED, RULES, specimen, state_of, states};
use crate::store::{Store, at};
use crate::world::{Clients, Letters, Metrics};

/// A clock that always shows the same time.
#[derive(Debug)]
struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Fakes that keep the frames and dead letters sent by the code under test.
#[derive(Default)]
struct Sent {
    /// Fake of the clients; keeps the frames sent to each connection.
    clients: Clients,
    /// Fake of the dead-letter queue; keeps the sent dead letters.
    letters: Letters,
}

impl Sent {
    /// Asserts that the sent frames and dead letters match `effect`. A delivery sends one terminal frame, and also one
    /// dead letter if `dead_letter` is true. Without a delivery, neither is sent.
    fn assert_matches(&self, effect: Option<Effect>, context: &str) {
        let frames = self.clients.frames("c1");
        let terminal_frames = frames.iter().filter(|frame| frame.is_terminal()).count();
        let (delivered, letters) = match effect {
            Some(Effect::Deliver { dead_letter }) => (1, usize::from(dead_letter)),
            Some(Effect::Nudge | Effect::Postpone(_)) | None => (0, 0),
        };
        assert_eq!((terminal_frames, self.letters.sent().len()), (delivered, letters), "{context}");
    }
}

#[tokio::test]
async fn sweeper_agrees_with_the_state_machine_for_each_state() {
    for state in states() {
        // The timer of a retrying request never fires before 100 s, when the next attempt is due.
        let moments: &[u64] = if state.status() == Status::Retrying { &[100, 110] } else { &[99, 109, 110] };
        for &seconds in moments {
            let (store, sent) = (Store::new().await, Sent::default());
            let key = specimen(&store, "r1", state).await.key;
            let now = at(seconds);
            let timer_at = store.seen(&key).await.timer_at.unwrap();
            if timer_at > now {
                assert!(store.queue.postpone(&key, timer_at, now).await.unwrap());
            }
            let Step { state: next, effect } = step(state, Event::TimerFired, now, &RULES);
            let context = format!("{state:?} at {seconds}: {next:?}, {effect:?}");
            let sweeper = Sweeper {
                queue: store.queue.clone(),
                connections: sent.clients.clone(),
                dead_letters: sent.letters.clone(),
                clock: Arc::new(Stopped(now)),
                metrics: Arc::new(Metrics::default()),
                // The sweep handles one due item and then ends.
                settings: SweeperSettings { most: 1, rules: RULES, ..SweeperSettings::default() },
            };
            let swept = sweeper.sweep(now + Duration::from_secs(30)).await;
            assert_eq!(swept.handled, 1, "{context}");
            assert_eq!(state_of(&store, &key).await, next, "{context}");
            sent.assert_matches(effect, &context);
            let timer_at = store.seen(&key).await.timer_at;
            match effect {
                Some(Effect::Nudge) => assert_eq!(swept.nudged, 1, "{context}"),
                Some(Effect::Postpone(until)) => {
                    assert_eq!((swept.held, timer_at), (1, Some(until)), "{context}");
                }
                Some(Effect::Deliver { .. }) => assert_eq!(swept.delivered, 1, "{context}"),
                None => assert_ne!(next, state, "{context}"),
            }
        }
    }
}

/// Handler body that makes its attempt end with `event`. If `is_cancelled` is true, it first requests the
/// cancel of its own request.
async fn handle(
    event: Event,
    is_cancelled: bool,
    queue: DynamoRequestQueue,
    key: RequestKey,
    context: Context,
) -> Result<Value, HandlerError> {
    if event == Event::Yielded {
        context.progress.checkpoint(1).await?;
    }
    if is_cancelled {
        queue.cancel(&key, at(50)).await.unwrap();
    }
    match event {
        Event::Succeeded => Ok(json!(1)),
        Event::Failed { next: Some(_) } => Err(HandlerError::retryable("BUSY", "The printer is busy")),
        Event::Failed { next: None } => Err(HandlerError::failure("OUT_OF_PAPER", "No paper")),
        Event::Yielded => Err(HandlerError::continue_later()),
        Event::Stopped => {
            context.progress.report(1.0, "Printing")?;
            context.progress.stopped().await;
            Err(HandlerError::failure("STOPPED", "Stopped"))
        }
        Event::Claimed { .. } | Event::CancelRequested | Event::TimerFired => {
            unreachable!("no attempt ends with {event:?}")
        }
    }
}

#[tokio::test]
async fn executor_agrees_with_the_state_machine_for_each_outcome_of_an_attempt() {
    let now = at(50);
    let later = Some(at(200));
    let events = [
        (Event::Succeeded, &[false, true][..]),
        (Event::Failed { next: later }, &[false, true]),
        (Event::Failed { next: None }, &[false, true]),
        (Event::Yielded, &[false, true]),
        (Event::Stopped, &[true]),
    ];
    for (used, continuations) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        for (event, cancelled) in events {
            for &is_cancelled in cancelled {
                let (store, sent) = (Store::new().await, Sent::default());
                let before = State::Pending(Budget { used, allowed: ALLOWED, continuations });
                let key = specimen(&store, "r1", before).await.key;
                let mut app = App::new();
                let (queue, of) = (store.queue.clone(), key.clone());
                let handler = handler_fn(move |_: Value, context| {
                    handle(event, is_cancelled, queue.clone(), of.clone(), context)
                });
                app.handle("report", handler.retry(RetryPolicy::attempts(ALLOWED))).unwrap();
                let executor = Executor {
                    app: Arc::new(app),
                    queue: store.queue.clone(),
                    connections: sent.clients.clone(),
                    dead_letters: sent.letters.clone(),
                    clock: Arc::new(Stopped(now)),
                    entropy: Arc::new(SystemEntropy::new()),
                    handler_runtime: HandlerRuntime::on(Handle::current()),
                    settings: ExecutorSettings {
                        store_interval: Duration::from_millis(10),
                        rules: RULES,
                        ..ExecutorSettings::default()
                    },
                };
                let deadline = now + Duration::from_mins(15);
                Worker::new(executor).run(&WorkerEvent::of(&key), deadline).await.unwrap();
                let found = state_of(&store, &key).await;
                // The retry delay is random, so the expectation uses the due time that the executor stored.
                let event = match (event, found) {
                    (Event::Failed { next: Some(_) }, State::Retrying(_, due)) => {
                        Event::Failed { next: Some(due) }
                    }
                    (event, _) => event,
                };
                let hold = Hold { until: now + Duration::from_mins(1), cancel_requested: is_cancelled };
                let held =
                    State::Processing(Budget { used: used + 1, allowed: ALLOWED, continuations }, hold);
                let Step { state: next, effect } = step(held, event, now, &RULES);
                let context = format!("{held:?}, {event:?}: {next:?}, {effect:?}");
                assert_eq!(found, next, "{context}");
                sent.assert_matches(effect, &context);
            }
        }
    }
}
