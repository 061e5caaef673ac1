//! The store agrees with the state machine [`step`]. For each state and each event, the store operation of
//! the event leaves the request in the state that [`step`] returns. If [`step`] returns an unchanged state
//! without an effect, the store refuses the operation.

use std::collections::BTreeSet;

use serde_json::json;
use streamer::ids::RequestKey;
use streamer::lifecycle::{Budget, Effect, Event, Hold, Rules, State, Step, step};
use streamer::ports::Timestamp;
use streamer::store::{
    Cancelled, ClaimRequests as _, Claimed, Lease, NewStatus, PastAttempt, ReclaimVerdict, Request,
    RunRequests as _, Runner, Status, StoreErrorKind, SubmitRequests as _, SweepRequests as _,
};

use crate::store::{LEASE, Store, at, last, out_of_paper, past, request};

/// Prefix of the owner tokens that [`specimen`] uses to claim a request.
const FIRST: &str = "first";
/// Maximum number of attempts of a test request. It is two, so that the tests cover a last attempt and an
/// attempt that is not the last.
pub(crate) const ALLOWED: u32 = 2;
/// Rules of the state machine in these tests. They allow one continuation, so that the tests cover an allowed
/// yield and a yield above the maximum.
pub(crate) const RULES: Rules = Rules { max_continuations: 1 };

/// A stored request in a given state.
pub(crate) struct Specimen {
    /// Key of the request.
    pub(crate) key: RequestKey,
    /// Lease of the request's last claim; `None` if the request is pending. If the request is retrying or terminal,
    /// the owner token is replaced, so that the store refuses writes under this lease.
    lease: Option<Lease>,
}

/// Writes a retry of the request whose next attempt is due at `due` seconds.
async fn retry(store: &Store, key: &RequestKey, lease: &Lease, due: u64) {
    let (last, runner) = (last(lease.epoch, due - 5), Runner::Processor);
    store.queue.retry_later(key, lease, &[], at(due), runner, &last).await.unwrap();
}

/// Enqueues a request and brings it into `state` by operations of the request queue. The lease of a
/// processing request expires at 100 s. The next attempt of a retrying request is due at 100 s.
pub(crate) async fn specimen(store: &Store, id: &str, state: State) -> Specimen {
    let request = Request { max_attempts: ALLOWED, ..request(id) };
    store.queue.enqueue(&request).await.unwrap();
    let key = request.key();
    let claim = async |seconds: u64| {
        let until = if seconds == 40 { at(100) } else { at(seconds) + LEASE };
        let owner = format!("{FIRST} at {seconds}");
        let claimed = store.queue.claim(&key, &owner, Runner::Worker, at(seconds), until).await.unwrap();
        let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
        lease
    };
    let advance = async |budget: Budget, claims: u32| {
        for n in 0..budget.continuations {
            let lease = claim(u64::from(n)).await;
            store.queue.continue_later(&key, &lease, &last(lease.epoch, 1)).await.unwrap();
        }
        for n in 0..claims {
            let lease = claim(10 * u64::from(n) + 10).await;
            retry(store, &key, &lease, 10 * u64::from(n) + 18).await;
        }
    };
    let mut lease = None;
    match state {
        State::Pending(budget) => {
            advance(budget, budget.used).await;
            if budget.used > 0 {
                store.queue.update_status(&key, Status::Retrying, NewStatus::Pending, at(40)).await.unwrap();
            }
        }
        State::Processing(budget, hold) => {
            advance(budget, budget.used - 1).await;
            lease = Some(claim(40).await);
            if hold.cancel_requested {
                assert_eq!(store.queue.cancel(&key, at(41)).await.unwrap(), Cancelled::Requested);
            }
        }
        State::Retrying(budget, _) => {
            advance(budget, budget.used - 1).await;
            let held = claim(40).await;
            retry(store, &key, &held, 100).await;
            lease = Some(held);
        }
        State::Completed | State::Failed | State::Cancelled => {
            let held = claim(40).await;
            let last = last(1, 50);
            match state.status() {
                Status::Completed => store.queue.complete(&key, &held, &json!(1), &last).await.map(drop),
                Status::Failed => {
                    store.queue.fail(&key, &held, &out_of_paper(), &[past(1, 50)], &last).await.map(drop)
                }
                Status::Pending | Status::Processing | Status::Retrying | Status::Cancelled => {
                    store.queue.confirm_cancel(&key, &held, &last).await.map(drop)
                }
            }
            .unwrap();
            lease = Some(held);
        }
    }
    assert_eq!(state_of(store, &key).await, state, "{id}");
    if state.status() != Status::Processing {
        // Replace the owner token, because the store accepts a repeated write by the owner of the first write.
        lease = lease.map(|lease| Lease { owner: "another".to_owned(), ..lease });
    }
    Specimen { key, lease }
}

/// Returns the state of the stored request, as the state machine defines it.
pub(crate) async fn state_of(store: &Store, key: &RequestKey) -> State {
    State::from(&store.seen(key).await)
}

/// Calls the store operation for `event`. If several operations fit the event, calls the one that leads to the state
/// in `next`. Returns true if the store applied the operation, and false if the store refused the operation.
async fn apply(store: &Store, specimen: &Specimen, event: Event, now: Timestamp, next: &Step) -> bool {
    let (queue, key) = (&store.queue, &specimen.key);
    let seen = store.seen(key).await;
    let held = specimen.lease.clone().unwrap_or_else(|| Lease {
        epoch: 0,
        owner: FIRST.to_owned(),
        expires_at: at(100),
    });
    let last = streamer::store::LastReport { at: now, ..last(held.epoch, 0) };
    let history: Vec<PastAttempt> = Vec::new();
    let written = match event {
        Event::Claimed { until } => {
            let claimed = queue.claim(key, "second", Runner::Worker, now, until).await.unwrap();
            return matches!(claimed, Claimed::Won(..));
        }
        Event::CancelRequested => {
            return match queue.cancel(key, now).await.unwrap() {
                Cancelled::Now { .. } => true,
                // The answer to a repeated cancel request is `Requested` as well, but the request does not change.
                Cancelled::Requested => !seen.cancel_requested,
                Cancelled::HasOtherSubscribers | Cancelled::Ended(_) => false,
            };
        }
        Event::Succeeded => queue.complete(key, &held, &json!(1), &last).await,
        Event::Stopped => queue.confirm_cancel(key, &held, &last).await,
        Event::Failed { .. } | Event::Yielded => match (&next.state, event) {
            (State::Retrying(_, due), _) => {
                queue.retry_later(key, &held, &history, *due, Runner::Processor, &last).await
            }
            (State::Pending(_), _) if seen.status == Status::Processing => {
                queue.continue_later(key, &held, &last).await
            }
            (State::Failed, _) if seen.status == Status::Processing => {
                queue.fail(key, &held, &out_of_paper(), &history, &last).await
            }
            // The attempt has not read the cancel request. The store refuses the attempt's write, and the
            // attempt confirms the cancel.
            (State::Cancelled, Event::Yielded) if seen.status == Status::Processing => {
                let refused = queue.continue_later(key, &held, &last).await.unwrap_err();
                assert_eq!(refused.kind(), StoreErrorKind::ConditionLost);
                queue.confirm_cancel(key, &held, &last).await
            }
            (State::Cancelled, Event::Failed { next: None }) if seen.status == Status::Processing => {
                let refused = queue.fail(key, &held, &out_of_paper(), &history, &last).await;
                assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::ConditionLost);
                queue.confirm_cancel(key, &held, &last).await
            }
            (State::Cancelled, _) if seen.status == Status::Processing => {
                let runner = Runner::Processor;
                let refused = queue.retry_later(key, &held, &history, at(200), runner, &last).await;
                assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::ConditionLost);
                queue.confirm_cancel(key, &held, &last).await
            }
            // The attempt no longer holds the lease, so the store refuses its write.
            (_, Event::Yielded) => queue.continue_later(key, &held, &last).await,
            _ => queue.fail(key, &held, &out_of_paper(), &history, &last).await,
        },
        Event::TimerFired => {
            if let Some(Effect::Postpone(until)) = next.effect {
                return queue.postpone(key, seen.timer_at.unwrap(), until).await.unwrap();
            }
            return match (seen.status, &next.state) {
                (Status::Pending, _) => queue.nudge(&seen, now).await.unwrap(),
                (Status::Processing, after) => {
                    let verdict = match after {
                        State::Pending(_) => ReclaimVerdict::Rerun,
                        State::Failed => ReclaimVerdict::Failed(out_of_paper()),
                        State::Cancelled => ReclaimVerdict::Cancelled,
                        State::Processing(..) | State::Retrying(..) | State::Completed => panic!("{after:?}"),
                    };
                    queue.reclaim(&seen, &verdict, &history, now).await.unwrap()
                }
                (Status::Retrying, after) => {
                    let to = match after {
                        State::Pending(_) => NewStatus::Pending,
                        State::Failed => NewStatus::Failed(out_of_paper()),
                        State::Cancelled => NewStatus::Cancelled,
                        State::Processing(..) | State::Retrying(..) | State::Completed => panic!("{after:?}"),
                    };
                    queue.update_status(key, Status::Retrying, to, now).await.is_ok()
                }
                (Status::Completed | Status::Failed | Status::Cancelled, _) => {
                    queue.postpone(key, seen.timer_at.unwrap(), now + LEASE).await.unwrap()
                }
            };
        }
    };
    match written {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Fenced, "{event:?}: {error}");
            false
        }
    }
}

/// Returns the states that a request with [`ALLOWED`] attempts can have under [`RULES`]. Each lease expires, and
/// each next attempt is due, at 100 s.
pub(crate) fn states() -> Vec<State> {
    let budget = |used, continuations| Budget { used, allowed: ALLOWED, continuations };
    let mut states: Vec<State> = [(0, 0), (1, 0), (0, 1), (1, 1)]
        .into_iter()
        .map(|(used, n)| State::Pending(budget(used, n)))
        .collect();
    for (used, continuations) in [(1, 0), (2, 0), (1, 1), (2, 1)] {
        for cancel_requested in [false, true] {
            let hold = Hold { until: at(100), cancel_requested };
            states.push(State::Processing(budget(used, continuations), hold));
        }
        states.push(State::Retrying(budget(used, continuations), at(100)));
    }
    states.extend([State::Completed, State::Failed, State::Cancelled]);
    states
}

#[tokio::test]
async fn store_agrees_with_the_state_machine_for_each_state_and_event() {
    let store = Store::new().await;
    let events = [
        Event::Claimed { until: at(200) },
        Event::Succeeded,
        Event::Failed { next: Some(at(200)) },
        Event::Failed { next: None },
        Event::Yielded,
        Event::Stopped,
        Event::CancelRequested,
        Event::TimerFired,
    ];
    let (mut n, mut reached) = (0, BTreeSet::new());
    for state in states() {
        for event in events {
            // The result of a claim or of a fired timer depends on the time. The lease expires, or the next
            // attempt is due, at 100 s. The grace period of the lease ends at 110 s.
            let is_timed = matches!(event, Event::Claimed { .. } | Event::TimerFired);
            let moments: &[u64] = if is_timed { &[99, 100, 109, 110] } else { &[110] };
            for &seconds in moments {
                n += 1;
                let specimen = specimen(&store, &format!("r{n}"), state).await;
                let now = at(seconds);
                let expected = step(state, event, now, &RULES);
                let before = store.item(&specimen.key).await;
                let context = format!("{state:?}, {event:?} at {seconds}: {expected:?}");
                let done = apply(&store, &specimen, event, now, &expected).await;
                let (item, found) = (store.item(&specimen.key).await, state_of(&store, &specimen.key).await);
                assert_eq!(found, expected.state, "{context}");
                let is_refused = expected == Step { state, effect: None };
                assert_eq!(done, !is_refused, "{context}");
                if is_refused {
                    assert_eq!(item, before, "{context}: a refused operation writes nothing");
                }
                let is_dead_letter_due = item.contains_key("dead_letter");
                assert_eq!(is_dead_letter_due, found == State::Failed, "{context}");
                assert!(item.contains_key("timer_at"), "{context}: the request is in the timer index");
                assert_eq!(item.contains_key("ttl"), found.status().is_terminal(), "{context}");
                assert_eq!(item.contains_key("lease_expires_at"), found.status() == Status::Processing);
                reached.insert((state.status().as_str(), found.status().as_str()));
            }
        }
    }
    assert_eq!(reached.len(), 6 + 2 + 5 + 4, "{reached:?}");
}
