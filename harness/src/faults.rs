//! Faults on request: rules by which the fakes fail as AWS can.
//!
//! A [`Fault`] says what goes wrong and with which calls. It holds from [`Faults::add`] on for as long as its
//! [`FaultGuard`] lives, and the guard tells how often it struck.
//!
//! ```
//! use std::time::Duration;
//! use streamer_harness::faults::{Call, Fault, Faults};
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

mod caller;
mod rule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use crate::sight::{Observer, Sight};
pub use caller::Caller;
pub use rule::{Call, Fault};
pub(crate) use rule::{Effect, Occasion, Service, Skew};

/// The rules that hold; cheap to clone, and all clones are one set.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
    /// Who is told what the fakes do, and what goes wrong with it.
    observer: Arc<OnceLock<Arc<dyn Observer>>>,
}

#[derive(Debug, Default)]
struct Rules {
    next: u64,
    standing: BTreeMap<u64, Standing>,
}

#[derive(Debug)]
struct Standing {
    fault: Fault,
    chance: Rng,
    seen: u32,
    hits: u32,
}

impl Standing {
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
        rules.standing.insert(id, Standing { fault, chance, seen: 0, hits: 0 });
        FaultGuard { id, faults: self.clone(), kept: false }
    }

    /// Whether there is any rule about these calls.
    pub(crate) fn are_about(&self, service: Service, operation: &str) -> bool {
        self.lock().standing.values().any(|standing| standing.fault.call.is_of(service, operation))
    }

    /// What is to go wrong with a call that is made now, of the effects that are possible with it. Each rule of these that it
    /// matches has seen it then; the others' have not.
    ///
    /// Delays add up; of all other effects, that of the oldest rule whose turn it is counts.
    pub(crate) fn strike_where(&self, occasion: &Occasion<'_>, possible: impl Fn(Effect) -> bool) -> Effects {
        self.strike_one(occasion, possible).0
    }

    /// As [`strike_where`](Self::strike_where). Also gives the one resource that the rule of the effect (not of a delay)
    /// is about, if it names one.
    pub(crate) fn strike_one(
        &self,
        occasion: &Occasion<'_>,
        possible: impl Fn(Effect) -> bool,
    ) -> (Effects, Option<String>) {
        let (mut effects, mut on) = (Effects::default(), None);
        let mut struck = Vec::new();
        for standing in self.lock().standing.values_mut() {
            if !standing.fault.call.matches(occasion)
                || standing.fault.effect.is_midway()
                || !possible(standing.fault.effect)
                || (effects.effect.is_some() && !standing.fault.effect.is_delay())
                || !standing.is_due()
            {
                continue;
            }
            standing.hits = standing.hits.saturating_add(1);
            struck.push(standing.fault.name());
            let effect = standing.fault.drawn(&mut standing.chance);
            if let Effect::Delay(delay) = effect {
                effects.delay = effects.delay.saturating_add(delay);
            } else {
                effects.effect = Some(effect);
                on.clone_from(&standing.fault.call.resource);
            }
        }
        for fault in struck {
            self.tell_of(fault, occasion.operation, occasion.resources);
        }
        (effects, on)
    }

    /// What is to happen amid an invocation that begins now. It has not struck until [`befell`](Self::befell) says so: the
    /// invocation may end before.
    pub(crate) fn ordeal(&self, occasion: &Occasion<'_>) -> Option<Ordeal> {
        self.lock().standing.iter_mut().find_map(|(rule, standing)| {
            let (call, effect) = (&standing.fault.call, standing.fault.effect);
            let is_due = effect.is_midway() && call.matches(occasion) && standing.is_due();
            is_due.then(|| Ordeal { rule: *rule, effect: standing.fault.drawn(&mut standing.chance) })
        })
    }

    /// An ordeal has come to pass, unless its fault no longer holds; gives whether it has.
    pub(crate) fn befell(&self, ordeal: &Ordeal, operation: &str, resource: &str) -> bool {
        let mut rules = self.lock();
        let standing = rules.standing.get_mut(&ordeal.rule);
        let Some(standing) =
            standing.filter(|standing| standing.fault.times.is_none_or(|times| standing.hits < times))
        else {
            return false;
        };
        standing.hits = standing.hits.saturating_add(1);
        let name = standing.fault.name();
        drop(rules);
        self.tell_of(name, operation, &[resource]);
        true
    }

    fn tell_of(&self, fault: &'static str, operation: &str, resources: &[&str]) {
        let (operation, resource) = (operation.to_owned(), || resources.join(","));
        self.tell(|| Sight::Struck { fault, operation, resource: resource() });
    }

    /// Has `observer` told of everything that the fakes do, from now on. There can be one.
    pub(crate) fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Tells whoever watches, if anybody does, what there is to see.
    pub(crate) fn tell(&self, sight: impl FnOnce() -> Sight) {
        if let Some(observer) = self.observer.get() {
            observer.saw(sight());
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
        self.faults.lock().standing.get(&self.id).map_or(0, |standing| standing.hits)
    }

    /// Keeps the fault in force for as long as the stage lives.
    pub fn forever(mut self) {
        self.kept = true;
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.faults.lock().standing.remove(&self.id);
        }
    }
}

/// What is to go wrong with a call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Effects {
    /// How much later it takes effect.
    pub(crate) delay: Duration,
    /// What else; never a delay.
    pub(crate) effect: Option<Effect>,
}

/// What is to happen amid an invocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ordeal {
    rule: u64,
    /// One that is [midway](Effect::is_midway).
    pub(crate) effect: Effect,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update<'a>(tables: &'a [&'a str]) -> Occasion<'a> {
        let (service, operation) = (Service::DynamoDb, "UpdateItem");
        Occasion { service, operation, resources: tables, index: None, caller: Some("Processor") }
    }

    #[test]
    fn a_fault_strikes_after_so_many_calls_so_often_and_until_its_guard_is_dropped() {
        let faults = Faults::default();
        let guard = faults.add(Fault::throttle(Call::dynamodb("UpdateItem")).after(1).times(2));
        let struck: Vec<_> = (0..4).map(|_| faults.strike_where(&update(&["t"]), |_| true).effect).collect();
        assert_eq!(struck, [None, Some(Effect::Throttle), Some(Effect::Throttle), None]);
        assert_eq!(guard.hits(), 2);
        drop(guard);
        faults.add(Fault::fail(Call::any_dynamodb())).forever();
        assert_eq!(faults.strike_where(&update(&["t"]), |_| true).effect, Some(Effect::Fail));
    }

    #[test]
    fn chances_are_those_of_the_faults_seed_and_of_its_rate() {
        let pattern = |rate: f64, seed: u64| -> Vec<bool> {
            let faults = Faults::default();
            let _guard = faults.add(Fault::fail(Call::any_dynamodb()).rate(rate).seeded(seed));
            (0..1_000).map(|_| faults.strike_where(&update(&["t"]), |_| true).effect.is_some()).collect()
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
        let delays: Vec<_> = (0..100).map(|_| faults.strike_where(&update(&["t"]), |_| true).delay).collect();
        assert!(delays.iter().all(|delay| *delay <= most));
        assert!(
            delays.iter().any(|delay| *delay < most / 4) && delays.iter().any(|delay| *delay > most * 3 / 4)
        );
        let _freeze = faults.add(Fault::freeze(Call::any_dynamodb(), 64, most).varied());
        for _ in 0..100 {
            let ordeal = faults.ordeal(&update(&["t"])).unwrap();
            let Effect::Freeze { awaits, time } = ordeal.effect else { panic!("{ordeal:?}") };
            assert!(awaits <= 64 && time <= most, "{ordeal:?}");
        }
    }

    #[test]
    fn an_ordeal_has_struck_once_it_has_come_to_pass_and_as_often_as_its_fault_may() {
        let faults = Faults::default();
        let guard = faults.add(Fault::hang(Call::any_dynamodb(), 3).times(1));
        let side_by_side = [(); 2].map(|()| faults.ordeal(&update(&["t"])).unwrap());
        assert_eq!(guard.hits(), 0);
        assert_eq!(side_by_side.map(|ordeal| faults.befell(&ordeal, "Invoke", "f")), [true, false]);
        assert_eq!((guard.hits(), faults.ordeal(&update(&["t"]))), (1, None));
        assert!(
            faults.strike_where(&update(&["t"]), |_| true).effect.is_none(),
            "it is about invocations alone"
        );
        drop(guard);
        assert!(!faults.befell(&side_by_side[0], "Invoke", "f"));
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
        let both = Effects { delay: 3 * second, effect: Some(Effect::LoseAnswer) };
        assert_eq!(faults.strike_where(&update(&["t"]), |_| true), both);
        assert_eq!((first.hits(), later.hits()), (1, 0));
        assert_eq!(faults.strike_where(&update(&["t"]), |_| true).effect, Some(Effect::Conflict));
    }
}
