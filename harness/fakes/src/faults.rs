//! Faults on request: rules by which the fakes fail as AWS can.
//!
//! A [`Fault`] says what goes wrong and with which calls. It holds from [`Faults::add`] on for as long as its
//! [`FaultGuard`] lives, and the guard tells how often it struck.
//!
//! ```
//! use std::time::Duration;
//! use streamer_fakes::faults::{Call, Fault, Faults};
//!
//! let faults = Faults::default();
//! let throttled = faults.add(Fault::throttle(Call::dynamodb("UpdateItem").on("streamer-RequestsTable")).times(2));
//! let slow = faults.add(Fault::delay(Call::post(), Duration::from_secs(1)).after(3));
//! assert_eq!((throttled.hits(), slow.hits()), (0, 0));
//! ```
//!
//! Most go wrong with a call, at the moment at which it is made. Some go wrong with a function that runs in process, and
//! last: its [start](Call::init) is slow or fails, its clock is [off](Fault::skew) for its life, and amid an
//! [invocation](Call::invoke), at one of its awaits, it [dies](Fault::kill_midway), [stands still](Fault::freeze) for a while
//! or [for good](Fault::hang).
//!
//! What is left to chance, [whether](Fault::rate) a fault strikes and [how hard](Fault::varied), comes from the fault's
//! [seed](Fault::seeded): the same calls in the same order are struck alike.

mod call;
mod effect;
mod fault;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fastrand::Rng;

pub use call::Call;
pub(crate) use call::{CallContext, Service};
pub(crate) use effect::Effect;
pub use fault::Fault;

pub use crate::caller::Caller;
#[doc(hidden)]
pub use crate::caller::Skew;
use crate::observe::{Observation, Observer};

/// The rules that hold; cheap to clone, and all clones are one set.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
    /// Told what the fakes do, and which faults are injected.
    observer: Arc<OnceLock<Arc<dyn Observer>>>,
}

#[derive(Debug, Default)]
struct Rules {
    next: u64,
    active: BTreeMap<u64, ActiveFault>,
}

#[derive(Debug)]
struct ActiveFault {
    fault: Fault,
    chance: Rng,
    seen: u32,
    hits: u32,
}

impl ActiveFault {
    /// Whether it strikes a call that it matches; it has seen the call then.
    fn is_due(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        self.seen > self.fault.after
            && self.fault.times.is_none_or(|times| self.hits < times)
            && self.fault.rate.is_none_or(|rate| rate.strikes(&mut self.chance))
    }
}

impl Faults {
    /// Has a fault happen from now on, until its guard is dropped.
    #[must_use = "the fault ends when its guard is dropped"]
    pub fn add(&self, fault: Fault) -> FaultGuard {
        let mut rules = self.lock();
        let id = rules.next;
        rules.next += 1;
        let chance = Rng::with_seed(fault.seed);
        rules.active.insert(id, ActiveFault { fault, chance, seen: 0, hits: 0 });
        FaultGuard { id, faults: self.clone(), kept: false }
    }

    /// Whether there is any rule about these calls.
    pub(crate) fn concern(&self, service: Service, operation: &str) -> bool {
        self.lock().active.values().any(|active| active.fault.call.is_of(service, operation))
    }

    /// What is to go wrong with a call that is made now, of the effects that are possible with it. Each rule of these that it
    /// matches has seen it then; the others' have not.
    ///
    /// Delays add up; of all other effects, that of the oldest rule whose turn it is counts.
    pub(crate) fn inject(&self, context: &CallContext<'_>, possible: impl Fn(Effect) -> bool) -> Effects {
        let mut effects = Effects::default();
        let mut injected = Vec::new();
        for active in self.lock().active.values_mut() {
            if !active.fault.call.matches(context)
                || active.fault.effect.is_midway()
                || !possible(active.fault.effect)
                || (effects.effect.is_some() && !active.fault.effect.is_delay())
                || !active.is_due()
            {
                continue;
            }
            active.hits = active.hits.saturating_add(1);
            injected.push(active.fault.name());
            let effect = active.fault.drawn(&mut active.chance);
            if let Effect::Delay(delay) = effect {
                effects.delay = effects.delay.saturating_add(delay);
            } else {
                effects.effect = Some(effect);
                effects.resource.clone_from(&active.fault.call.resource);
            }
        }
        for fault in injected {
            self.notify_injected(fault, context.operation, context.resources);
        }
        effects
    }

    /// What is to happen amid an invocation that begins now. It has not struck until [`inject_midway`](Self::inject_midway) says so: the
    /// invocation may end before.
    pub(crate) fn midway_fault(&self, context: &CallContext<'_>) -> Option<MidwayFault> {
        self.lock().active.iter_mut().find_map(|(rule, active)| {
            let (call, effect) = (&active.fault.call, active.fault.effect);
            let is_due = effect.is_midway() && call.matches(context) && active.is_due();
            is_due.then(|| MidwayFault { rule: *rule, effect: active.fault.drawn(&mut active.chance) })
        })
    }

    /// A midway fault has come to pass, unless its fault no longer holds; gives whether it has.
    pub(crate) fn inject_midway(&self, midway_fault: &MidwayFault, operation: &str, resource: &str) -> bool {
        let mut rules = self.lock();
        let active = rules.active.get_mut(&midway_fault.rule);
        let Some(active) = active.filter(|active| active.fault.times.is_none_or(|times| active.hits < times))
        else {
            return false;
        };
        active.hits = active.hits.saturating_add(1);
        let name = active.fault.name();
        drop(rules);
        self.notify_injected(name, operation, &[resource]);
        true
    }

    fn notify_injected(&self, fault: &'static str, operation: &str, resources: &[&str]) {
        let (operation, resource) = (operation.to_owned(), || resources.join(","));
        self.notify(|| Observation::Injected { fault, operation, resource: resource() });
    }

    /// Tells `observer` from now on what the fakes that share these faults do. Only the first observer counts.
    #[doc(hidden)]
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Tells the observer, if there is one, what a fake did.
    pub(crate) fn notify(&self, observation: impl FnOnce() -> Observation) {
        if let Some(observer) = self.observer.get() {
            observer.observe(observation());
        }
    }

    /// The map is whole between any two statements here, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a fault in force, and knows how often it has struck; the fault ends with it.
#[derive(Debug)]
pub struct FaultGuard {
    id: u64,
    faults: Faults,
    kept: bool,
}

impl FaultGuard {
    /// How often the fault has happened.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.faults.lock().active.get(&self.id).map_or(0, |active| active.hits)
    }

    /// Keeps the fault in force for as long as the stage lives.
    pub fn forever(mut self) {
        self.kept = true;
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.faults.lock().active.remove(&self.id);
        }
    }
}

/// What is to go wrong with a call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Effects {
    /// How much later it takes effect.
    pub(crate) delay: Duration,
    /// What else; never a delay.
    pub(crate) effect: Option<Effect>,
    /// The resource that the rule of `effect` names, if it names one.
    pub(crate) resource: Option<String>,
}

impl Effects {
    pub(crate) fn are_none(&self) -> bool {
        self.delay.is_zero() && self.effect.is_none()
    }
}

/// What is to happen amid an invocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MidwayFault {
    rule: u64,
    /// One that is [midway](Effect::is_midway).
    pub(crate) effect: Effect,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update<'a>(tables: &'a [&'a str]) -> CallContext<'a> {
        let (service, operation) = (Service::DynamoDb, "UpdateItem");
        CallContext { service, operation, resources: tables, index: None, caller: Some("Processor") }
    }

    #[test]
    fn a_fault_strikes_after_so_many_calls_so_often_and_until_its_guard_is_dropped() {
        let faults = Faults::default();
        let guard = faults.add(Fault::throttle(Call::dynamodb("UpdateItem")).after(1).times(2));
        let struck: Vec<_> = (0..4).map(|_| faults.inject(&update(&["t"]), |_| true).effect).collect();
        assert_eq!(struck, [None, Some(Effect::Throttle), Some(Effect::Throttle), None]);
        assert_eq!(guard.hits(), 2);
        drop(guard);
        faults.add(Fault::fail(Call::any_dynamodb())).forever();
        assert_eq!(faults.inject(&update(&["t"]), |_| true).effect, Some(Effect::Fail));
    }

    #[test]
    fn chances_are_those_of_the_faults_seed_and_of_its_rate() {
        let pattern = |rate: f64, seed: u64| -> Vec<bool> {
            let faults = Faults::default();
            let _guard = faults.add(Fault::fail(Call::any_dynamodb()).rate(rate).seeded(seed));
            (0..1_000).map(|_| faults.inject(&update(&["t"]), |_| true).effect.is_some()).collect()
        };
        let often = |pattern: &[bool]| pattern.iter().filter(|struck| **struck).count();
        let tenth = pattern(0.1, 7);
        assert!((70..130).contains(&often(&tenth)), "{}", often(&tenth));
        assert_eq!(pattern(0.1, 7), tenth);
        assert_ne!(pattern(0.1, 8), tenth);
        assert_eq!((often(&pattern(0.0, 7)), often(&pattern(1.0, 7))), (0, 1_000));
        let more = pattern(0.2, 7);
        assert!(
            tenth.iter().zip(&more).all(|(rare, more)| !rare || *more),
            "a higher rate strikes more of the same"
        );
    }

    #[test]
    fn what_varies_stays_within_what_was_given() {
        let (faults, most) = (Faults::default(), Duration::from_secs(2));
        let _delay = faults.add(Fault::delay(Call::any_dynamodb(), most).varied());
        let delays: Vec<_> = (0..100).map(|_| faults.inject(&update(&["t"]), |_| true).delay).collect();
        assert!(delays.iter().all(|delay| *delay <= most));
        assert!(
            delays.iter().any(|delay| *delay < most / 4) && delays.iter().any(|delay| *delay > most * 3 / 4)
        );
        let _freeze = faults.add(Fault::freeze(Call::any_dynamodb(), 64, most).varied());
        for _ in 0..100 {
            let midway_fault = faults.midway_fault(&update(&["t"])).unwrap();
            let Effect::Freeze { awaits, time } = midway_fault.effect else { panic!("{midway_fault:?}") };
            assert!(awaits <= 64 && time <= most, "{midway_fault:?}");
        }
    }

    #[test]
    fn a_midway_fault_has_struck_once_it_has_come_to_pass_and_as_often_as_its_fault_may() {
        let faults = Faults::default();
        let guard = faults.add(Fault::hang(Call::any_dynamodb(), 3).times(1));
        let side_by_side = [(); 2].map(|()| faults.midway_fault(&update(&["t"])).unwrap());
        assert_eq!(guard.hits(), 0);
        assert_eq!(
            side_by_side.map(|midway_fault| faults.inject_midway(&midway_fault, "Invoke", "f")),
            [true, false]
        );
        assert_eq!((guard.hits(), faults.midway_fault(&update(&["t"]))), (1, None));
        assert!(faults.inject(&update(&["t"]), |_| true).effect.is_none(), "it is about invocations alone");
        drop(guard);
        assert!(!faults.inject_midway(&side_by_side[0], "Invoke", "f"));
    }

    #[test]
    fn a_fault_is_about_the_calls_that_it_names() {
        let call = Call::dynamodb("UpdateItem");
        for (call, expected) in [
            (call.clone(), true),
            (Call::any_dynamodb(), true),
            (call.clone().on("t"), true),
            (call.clone().on("u"), false),
            (call.clone().by("Processor"), true),
            (call.clone().by("Router"), false),
            (call.index("i"), false),
            (Call::dynamodb("PutItem"), false),
            (Call::post().on("t"), false),
            (Call::invoke("t"), false),
            (Call::records("t"), false),
            (Call::send_message(), false),
        ] {
            assert_eq!(call.matches(&update(&["s", "t"])), expected, "{call:?}");
        }
    }

    #[test]
    fn delays_add_up_and_the_oldest_of_other_effects_counts() {
        let faults = Faults::default();
        let second = Duration::from_secs(1);
        let first = faults.add(Fault::lose_answer(Call::any_dynamodb()).times(1));
        let later = faults.add(Fault::conflict(Call::any_dynamodb()));
        let _delays = [1, 2].map(|n| faults.add(Fault::delay(Call::any_dynamodb(), n * second)));
        let both = Effects { delay: 3 * second, effect: Some(Effect::LoseAnswer), resource: None };
        assert_eq!(faults.inject(&update(&["t"]), |_| true), both);
        assert_eq!((first.hits(), later.hits()), (1, 0));
        assert_eq!(faults.inject(&update(&["t"]), |_| true).effect, Some(Effect::Conflict));
    }
}
