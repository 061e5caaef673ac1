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

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::sight::{Observer, Sight};
use crate::watch;

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
    seen: u32,
    hits: u32,
}

impl Faults {
    /// Has a fault happen from now on, until its guard is dropped.
    #[must_use = "the fault ends when its guard is dropped"]
    pub fn add(&self, fault: Fault) -> FaultGuard {
        let mut rules = self.lock();
        let id = rules.next;
        rules.next += 1;
        rules.standing.insert(id, Standing { fault, seen: 0, hits: 0 });
        FaultGuard { id, faults: self.clone(), kept: false }
    }

    /// Whether there is any rule.
    pub(crate) fn any(&self) -> bool {
        !self.lock().standing.is_empty()
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
        for standing in self.lock().standing.values_mut() {
            let Standing { fault, seen, hits } = standing;
            if !fault.call.matches(occasion)
                || !possible(fault.effect)
                || (effects.effect.is_some() && !fault.effect.is_delay())
            {
                continue;
            }
            *seen = seen.saturating_add(1);
            if *seen <= fault.after || fault.times.is_some_and(|times| *hits >= times) {
                continue;
            }
            *hits = hits.saturating_add(1);
            if let Effect::Delay(delay) = fault.effect {
                effects.delay = effects.delay.saturating_add(delay);
            } else {
                effects.effect = Some(fault.effect);
                on.clone_from(&fault.call.resource);
            }
        }
        (effects, on)
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

/// One fault: what goes wrong, with which calls, and how often.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    call: Call,
    effect: Effect,
    after: u32,
    times: Option<u32>,
}

impl Fault {
    fn new(call: Call, effect: Effect) -> Self {
        Self { call, effect, after: 0, times: None }
    }

    /// The call is refused for its rate, and has no effect: `ThrottlingException` of DynamoDB (of a provisioned table
    /// `ProvisionedThroughputExceededException`, of a transaction a reason why it is cancelled),
    /// `LimitExceededException` (429) of a post, `TooManyRequestsException` of an invocation.
    ///
    /// A batch of DynamoDB that names other tables than that which the fault is [`on`](Call::on) does the rest, and
    /// says what it left unprocessed.
    #[must_use]
    pub fn throttle(call: Call) -> Self {
        Self::new(call, Effect::Throttle)
    }

    /// The call fails with status 500, and has no effect; of a batch, as with [`throttle`](Self::throttle). An invocation
    /// fails as if its process had crashed at once.
    #[must_use]
    pub fn fail(call: Call) -> Self {
        Self::new(call, Effect::Fail)
    }

    /// The call takes effect, and its caller gets status 500.
    #[must_use]
    pub fn fail_after_apply(call: Call) -> Self {
        Self::new(call, Effect::FailAfterApply)
    }

    /// The call takes effect, and its caller never gets an answer.
    #[must_use]
    pub fn lose_answer(call: Call) -> Self {
        Self::new(call, Effect::LoseAnswer)
    }

    /// The call takes effect this much later, whether or not its caller still waits then, and so does everything that
    /// waits for it.
    #[must_use]
    pub fn delay(call: Call, delay: Duration) -> Self {
        Self::new(call, Effect::Delay(delay))
    }

    /// The write meets a transaction: `TransactionConflictException`, or within a transaction
    /// `TransactionCanceledException` with the reason `TransactionConflict`.
    #[must_use]
    pub fn conflict(call: Call) -> Self {
        Self::new(call, Effect::Conflict)
    }

    /// The query or scan of an index does not see what was written within the last `lag`.
    #[must_use]
    pub fn stale(call: Call, lag: Duration) -> Self {
        Self::new(call, Effect::Stale(lag))
    }

    /// The post finds its connection gone (410), though it is open.
    #[must_use]
    pub fn gone(call: Call) -> Self {
        Self::new(call, Effect::Gone)
    }

    /// The caller may not post: 403 `AccessDeniedException`.
    #[must_use]
    pub fn deny(call: Call) -> Self {
        Self::new(call, Effect::Deny)
    }

    /// The records of a stream that were read are delivered twice.
    #[must_use]
    pub fn duplicate(call: Call) -> Self {
        Self::new(call, Effect::Duplicate)
    }

    /// The function that makes the call dies before the call has an effect, as by SIGKILL. Of a [`Call::invoke`], the
    /// function that is invoked dies as soon as it has its event.
    #[must_use]
    pub fn kill(call: Call) -> Self {
        Self::new(call, Effect::Kill)
    }

    /// Lets this many matching calls pass first.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// Happens this often at most. Default: always.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// Which calls a fault is about. What is not narrowed down matches anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    service: Service,
    operation: Option<String>,
    resource: Option<String>,
    index: Option<String>,
    caller: Option<String>,
}

impl Call {
    fn new(service: Service, operation: Option<&str>) -> Self {
        Self { service, operation: operation.map(str::to_owned), resource: None, index: None, caller: None }
    }

    /// An operation of DynamoDB, such as `UpdateItem`.
    #[must_use]
    pub fn dynamodb(operation: &str) -> Self {
        Self::new(Service::DynamoDb, Some(operation))
    }

    /// Every operation of DynamoDB.
    #[must_use]
    pub fn any_dynamodb() -> Self {
        Self::new(Service::DynamoDb, None)
    }

    /// A frame that is posted to a client (`PostToConnection`); [`on`](Self::on) takes the connection's id.
    #[must_use]
    pub fn post() -> Self {
        Self::new(Service::Connections, Some("PostToConnection"))
    }

    /// The `$disconnect` event of a connection: one that fails never comes, which AWS does not rule out.
    #[must_use]
    pub fn disconnect() -> Self {
        Self::new(Service::Connections, Some("$disconnect"))
    }

    /// The invocation of a function.
    #[must_use]
    pub fn invoke(function: &str) -> Self {
        Self { resource: Some(function.to_owned()), ..Self::new(Service::Lambda, Some("Invoke")) }
    }

    /// A message that is sent to a queue.
    #[must_use]
    pub fn send_message() -> Self {
        Self::new(Service::Sqs, Some("SendMessage"))
    }

    /// A table's stream records on their way to a function: reads of them may be throttled or fail, and their deliveries be
    /// late or come twice. What SDKs and HTTP clients read of the stream (`GetRecords`) can be throttled, fail or be late.
    #[must_use]
    pub fn records(table: &str) -> Self {
        Self { resource: Some(table.to_owned()), ..Self::new(Service::Streams, Some("GetRecords")) }
    }

    /// Only on this table, connection or queue.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only on this index.
    #[must_use]
    pub fn index(mut self, index: &str) -> Self {
        self.index = Some(index.to_owned());
        self
    }

    /// Only when this function makes it, which is known of functions that run in process.
    #[must_use]
    pub fn by(mut self, function: &str) -> Self {
        self.caller = Some(function.to_owned());
        self
    }

    fn matches(&self, occasion: &Occasion<'_>) -> bool {
        let fits = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        self.service == occasion.service
            && fits(&self.operation, Some(occasion.operation))
            && self.resource.as_deref().is_none_or(|wanted| occasion.resources.contains(&wanted))
            && fits(&self.index, occasion.index)
            && fits(&self.caller, occasion.caller)
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

/// One execution environment of a function that runs in process, as the calls that it makes name it.
#[derive(Clone)]
pub struct Caller(Arc<Life>);

/// As `Processor#7`: the function, and which of the stage's environments it is.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0.function, self.0.number)
    }
}

#[derive(Debug)]
struct Life {
    function: String,
    number: u64,
    killed: watch::Sender<bool>,
}

impl Caller {
    /// A new environment of `function`.
    #[must_use]
    pub fn new(function: impl Into<String>) -> Self {
        Self::numbered(function, 0)
    }

    /// The stage's environment of this number.
    pub(crate) fn numbered(function: impl Into<String>, number: u64) -> Self {
        Self(Arc::new(Life { function: function.into(), number, killed: watch::Sender::new(false) }))
    }

    /// Which of the stage's environments it is, in the order in which they were started.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether the environment is dead.
    pub(crate) fn is_killed(&self) -> bool {
        *self.0.killed.borrow()
    }

    /// The function's name.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// Has the environment die: whoever runs it waits for [`killed`](Self::killed), and drops what it runs.
    pub fn kill(&self) {
        self.0.killed.send_replace(true);
    }

    /// Waits until the environment is killed.
    pub async fn killed(&self) {
        // The sender lives as long as we do.
        let _ = self.0.killed.subscribe().wait_for(|killed| *killed).await;
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    DynamoDb,
    Streams,
    Connections,
    Lambda,
    Sqs,
}

/// One call, as a fake sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// The tables, the connection, the function or the queue that it is about.
    pub(crate) resources: &'a [&'a str],
    pub(crate) index: Option<&'a str>,
    /// The function that makes it, where that is known.
    pub(crate) caller: Option<&'a str>,
}

/// What is to go wrong with a call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Effects {
    /// How much later it takes effect.
    pub(crate) delay: Duration,
    /// What else; never a delay.
    pub(crate) effect: Option<Effect>,
}

/// How a call goes wrong. A fake ignores what cannot happen to its calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Throttle,
    Fail,
    FailAfterApply,
    LoseAnswer,
    Delay(Duration),
    Conflict,
    Stale(Duration),
    Gone,
    Deny,
    Duplicate,
    Kill,
}

impl Effect {
    const fn is_delay(self) -> bool {
        matches!(self, Self::Delay(_))
    }
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
