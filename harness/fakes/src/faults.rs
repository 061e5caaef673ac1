//! Fault injection: rules that make the fakes fail in the ways that AWS can fail.
//!
//! A [`Fault`] is a rule: an effect, such as a throttle or a delay, and the calls to which the effect applies. The
//! rule is active from [`Faults::add`] until its [`FaultGuard`] is dropped. [`FaultGuard::hits`] counts the injected
//! effects.
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
//! Most faults are injected into a call when the call is made. Other faults concern a function that runs in process:
//!
//! * the [start](Call::init) of an execution environment can be slow or fail, or the environment can have a [wrong
//!   clock](Fault::skew);
//! * at an await in the middle of an [invocation](Call::invoke), the function can be [killed](Fault::kill_midway),
//!   [frozen](Fault::freeze) for a time, or [frozen for good](Fault::hang).
//!
//! Randomness, which decides [whether](Fault::rate) a fault is injected and [how strong](Fault::varied) the effect is,
//! comes from the fault's [seed](Fault::seeded). The same calls in the same order get the same effects.

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

/// The set of active fault rules. A clone is cheap and refers to the same set.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
    /// Observer of all fakes that share these fault rules. The observer is also told of each injected fault.
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
    /// Counts a matching call, and returns whether the fault is injected into this call.
    fn count_call(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        self.seen > self.fault.after
            && self.fault.times.is_none_or(|times| self.hits < times)
            && self.fault.rate.is_none_or(|rate| rate.draw(&mut self.chance))
    }
}

impl Faults {
    /// Activates a fault rule until the returned guard is dropped.
    #[must_use = "the fault rule is removed when its guard is dropped"]
    pub fn add(&self, fault: Fault) -> FaultGuard {
        let mut rules = self.lock();
        let id = rules.next;
        rules.next += 1;
        let chance = Rng::with_seed(fault.seed);
        rules.active.insert(id, ActiveFault { fault, chance, seen: 0, hits: 0 });
        FaultGuard { id, faults: self.clone(), kept: false }
    }

    /// Returns whether any active rule may match calls of this operation.
    pub(crate) fn concern(&self, service: Service, operation: &str) -> bool {
        self.lock().active.values().any(|active| active.fault.call.is_of(service, operation))
    }

    /// Returns the effects of all active rules on a call that is made now.
    ///
    /// Rules whose effect is not `possible` for the call are skipped, and do not count the call. Delays add up. Of
    /// all other effects, only the effect of the oldest rule that injects its fault into this call is returned.
    pub(crate) fn inject(&self, context: &CallContext<'_>, possible: impl Fn(Effect) -> bool) -> Effects {
        let mut effects = Effects::default();
        let mut injected = Vec::new();
        for active in self.lock().active.values_mut() {
            if !active.fault.call.matches(context)
                || active.fault.effect.is_midway()
                || !possible(active.fault.effect)
                || (effects.effect.is_some() && !active.fault.effect.is_delay())
                || !active.count_call()
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

    /// Returns the fault that a rule plans for the middle of an invocation that begins now; `None` without such a
    /// rule.
    ///
    /// The fault counts as a hit only when [`inject_midway`](Self::inject_midway) returns `true`, because the
    /// invocation may end before the fault's await.
    pub(crate) fn midway_fault(&self, context: &CallContext<'_>) -> Option<MidwayFault> {
        self.lock().active.iter_mut().find_map(|(rule, active)| {
            let (call, effect) = (&active.fault.call, active.fault.effect);
            let is_injected = effect.is_midway() && call.matches(context) && active.count_call();
            is_injected.then(|| MidwayFault { rule: *rule, effect: active.fault.drawn(&mut active.chance) })
        })
    }

    /// Counts and reports a midway fault when the invocation reaches the fault's await. Returns `false`, and does
    /// nothing, if the fault rule was removed or has reached its maximum number of hits in the meantime.
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

    /// Sets the observer of all fakes that share this set of faults. Only the first call has an effect.
    #[doc(hidden)]
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Sends an observation to the observer, if one is set.
    pub(crate) fn notify(&self, observation: impl FnOnce() -> Observation) {
        if let Some(observer) = self.observer.get() {
            observer.observe(observation());
        }
    }

    /// Locks the rules. A poisoned lock is safe to use, because no method leaves the rules inconsistent when it
    /// panics.
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard that keeps a fault rule active and counts the rule's hits. Dropping the guard removes the rule.
#[derive(Debug)]
pub struct FaultGuard {
    id: u64,
    faults: Faults,
    kept: bool,
}

impl FaultGuard {
    /// Returns the number of calls into which the fault was injected.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.faults.lock().active.get(&self.id).map_or(0, |active| active.hits)
    }

    /// Keeps the fault rule active for the lifetime of the [`Faults`] set, without a guard.
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

/// Effects of all fault rules on one call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Effects {
    /// Sum of all delays of the call; zero if no delay is injected.
    pub(crate) delay: Duration,
    /// Effect other than a delay; `None` if the call has only delays or no effect.
    pub(crate) effect: Option<Effect>,
    /// Resource to which the rule of `effect` is limited; `None` if the rule applies to all resources.
    pub(crate) resource: Option<String>,
}

impl Effects {
    pub(crate) fn are_none(&self) -> bool {
        self.delay.is_zero() && self.effect.is_none()
    }
}

/// Fault that is planned for the middle of an invocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MidwayFault {
    rule: u64,
    /// Effect of the fault, for which [`Effect::is_midway`] returns `true`.
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
    fn fault_is_injected_after_the_skipped_calls_and_only_up_to_its_limit() {
        let faults = Faults::default();
        let guard = faults.add(Fault::throttle(Call::dynamodb("UpdateItem")).after(1).times(2));
        let injected: Vec<_> = (0..4).map(|_| faults.inject(&update(&["t"]), |_| true).effect).collect();
        assert_eq!(injected, [None, Some(Effect::Throttle), Some(Effect::Throttle), None]);
        assert_eq!(guard.hits(), 2);
        drop(guard);
        faults.add(Fault::fail(Call::any_dynamodb())).forever();
        assert_eq!(faults.inject(&update(&["t"]), |_| true).effect, Some(Effect::Fail));
    }

    #[test]
    fn random_faults_are_the_same_for_equal_seeds_and_follow_their_rate() {
        let pattern = |rate: f64, seed: u64| -> Vec<bool> {
            let faults = Faults::default();
            let _guard = faults.add(Fault::fail(Call::any_dynamodb()).rate(rate).seeded(seed));
            (0..1_000).map(|_| faults.inject(&update(&["t"]), |_| true).effect.is_some()).collect()
        };
        let often = |pattern: &[bool]| pattern.iter().filter(|injected| **injected).count();
        let tenth = pattern(0.1, 7);
        assert!((70..130).contains(&often(&tenth)), "{}", often(&tenth));
        assert_eq!(pattern(0.1, 7), tenth);
        assert_ne!(pattern(0.1, 8), tenth);
        assert_eq!((often(&pattern(0.0, 7)), often(&pattern(1.0, 7))), (0, 1_000));
        let more = pattern(0.2, 7);
        assert!(
            tenth.iter().zip(&more).all(|(rare, more)| !rare || *more),
            "with equal seeds, a higher rate also hits all calls that a lower rate hits"
        );
    }

    #[test]
    fn varied_fault_draws_delay_freeze_time_and_await_up_to_the_configured_maximum() {
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
    fn midway_fault_counts_as_a_hit_only_when_injected_and_only_up_to_its_limit() {
        let faults = Faults::default();
        let guard = faults.add(Fault::hang(Call::any_dynamodb(), 3).times(1));
        let concurrent = [(); 2].map(|()| faults.midway_fault(&update(&["t"])).unwrap());
        assert_eq!(guard.hits(), 0);
        assert_eq!(
            concurrent.map(|midway_fault| faults.inject_midway(&midway_fault, "Invoke", "f")),
            [true, false]
        );
        assert_eq!((guard.hits(), faults.midway_fault(&update(&["t"]))), (1, None));
        assert!(
            faults.inject(&update(&["t"]), |_| true).effect.is_none(),
            "a fault that strikes midway through an invocation does not change a call"
        );
        drop(guard);
        assert!(!faults.inject_midway(&concurrent[0], "Invoke", "f"));
    }

    #[test]
    fn call_pattern_matches_only_calls_with_its_operation_resource_index_and_caller() {
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
    fn fault_delays_add_up_and_of_all_other_faults_only_the_oldest_is_injected() {
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
