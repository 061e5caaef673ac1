//! Injects the faults of a plan into its world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::chance;
use super::event::{EventKind, WorldEvent};
use super::plan::{FaultKind, FaultPlan, Plan};
use super::recorder::Recorder;
use streamer_fakes::dynamodb::Streams;
use streamer_fakes::faults::{Call, Fault, FaultGuard};
use streamer_fakes::lambda::Functions;
use streamer_harness::stage::Stage;

/// Injects a plan's faults into the plan's world until it is stopped.
#[derive(Debug)]
pub(super) struct Injector {
    /// One task for each fault of the plan, which starts and stops that fault.
    tasks: JoinSet<()>,
    active: ActiveRules,
    functions: Functions,
}

/// Active fault rules, by the index of their fault in the plan.
type ActiveRules = Arc<Mutex<BTreeMap<usize, Vec<FaultGuard>>>>;

/// Longest delay of a DynamoDB call.
const SLOW_CALL: Duration = Duration::from_secs(8);
/// Longest time for which an index query misses a write.
const INDEX_LAG: Duration = Duration::from_secs(10);
/// Longest delay of stream records.
const LATE_RECORDS: Duration = Duration::from_secs(30);
/// Longest delay of a post to a connection.
const SLOW_POST: Duration = Duration::from_secs(10);

/// Number of awaits of an invocation within which a kill, freeze or hang strikes. A long invocation that
/// renews its lease and pushes progress has hundreds of awaits.
const AWAITS: u32 = 256;
/// Longest freeze of a function, which is much longer than a lease.
const FREEZE: Duration = Duration::from_mins(3);
/// Longest delay of an environment's start. The longest delays exceed the time limit of the init phase.
const SLOW_START: Duration = Duration::from_secs(11);
/// Largest clock skew of an environment, ahead or behind.
const SKEW: Duration = Duration::from_secs(3);
/// Interval, in milliseconds, in which at most one shard split or one deploy may strike.
const INTERVAL_MS: u64 = 15_000;
/// Number of open shards at which no further shard is split, because simulating each open shard's reader and
/// lanes takes time.
const MAX_OPEN_SHARDS: usize = 16;
/// Table whose stream shards are split.
const REQUESTS: &str = "streamer-RequestsTable";

impl Injector {
    /// Starts a task for each fault of the plan. The task injects the fault during the fault's time span.
    pub(super) fn start(plan: &Plan, stage: &Stage, recorder: &Recorder) -> Self {
        let begun = Instant::now();
        let moment = |ms: u64| begun + Duration::from_millis(ms.min(plan.faults_until_ms));
        let (mut tasks, active) = (JoinSet::new(), ActiveRules::default());
        for (place, fault) in plan.faults.iter().enumerate() {
            let (from, until) = (moment(fault.from_ms), moment(fault.until_ms));
            let recurring = RecurringFault {
                kind: fault.kind,
                rate: fault.rate,
                chance: chance::rng(plan.seed, &format!("{} turns", fault.kind.name())),
                functions: stage.functions().clone(),
                streams: stage.dynamodb().streams(),
                recorder: recorder.clone(),
            };
            let rules = rules(fault, plan.seed);
            let (faults, active) = (stage.faults().clone(), Arc::clone(&active));
            tasks.spawn(async move {
                sleep_until(from).await;
                if rules.is_empty() {
                    // At the end of the time span, the timeout drops the recurring fault.
                    let _ = timeout_at(until, recurring.run()).await;
                } else {
                    let guards = rules.into_iter().map(|rule| faults.add(rule)).collect();
                    lock(&active).insert(place, guards);
                    sleep_until(until).await;
                    lock(&active).remove(&place);
                }
            });
        }
        Self { tasks, active, functions: stage.functions().clone() }
    }

    /// Stops injecting faults. Frozen functions continue, and each environment with a skewed clock is
    /// replaced as soon as it has answered its current event.
    pub(super) fn stop(self) {
        // Remove the rules here: an aborted task drops its guards only when the runtime polls it next.
        lock(&self.active).clear();
        drop(self.tasks);
        self.functions.thaw();
        self.functions.replace_skewed();
    }
}

fn lock(active: &ActiveRules) -> MutexGuard<'_, BTreeMap<usize, Vec<FaultGuard>>> {
    active.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fault that is not tied to a call. In each interval, the fault strikes with the probability `rate`.
#[derive(Debug)]
struct RecurringFault {
    kind: FaultKind,
    rate: f64,
    chance: Rng,
    functions: Functions,
    streams: Streams,
    recorder: Recorder,
}

impl RecurringFault {
    async fn run(mut self) {
        loop {
            // Strike at a random time within the interval, so that strikes do not coincide with other
            // periodic work.
            let within = self.chance.u64(1..INTERVAL_MS);
            sleep(Duration::from_millis(within)).await;
            // Draw in every interval, so that plans that differ only in the rate have some strikes at the
            // same times.
            if self.chance.f64() < self.rate
                && let Some(about) = self.strike()
            {
                self.recorder.record(EventKind::World(WorldEvent::Fault { kind: self.kind, about }));
            }
            sleep(Duration::from_millis(INTERVAL_MS - within)).await;
        }
    }

    /// Strikes once. Returns the shard that was split or the version that was deployed, or `None` if no shard
    /// can be split.
    fn strike(&mut self) -> Option<String> {
        if self.kind == FaultKind::Deploy {
            return Some(format!("version {}", self.functions.deploy()));
        }
        let stream = self.streams.latest_stream_arn(REQUESTS)?;
        let mut open = self.streams.shard_infos(&stream).ok()?;
        open.retain(|shard| !shard.closed);
        if open.is_empty() || open.len() >= MAX_OPEN_SHARDS {
            return None;
        }
        let shard = &open.get(self.chance.usize(..open.len()))?.id;
        self.streams.split_shard(&stream, shard).ok()?;
        Some(shard.as_str().to_owned())
    }
}

/// Returns the rules of a fault that strikes calls. The rules' random seeds depend only on the plan's seed
/// and the fault's kind. So the removal of one fault from a plan does not change the effects of the other
/// faults.
fn rules(fault: &FaultPlan, seed: u64) -> Vec<Fault> {
    let rules = match fault.kind {
        FaultKind::Throttle => vec![Fault::throttle(Call::any_dynamodb())],
        FaultKind::FailBefore => vec![Fault::fail(Call::any_dynamodb())],
        FaultKind::FailAfter => vec![Fault::fail_after_apply(Call::any_dynamodb())],
        FaultKind::LoseAnswer => vec![Fault::lose_answer(Call::any_dynamodb())],
        FaultKind::SlowCall => vec![Fault::delay(Call::any_dynamodb(), SLOW_CALL).varied()],
        FaultKind::Conflict => vec![Fault::conflict(Call::any_dynamodb())],
        FaultKind::StaleIndex => vec![Fault::stale(Call::any_dynamodb(), INDEX_LAG).varied()],
        FaultKind::DuplicateRecords => vec![Fault::duplicate(Call::any_records())],
        FaultKind::LateRecords => vec![Fault::delay(Call::any_records(), LATE_RECORDS).varied()],
        FaultKind::FailedReads => vec![Fault::fail(Call::any_records())],
        FaultKind::Kill => vec![Fault::kill_midway(Call::any_invoke(), AWAITS).varied()],
        FaultKind::KillAtCall => {
            [Call::any_dynamodb(), Call::post(), Call::send_message(), Call::invoke_api()]
                .map(Fault::kill)
                .into()
        }
        FaultKind::Freeze => vec![Fault::freeze(Call::any_invoke(), AWAITS, FREEZE).varied()],
        FaultKind::Hang => vec![Fault::hang(Call::any_invoke(), AWAITS).varied()],
        FaultKind::SlowStart => vec![Fault::delay(Call::init(), SLOW_START).varied()],
        FaultKind::FailedStart => vec![Fault::fail(Call::init())],
        FaultKind::ClockSkew => vec![Fault::skew(Call::init(), SKEW).varied()],
        FaultKind::InvokeThrottled => vec![Fault::throttle(Call::any_invoke())],
        FaultKind::InvokeFailed => {
            vec![Fault::fail(Call::any_invoke()), Fault::fail_after_apply(Call::any_invoke())]
        }
        FaultKind::InvokeTwice => vec![Fault::duplicate(Call::event())],
        FaultKind::DispatchFailed => vec![
            Fault::fail(Call::invoke_api()),
            Fault::fail_after_apply(Call::invoke_api()),
            Fault::lose_answer(Call::invoke_api()),
        ],
        FaultKind::EventLost => vec![Fault::fail(Call::event())],
        FaultKind::PostGone => vec![Fault::gone(Call::post())],
        FaultKind::PostThrottled => vec![Fault::throttle(Call::post())],
        FaultKind::PostFailed => vec![Fault::fail(Call::post())],
        FaultKind::PostUnanswered => vec![Fault::lose_answer(Call::post())],
        FaultKind::SlowPost => vec![Fault::delay(Call::post(), SLOW_POST).varied()],
        FaultKind::DisconnectLost => vec![Fault::fail(Call::disconnect())],
        FaultKind::QueueFailed => vec![Fault::fail(Call::send_message())],
        FaultKind::QueueUnanswered => {
            vec![Fault::lose_answer(Call::send_message()), Fault::fail_after_apply(Call::send_message())]
        }
        // Recurring faults, which strike without a call.
        FaultKind::SplitShard | FaultKind::Deploy => vec![],
    };
    let mut seeds = chance::rng(seed, fault.kind.name());
    let named = |rule: Fault| rule.named(fault.kind.name()).rate(fault.rate).seeded(seeds.u64(..));
    rules.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::execution::{AppUnderTest, Outcome, execute};
    use super::super::job::{Job, JobEnd, JobStep, WORK};
    use super::super::plan::{Act, ClientPlan, StagePlan, Step};
    use super::super::recorder::Until;
    use super::*;
    use streamer_fakes::observe::Observation;

    /// Returns the number of injected faults of this kind.
    fn strikes(world: &Outcome, kind: FaultKind) -> usize {
        let is_strike = |event: &EventKind| match event {
            EventKind::Fake(Observation::Injected { fault, .. }) => *fault == kind.name(),
            EventKind::World(WorldEvent::Fault { kind: struck, .. }) => *struck == kind,
            EventKind::Fake(_) | EventKind::Client(..) | EventKind::Handler(_) | EventKind::World(_) => false,
        };
        world.events.iter().filter(|event| is_strike(&event.kind)).count()
    }

    /// Returns a plan with two clients. One client vanishes, reconnects and leaves. Both send requests of
    /// different lengths, half of which fail.
    fn plan(faults: &[(FaultKind, f64)]) -> Plan {
        let request = |n: u64, estimate_ms: u64, end: JobEnd| {
            let wait = JobStep::Wait(estimate_ms / 4);
            let steps = vec![wait.clone(), JobStep::Report(50.0), wait];
            let job = Job { estimate_ms, steps, end, ..Job::default() };
            let act = Act::Request { id: format!("r{n}"), action: WORK.to_owned(), payload: json!(job) };
            Step { at_ms: n * 4_000, act }
        };
        let mut steps = vec![Step { at_ms: 0, act: Act::Connect }];
        let estimates = [10_000, 60_000, 1_000, 10_000, 60_000, 20_000];
        steps.extend((1..).zip(estimates).map(|(n, estimate_ms)| {
            request(n, estimate_ms, if n % 2 == 0 { JobEnd::Fail } else { JobEnd::Succeed })
        }));
        let bob = steps.clone();
        let going = [(30_000, Act::Vanish), (40_000, Act::Connect), (60_000, Act::Close)];
        steps.extend(going.map(|(at_ms, act)| Step { at_ms, act }));
        let client = |user: &str, steps| ClientPlan {
            user: user.to_owned(),
            tenant: "acme".to_owned(),
            permissions: Vec::new(),
            token_ttl_ms: 0,
            gives_up: false,
            steps,
        };
        let clients = vec![client("ann", steps), client("bob", bob)];
        let fault =
            |(kind, rate): &_| FaultPlan { kind: *kind, rate: *rate, from_ms: 1_000, until_ms: u64::MAX };
        let faults = faults.iter().map(fault).collect();
        Plan { seed: 3, faults_until_ms: 130_000, stage: StagePlan::default(), clients, faults }
    }

    /// Groups of faults. The faults of one group do not prevent each other from striking in the same world.
    const TOGETHER: [&[(FaultKind, f64)]; 5] = [
        &[
            (FaultKind::Deploy, 1.0),
            (FaultKind::SlowStart, 0.6),
            (FaultKind::FailedStart, 0.4),
            (FaultKind::ClockSkew, 1.0),
            (FaultKind::SplitShard, 1.0),
            (FaultKind::DisconnectLost, 1.0),
        ],
        &[
            (FaultKind::Kill, 0.3),
            (FaultKind::Freeze, 0.3),
            (FaultKind::Hang, 0.5),
            (FaultKind::KillAtCall, 0.05),
        ],
        &[
            (FaultKind::InvokeThrottled, 0.3),
            (FaultKind::InvokeFailed, 0.3),
            (FaultKind::InvokeTwice, 0.5),
            (FaultKind::EventLost, 0.5),
            (FaultKind::DispatchFailed, 0.7),
            (FaultKind::DuplicateRecords, 0.7),
            (FaultKind::LateRecords, 0.7),
            (FaultKind::FailedReads, 0.4),
        ],
        &[
            (FaultKind::Throttle, 0.1),
            (FaultKind::FailBefore, 0.1),
            (FaultKind::FailAfter, 0.1),
            (FaultKind::LoseAnswer, 0.05),
            (FaultKind::SlowCall, 0.1),
            (FaultKind::Conflict, 0.1),
            (FaultKind::StaleIndex, 0.9),
        ],
        &[
            (FaultKind::PostGone, 0.1),
            (FaultKind::PostThrottled, 0.3),
            (FaultKind::PostFailed, 0.3),
            (FaultKind::PostUnanswered, 0.3),
            (FaultKind::SlowPost, 0.3),
            (FaultKind::QueueFailed, 0.5),
            (FaultKind::QueueUnanswered, 0.5),
        ],
    ];

    #[test]
    fn every_kind_of_fault_strikes_and_no_fault_strikes_after_the_faults_end() {
        let mut silent: Vec<FaultKind> = FaultKind::ALL.to_vec();
        for faults in TOGETHER {
            let world = execute(&plan(faults), &AppUnderTest::Jobs, &Until::End).unwrap();
            silent.retain(|kind| strikes(&world, *kind) == 0);
            let faults_ended = world
                .events
                .iter()
                .position(|event| matches!(event.kind, EventKind::World(WorldEvent::FaultsEnded)));
            let after = world.events.get(faults_ended.unwrap()..).unwrap();
            let late = after
                .iter()
                .find(|event| matches!(event.kind, EventKind::Fake(Observation::Injected { .. })));
            assert!(late.is_none(), "no fault is injected after the faults have ended: {late:?}");
        }
        assert!(silent.is_empty(), "every kind of fault strikes; missing: {silent:?}");
    }

    #[test]
    fn equal_plans_inject_the_same_faults_at_the_same_times() {
        let strikes = || -> Vec<String> {
            let world = execute(&plan(TOGETHER[1]), &AppUnderTest::Jobs, &Until::End).unwrap();
            let struck = world
                .events
                .iter()
                .filter(|event| matches!(event.kind, EventKind::Fake(Observation::Injected { .. })));
            struck.map(|event| format!("{event:?}")).collect()
        };
        let first = strikes();
        assert!(!first.is_empty());
        assert_eq!(strikes(), first);
    }

    #[test]
    fn fault_with_rate_zero_never_strikes() {
        let none: Vec<_> = FaultKind::ALL.iter().map(|kind| (*kind, 0.0)).collect();
        let world = execute(&plan(&none), &AppUnderTest::Jobs, &Until::End).unwrap();
        let struck: Vec<_> = FaultKind::ALL.iter().filter(|kind| strikes(&world, **kind) > 0).collect();
        assert!(struck.is_empty(), "no fault strikes: {struck:?}");
    }
}
