//! Tests of the state machine, which combine every state with every event at the times around each deadline.

use proptest::prelude::*;

use super::*;
use crate::store::Lease;

/// Time at which the lease of each tested PROCESSING state expires, and the retry of each tested RETRYING state
/// is due.
const CURRENT: Timestamp = Timestamp::from_secs(100);
/// Time at which the lease of a tested claim expires, and the retry of a tested failure is due.
const NEXT: Timestamp = Timestamp::from_secs(200);

fn rules() -> Rules {
    Rules { max_continuations: 3 }
}

/// Times of the tested events, in seconds: just before and at [`CURRENT`], and just before, at and after the
/// time at which a lease that expired at [`CURRENT`] counts as lost.
const TIMES: [u64; 5] = [99, 100, 109, 110, 111];

const EVENTS: [Event; 8] = [
    Event::Claimed { until: NEXT },
    Event::Succeeded,
    Event::Failed { next: Some(NEXT) },
    Event::Failed { next: None },
    Event::Yielded,
    Event::Stopped,
    Event::CancelRequested,
    Event::TimerFired,
];

/// Returns every state, with budgets below their limits and at their limits.
fn states() -> Vec<State> {
    let budget = |used, continuations| Budget { used, allowed: 2, continuations };
    let mut states = vec![State::Pending(budget(0, 0)), State::Pending(budget(1, 3))];
    for (used, continuations) in [(1, 2), (1, 3), (2, 2), (2, 3)] {
        for cancel_requested in [false, true] {
            let hold = Hold { until: CURRENT, cancel_requested };
            states.push(State::Processing(budget(used, continuations), hold));
        }
    }
    states.extend([State::Retrying(budget(1, 3), CURRENT), State::Retrying(budget(2, 0), CURRENT)]);
    states.extend([State::Completed, State::Failed, State::Cancelled]);
    states
}

fn seconds(time: Timestamp) -> u64 {
    time.as_millis() / 1000
}

fn text_of_budget(budget: Budget) -> String {
    format!("attempt {} of {}, {} continuations", budget.used, budget.allowed, budget.continuations)
}

fn text_of(state: &State) -> String {
    match state {
        State::Pending(budget) => format!("PENDING {}", text_of_budget(*budget)),
        State::Processing(budget, hold) => {
            let cancel = if hold.cancel_requested { ", cancel requested" } else { "" };
            format!("PROCESSING {}, lease until {}{cancel}", text_of_budget(*budget), seconds(hold.until))
        }
        State::Retrying(budget, due) => {
            format!("RETRYING {}, retry due {}", text_of_budget(*budget), seconds(*due))
        }
        State::Completed | State::Failed | State::Cancelled => state.status().as_str().to_owned(),
    }
}

fn text_of_effect(effect: Option<Effect>) -> String {
    match effect {
        None => String::new(),
        Some(Effect::Nudge) => " [nudge]".to_owned(),
        Some(Effect::Postpone(at)) => format!(" [postpone until {}]", seconds(at)),
        Some(Effect::Deliver { dead_letter: false }) => " [deliver]".to_owned(),
        Some(Effect::Deliver { dead_letter: true }) => " [deliver, with a dead letter]".to_owned(),
    }
}

fn text_of_event(event: Event) -> &'static str {
    match event {
        Event::Claimed { .. } => "claimed",
        Event::Succeeded => "succeeded",
        Event::Failed { next: Some(_) } => "failed, retryable",
        Event::Failed { next: None } => "failed for good",
        Event::Yielded => "yielded",
        Event::Stopped => "stopped",
        Event::CancelRequested => "cancel requested",
        Event::TimerFired => "timer fired",
    }
}

/// The snapshot lists the result of [`step`] for every state, event and time. If a state and an event have the
/// same result at all times, the snapshot has one line for them.
#[test]
fn step_matches_its_snapshot_for_every_state_event_and_time() {
    let mut report = Vec::new();
    for state in states() {
        report.push(text_of(&state));
        for event in EVENTS {
            let outcome = |now: u64| {
                let Step { state: next, effect } = step(state, event, Timestamp::from_secs(now), &rules());
                let next = if next == state { "stays".to_owned() } else { text_of(&next) };
                next + &text_of_effect(effect)
            };
            let outcomes = TIMES.map(outcome);
            if outcomes.iter().all(|other| *other == outcomes[0]) {
                report.push(format!("  {}: {}", text_of_event(event), outcomes[0]));
                continue;
            }
            for (now, outcome) in TIMES.into_iter().zip(outcomes) {
                report.push(format!("  {} at {now}: {outcome}", text_of_event(event)));
            }
        }
    }
    insta::assert_snapshot!(report.join("\n"));
}

/// Over all budgets and times, the status changes are exactly those that the design allows.
#[test]
fn status_changes_are_exactly_the_allowed_transitions() {
    use Status::{Cancelled, Completed, Failed, Pending, Processing, Retrying};
    let allowed = [
        (Pending, "claimed", Processing),
        (Pending, "cancel requested", Cancelled),
        (Processing, "succeeded", Completed),
        (Processing, "failed, retryable", Retrying),
        (Processing, "failed, retryable", Failed),
        (Processing, "failed, retryable", Cancelled),
        (Processing, "failed for good", Failed),
        (Processing, "failed for good", Cancelled),
        (Processing, "yielded", Pending),
        (Processing, "yielded", Failed),
        (Processing, "yielded", Cancelled),
        (Processing, "stopped", Cancelled),
        (Processing, "timer fired", Pending),
        (Processing, "timer fired", Failed),
        (Processing, "timer fired", Cancelled),
        (Retrying, "claimed", Processing),
        (Retrying, "cancel requested", Cancelled),
        (Retrying, "timer fired", Pending),
        (Retrying, "timer fired", Failed),
    ];
    let mut found = Vec::new();
    for (state, event, now) in states()
        .into_iter()
        .flat_map(|state| EVENTS.map(|event| (state, event)))
        .flat_map(|(state, event)| TIMES.map(|now| (state, event, Timestamp::from_secs(now))))
    {
        let next = step(state, event, now, &rules()).state;
        let change = (state.status(), text_of_event(event), next.status());
        if change.0 != change.2 && !found.contains(&change) {
            found.push(change);
        }
    }
    for change in &found {
        assert!(allowed.contains(change), "every status change is allowed by the design: {change:?}");
    }
    assert_eq!(found.len(), allowed.len(), "every allowed status change occurs: {found:?}");
}

fn request(status: Status) -> RequestSummary {
    let request = Request {
        attempt: 2,
        max_attempts: 3,
        continuations: 4,
        status,
        ..Request::new(
            "r1".into(),
            "ann".into(),
            "acme".into(),
            "c1".into(),
            "report",
            serde_json::Value::Null,
            Timestamp::default(),
        )
    };
    RequestSummary {
        id: request.id,
        user: request.user,
        tenant: request.tenant,
        connection: request.connection,
        action: request.action,
        status,
        attempt: request.attempt,
        max_attempts: request.max_attempts,
        continuations: request.continuations,
        runner: request.runner,
        epoch: 2,
        lease: Some(Lease { epoch: 2, owner: "first".to_owned(), expires_at: CURRENT }),
        cancel_requested: true,
        history: request.history,
        is_dead_letter_due: false,
        progress: request.progress,
        seq: request.seq,
        subscribers: request.subscribers,
        created_at: request.created_at,
        started_at: None,
        finished_at: None,
        timer_at: Some(NEXT),
    }
}

#[test]
fn request_summary_converts_to_a_state_with_equal_status_budget_and_times() {
    let budget = Budget { used: 2, allowed: 3, continuations: 4 };
    for status in Status::ALL {
        let state = State::from(&request(status));
        let expected = match status {
            Status::Pending => State::Pending(budget),
            Status::Processing => State::Processing(budget, Hold { until: CURRENT, cancel_requested: true }),
            Status::Retrying => State::Retrying(budget, NEXT),
            Status::Completed => State::Completed,
            Status::Failed => State::Failed,
            Status::Cancelled => State::Cancelled,
        };
        assert_eq!((state, state.status()), (expected, status));
    }
}

fn events() -> impl Strategy<Value = Event> {
    let moment = || (0..400_u64).prop_map(Timestamp::from_secs);
    prop_oneof![
        3 => moment().prop_map(|until| Event::Claimed { until }),
        1 => Just(Event::Succeeded),
        2 => proptest::option::weighted(0.8, moment()).prop_map(|next| Event::Failed { next }),
        2 => Just(Event::Yielded),
        1 => Just(Event::Stopped),
        1 => Just(Event::CancelRequested),
        3 => Just(Event::TimerFired),
    ]
}

const fn budget_of(state: &State) -> Option<Budget> {
    match state {
        State::Pending(budget) | State::Processing(budget, _) | State::Retrying(budget, _) => Some(*budget),
        State::Completed | State::Failed | State::Cancelled => None,
    }
}

proptest! {
    /// Applies random events at random times, one after the other, to a new request.
    #[test]
    fn random_event_sequences_break_no_rule_of_the_state_machine(
        sequence in proptest::collection::vec((events(), 0..400_u64), 1..60), allowed in 1..5_u32,
    ) {
        let rules = rules();
        let mut state = State::Pending(Budget { used: 0, allowed, continuations: 0 });
        let mut runs = 0;
        for (event, now) in sequence {
            let now = Timestamp::from_secs(now);
            let Step { state: next, effect } = step(state, event, now, &rules);
            if state.status().is_terminal() {
                prop_assert_eq!(next, state, "a terminal state never changes");
            }
            if let Some(Budget { used, allowed, continuations }) = budget_of(&next) {
                prop_assert!(used <= allowed, "attempts stay within their limit: {next:?}");
                let is_within_limit = continuations <= rules.max_continuations;
                prop_assert!(is_within_limit, "continuations stay within their limit: {next:?}");
                let is_waiting = next.status() != Status::Processing;
                let is_spent = used == allowed && next.status() == Status::Pending;
                prop_assert!(!(is_waiting && is_spent), "a pending request has an attempt left: {next:?}");
            }
            let is_run = state.status() != Status::Processing && next.status() == Status::Processing;
            prop_assert!(!is_run || matches!(event, Event::Claimed { .. }), "only a claim starts a run");
            runs += u32::from(is_run);
            prop_assert!(runs <= allowed + rules.max_continuations, "the number of runs is bounded: {runs}");
            let is_timer = event == Event::TimerFired;
            let expected = match next {
                State::Completed | State::Cancelled if next != state || is_timer => {
                    Some(Effect::Deliver { dead_letter: false })
                }
                State::Failed if next != state || is_timer => Some(Effect::Deliver { dead_letter: true }),
                State::Pending(_) if next == state && is_timer => Some(Effect::Nudge),
                State::Processing(_, hold) if next == state && is_timer => {
                    Some(Effect::Postpone(hold.until + LEASE_GRACE))
                }
                State::Retrying(_, due) if next == state && is_timer => Some(Effect::Postpone(due)),
                State::Pending(_)
                | State::Processing(..)
                | State::Retrying(..)
                | State::Completed
                | State::Failed
                | State::Cancelled => None,
            };
            prop_assert_eq!(
                effect, expected,
                "event {:?} in state {:?} has the effect that the next state {:?} requires", event, state, next
            );
            if let Some(Effect::Postpone(until)) = effect {
                prop_assert!(until > now, "a timer is only postponed to a later time");
            }
            state = next;
        }
    }

    /// Once a cancel is requested, a running attempt can only lead to COMPLETED or CANCELLED.
    #[test]
    fn request_with_a_requested_cancel_is_never_run_again(
        sequence in proptest::collection::vec((events(), 0..400_u64), 1..30), used in 1..3_u32,
    ) {
        let hold = Hold { until: CURRENT, cancel_requested: true };
        let mut state = State::Processing(Budget { used, allowed: 3, continuations: 0 }, hold);
        for (event, now) in sequence {
            let Step { state: next, effect } = step(state, event, Timestamp::from_secs(now), &rules());
            prop_assert_ne!(effect, Some(Effect::Nudge), "a request with a requested cancel is never nudged");
            let is_allowed = matches!(next.status(), Status::Processing | Status::Completed | Status::Cancelled);
            prop_assert!(is_allowed, "a requested cancel leads only to COMPLETED or CANCELLED: {next:?}");
            state = next;
        }
    }
}
