//! One request through all its writes, and who made them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;
use streamer::dead_letters::DeadLetter;
use streamer::ids::{TenantId, UserId};
use streamer::lifecycle::{Event as Happened, LEASE_GRACE, step};
use streamer::ports::Timestamp;
use streamer::store::Status;
use streamer::store::dynamodb::{item_of_image, part_item, request_item};

use super::image::{Stand, changed, epoch_of, has, number, subscribers, text, time};
use super::posts::Heard;
use super::{
    CONNECT, Checker, DISCONNECT, Found, Owner, PROCESSOR, ROUTER, SWEEPER, Setting, WORKER, request_of,
    rules,
};
use crate::record::{Did, HandlerEvent};
use streamer_fakes::faults::Caller;

/// What may change once a request has ended: who has heard of it.
const CHANGES_AFTER_END: [&str; 5] = ["subscribers", "timer_shard", "timer_at", "dead_letter", "redriven_as"];
/// What never changes.
const IDENTITY: [&str; 11] = [
    "client_id",
    "user_id",
    "tenant_id",
    "connection_id",
    "action",
    "payload",
    "payload_part",
    "metadata",
    "max_attempts",
    "created_at",
    "redrive_of",
];
/// What belongs to whoever runs the request.
const ATTEMPTS_OWN: [&str; 18] = [
    "status",
    "attempt",
    "continuations",
    "epoch",
    "owner",
    "lease_expires_at",
    "seq",
    "percentage",
    "progress_message",
    "progress_metadata",
    "checkpoint",
    "checkpoint_part",
    "history",
    "runner",
    "result",
    "result_part",
    "error",
    "finished_at",
];
/// The longest that nobody may have claimed a request until it is looked at.
const UNCLAIMED: Duration = Duration::from_secs(150);
/// The longest that something that is due waits for the sweeper.
const DUE_IS_SEEN_TO: Duration = Duration::from_mins(4);
/// The least time between two stored reports.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// One request, from its queueing on.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) owner: Owner,
    pub(super) id: String,
    /// The key that it is stored under.
    pub(super) stored: String,
    pub(super) image: Value,
    pub(super) stand: Stand,
    /// By epoch.
    pub(super) claims: BTreeMap<u64, Claim>,
    /// Every status that it has had, by its place in [`Status::ALL`].
    statuses: u8,
    pub(super) ended_at: Option<Timestamp>,
    /// The terminal frame, as it was told first.
    pub(super) terminal_frame: Option<String>,
    /// What each connection was told.
    pub(super) heard: BTreeMap<String, Heard>,
    /// The values that lie beside it.
    pub(super) parts: BTreeMap<String, Part>,
    /// When its holder was asked to stop.
    pub(super) asked_to_stop: Option<Timestamp>,
    /// How often its handler has begun, by attempt and continuations.
    runs: BTreeMap<(u32, u32), u32>,
    pub(super) cost: Cost,
}

/// One claim.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Which environment has made it.
    pub(super) by: Option<u64>,
    pub(super) at: Timestamp,
    attempt: u32,
    continuations: u32,
    /// Reports and renewals that were stored.
    stored: u32,
    checkpoints: u32,
}

/// A value that lies beside its request.
#[derive(Debug)]
pub(super) struct Part {
    /// What it is, if it is a result.
    pub(super) value: Option<String>,
}

/// What was written of a request beside its claims, their ends, and what is stored in between.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Writes that note who has heard of the end.
    pub(super) notes: u32,
    /// Somebody has come to listen.
    pub(super) listens: u32,
    /// Terminal frames that have arrived.
    pub(super) told: u32,
}

impl Life {
    fn new(stored: &str, image: &Value, stand: Stand) -> Self {
        let name = |attribute| text(image, attribute).unwrap_or_default().to_owned();
        let owner = Owner { user: UserId::new(name("user_id")), tenant: TenantId::new(name("tenant_id")) };
        Self {
            owner,
            id: name("client_id"),
            stored: stored.to_owned(),
            image: image.clone(),
            stand,
            claims: BTreeMap::new(),
            statuses: 0,
            ended_at: None,
            terminal_frame: None,
            heard: BTreeMap::new(),
            parts: BTreeMap::new(),
            asked_to_stop: None,
            runs: BTreeMap::new(),
            cost: Cost {
                listens: u32::try_from(subscribers(image).count()).unwrap_or(u32::MAX),
                ..Cost::default()
            },
        }
    }

    fn note_status(&mut self) {
        self.statuses |= bit(self.stand.status);
    }

    /// Whether it has ever stood so.
    pub(super) fn has_been(&self, status: Status) -> bool {
        self.statuses & bit(status) != 0
    }

    /// Whether it had ended, and its time is over.
    pub(super) fn has_expired(&self, at: Timestamp) -> bool {
        number(&self.image, "ttl").is_some_and(|ttl| ttl <= at.as_secs())
    }

    /// The result that is stored.
    pub(super) fn result(&self) -> Option<Value> {
        let inside = text(&self.image, "result");
        let beside = text(&self.image, "result_part").and_then(|part| self.parts.get(part)?.value.as_deref());
        serde_json::from_str(inside.or(beside)?).ok()
    }

    /// The code of the error that is stored.
    pub(super) fn error_code(&self) -> Option<String> {
        let error: Value = serde_json::from_str(text(&self.image, "error")?).ok()?;
        error["code"].as_str().map(str::to_owned)
    }

    /// The id of the dead letter that it owes, if it has failed.
    pub(super) fn letter_id(&self) -> Option<String> {
        let key = &self.stored;
        let created_at = number(&self.image, "created_at").unwrap_or_default();
        (self.stand.status == Status::Failed).then(|| format!("{key}#{}@{created_at}", self.stand.epoch))
    }

    /// How a dead letter differs from its request, if it does.
    pub(super) fn mismatch_of(&self, letter: &DeadLetter) -> Option<String> {
        let Some(id) = self.letter_id() else {
            return Some(format!("the request is {}", self.stand.status.as_str()));
        };
        if letter.id != id {
            return Some(format!("the request's letter is {id}"));
        }
        if self.error_code().as_deref() != Some(letter.error.code.as_str()) {
            return Some(format!("the request failed with {:?}", self.error_code()));
        }
        let payload = text(&self.image, "payload").and_then(|text| serde_json::from_str::<Value>(text).ok());
        if letter.left_out.is_empty() && payload.is_some_and(|payload| payload != letter.payload) {
            return Some("it has another payload than the request".to_owned());
        }
        None
    }
}

fn bit(status: Status) -> u8 {
    let place = Status::ALL.iter().position(|known| *known == status).unwrap_or_default();
    1 << place
}

fn is_of(caller: &Caller, function: &str) -> bool {
    caller.function().ends_with(function)
}

fn runs_requests(caller: &Caller) -> bool {
    is_of(caller, PROCESSOR) || is_of(caller, WORKER)
}

/// One write to a request's own item.
struct Write<'a> {
    at: Timestamp,
    key: &'a str,
    caller: Option<&'a Caller>,
    old: Stand,
    new: Stand,
    changed: Vec<&'a str>,
    before: &'a Value,
    image: &'a Value,
}

impl Write<'_> {
    fn has_changed(&self, attribute: &str) -> bool {
        self.changed.contains(&attribute)
    }

    fn is_claim(&self) -> bool {
        self.new.epoch != self.old.epoch
    }

    fn is_step(&self) -> bool {
        let Self { old, new, .. } = self;
        (old.status, old.attempt, old.continuations, old.epoch)
            != (new.status, new.attempt, new.continuations, new.epoch)
    }

    fn says(&self, found: &mut Found, rule: &'static str, message: String) {
        let by = self.caller.map_or_else(|| "somebody".to_owned(), |caller| format!("{caller:?}"));
        found.broken(rule, self.at, Some(self.key), format!("{by} {message}"));
    }
}

impl Checker {
    pub(super) fn wrote(
        &mut self,
        at: Timestamp,
        caller: Option<&Caller>,
        keys: &Value,
        image: Option<&Value>,
    ) {
        let (Some(stored), Some(part)) = (text(keys, request_item::KEY), text(keys, request_item::PART))
        else {
            return;
        };
        let known = self.stored.get(stored).filter(|key| self.requests.contains_key(*key)).cloned();
        if part != request_item::REQUEST_PART {
            // A part can come before its request, in one transaction.
            if let Some(key) = known {
                self.wrote_part(&key, part, image);
            }
            return;
        }
        let Some(image) = image else {
            if let Some(key) = known {
                self.gone(at, &key);
            }
            return;
        };
        let key = known.as_deref().unwrap_or(stored);
        let Some(stand) = Stand::of(image) else {
            self.found.broken(rules::ITEM_IS_SOUND, at, Some(key), format!("it cannot be read: {image}"));
            return;
        };
        let is_new = match self.requests.get(key) {
            None => true,
            Some(life) => {
                stand.epoch == 0
                    && has(&life.image, "ttl")
                    && life.image.get("created_at") != image.get("created_at")
            }
        };
        let key = if is_new {
            self.queued(at, stored, image, stand)
        } else {
            self.changed(at, key, caller, image, stand);
            key.to_owned()
        };
        if let Some(life) = self.requests.get_mut(&key) {
            life.note_status();
            is_sound(&self.setting, &mut self.found, at, &key, life);
        }
    }

    /// A request is queued, under a key that was free, or is free again.
    fn queued(&mut self, at: Timestamp, stored: &str, image: &Value, stand: Stand) -> String {
        let mut life = Life::new(stored, image, stand);
        let name = life.owner.key(&life.id);
        let key = name.as_str();
        let was_asked = self.asked.contains_key(key) || self.asks_without_id.contains(&life.owner);
        if !was_asked {
            let message =
                format!("{:?} of {:?} has sent no such request, and it is stored", life.id, life.owner);
            self.found.broken(rules::ITS_USERS_ALONE, at, Some(key), message);
        }
        if (stand.status, stand.attempt, stand.continuations, stand.epoch) != (Status::Pending, 0, 0, 0) {
            self.found.broken(rules::LEGAL_STEP, at, Some(key), format!("it begins as {stand:?}"));
        }
        let before = self.stored.insert(stored.to_owned(), name.clone());
        if let Some(before) = before.and_then(|before| self.requests.remove(&before)) {
            if !before.has_expired(at + self.setting.skew) {
                let message = "it is queued anew before it has expired".to_owned();
                self.found.broken(rules::ONE_REQUEST, at, Some(key), message);
            }
            life.parts = before.parts;
        }
        listens(&self.owners, &mut self.found, at, key, &life);
        if let Some(other) = self.requests.insert(name.clone(), life) {
            let message = format!("it is queued as {stored}, and is stored as {} already", other.stored);
            self.found.broken(rules::ONE_REQUEST, at, Some(&name), message);
        }
        name
    }

    fn changed(&mut self, at: Timestamp, key: &str, caller: Option<&Caller>, image: &Value, stand: Stand) {
        let Self { requests, found, setting, open, seemed_gone, calm_at, .. } = self;
        let Some(life) = requests.get_mut(key) else { return };
        is_seen_to(found, *calm_at, at, key, life);
        let before = std::mem::replace(&mut life.image, image.clone());
        let changed = changed(&before, image);
        let write = Write { at, key, caller, old: life.stand, new: stand, changed, before: &before, image };
        if let Some(attribute) = IDENTITY.into_iter().find(|attribute| write.has_changed(attribute)) {
            write.says(found, rules::ONE_REQUEST, format!("changes its {attribute}"));
        }
        let has_ended = write.old.status.is_terminal();
        if has_ended {
            let change = write.changed.iter().find(|attribute| !CHANGES_AFTER_END.contains(attribute));
            if let Some(attribute) = change {
                let (was, is) = (before.get(*attribute), image.get(*attribute));
                let message = format!("changes its {attribute} from {was:?} to {is:?} after its end");
                write.says(found, rules::END_STANDS, message);
            }
        } else {
            check_step(setting, found, &write, life);
            check_fence(found, &write, life);
            check_seq(found, &write);
        }
        account(setting, found, &write, life);
        let has_heard = |connection: &str| life.heard.get(connection).is_some_and(|heard| heard.has_end);
        let is_dropped = |connection: &&str| {
            open.contains(*connection) && !seemed_gone.contains(*connection) && !has_heard(connection)
        };
        let gone = subscribers(&before).filter(|one| !subscribers(image).any(|other| other == *one));
        if let Some(connection) = gone.into_iter().find(is_dropped) {
            write.says(
                found,
                rules::LISTENERS_STAY,
                format!("takes off {connection}, which has not heard the end"),
            );
        }
        let ends = !has_ended && stand.status.is_terminal();
        let (is_asked, was_asked) = (stand.cancel_requested, write.old.cancel_requested);
        let comes_to_listen = write.has_changed("subscribers");
        life.stand = stand;
        if is_asked && !was_asked {
            life.asked_to_stop = Some(at);
        } else if !is_asked && let Some(asked_at) = life.asked_to_stop.take() {
            heard_the_cancel(setting, found, at, key, asked_at);
        }
        if ends {
            life.ended_at = Some(at);
        }
        if ends || (is_asked && !was_asked) {
            self.asked_to_end(at, key, ends);
        }
        if let Some(life) = self.requests.get(key).filter(|_| comes_to_listen) {
            let found = &mut self.found;
            listens(&self.owners, found, at, key, life);
        }
    }

    /// Whether somebody wanted a request to end that is cancelled, or that is asked to stop.
    fn asked_to_end(&mut self, at: Timestamp, key: &str, ends: bool) {
        let Some(life) = self.requests.get(key) else { return };
        if ends && life.stand.status != Status::Cancelled {
            return;
        }
        let is_wanted = self.asked.get(key).is_some_and(|asked| asked.is_cancelled);
        if !is_wanted && !self.setting.cancel_on_disconnect {
            let message = "it is cancelled, and its user has not asked for that".to_owned();
            self.found.broken(rules::CANCELLED_ON_DEMAND, at, Some(key), message);
        }
    }

    fn wrote_part(&mut self, key: &str, part: &str, image: Option<&Value>) {
        let Some(life) = self.requests.get_mut(key) else { return };
        let Some(image) = image else {
            life.parts.remove(part);
            return;
        };
        let is_result = part != part_item::PAYLOAD_PART && part != part_item::CHECKPOINT_PART;
        let value = text(image, "value").filter(|_| is_result).map(str::to_owned);
        life.parts.insert(part.to_owned(), Part { value });
    }

    fn gone(&mut self, at: Timestamp, key: &str) {
        let Some(life) = self.requests.remove(key) else { return };
        if !life.has_expired(at) {
            let message = format!("it is deleted, and stood as {:?}", life.stand);
            self.found.broken(rules::EXPIRES_ONLY_ENDED, at, Some(key), message);
        }
    }

    /// A handler has begun to run a request, or is done with it.
    pub(super) fn ran(&mut self, at: Timestamp, event: &HandlerEvent) {
        let key = request_of(&event.tenant, &event.user, &event.id);
        let key = key.as_str();
        // What is quick leaves no record, and may bear the same id.
        if event.did != Did::Begin || self.asked.get(key).is_none_or(|asked| asked.may_be_quick) {
            return;
        }
        let Some(life) = self.requests.get_mut(key) else {
            let message = "its handler runs, and nothing is stored of it".to_owned();
            self.found.broken(rules::RUNS_ONCE, at, Some(key), message);
            return;
        };
        let run = (event.attempt, event.continuations);
        let times = life.runs.entry(run).or_default();
        *times += 1;
        let is_claimed = life.claims.values().any(|claim| (claim.attempt, claim.continuations) == run);
        if *times > 1 || !is_claimed {
            let (attempt, continuations) = run;
            let message = format!(
                "its handler runs as attempt {attempt} with {continuations} continuations, for the {times}. time, \
                 and is {}claimed for it",
                if is_claimed { "" } else { "not " }
            );
            self.found.broken(rules::RUNS_ONCE, at, Some(key), message);
        }
    }
}

/// Whoever listens is its user.
fn listens(owners: &HashMap<String, Owner>, found: &mut Found, at: Timestamp, key: &str, life: &Life) {
    let stranger = subscribers(&life.image)
        .find(|connection| owners.get(*connection).is_some_and(|owner| *owner != life.owner));
    if let Some(connection) = stranger {
        let message = format!("{connection} listens, which is {:?}", owners.get(connection));
        found.broken(rules::ITS_USERS_ALONE, at, Some(key), message);
    }
}

/// A step is one that the state machine takes for something that this function may have come with.
fn check_step(setting: &Setting, found: &mut Found, write: &Write<'_>, life: &Life) {
    let Write { at, caller, old, new, .. } = write;
    if new.attempt > new.max_attempts {
        let message = format!("begins attempt {} of {}", new.attempt, new.max_attempts);
        write.says(found, rules::ATTEMPTS_BOUNDED, message);
    }
    if !write.is_step() {
        return;
    }
    let next = Happened::Failed { next: Some(new.timer_at.unwrap_or_default()) };
    let claimed = Happened::Claimed { until: new.lease_end.unwrap_or_default() };
    let run =
        [Happened::Succeeded, next, Happened::Failed { next: None }, Happened::Yielded, Happened::Stopped];
    let events: &[Happened] = match caller {
        Some(caller) if is_of(caller, SWEEPER) => &[Happened::TimerFired],
        Some(caller) if is_of(caller, ROUTER) || is_of(caller, DISCONNECT) => &[Happened::CancelAsked],
        Some(caller) if is_of(caller, CONNECT) => &[],
        _ if write.is_claim() => &[claimed],
        _ => &run,
    };
    // A function may be ahead of the world.
    let now = *at + setting.skew;
    let is_legal = events.iter().any(|event| new.is(&step(old.state(), *event, now, &setting.rules).state));
    let rises = new.epoch == old.epoch + u64::from(new.status == Status::Processing);
    if !is_legal
        || !rises
        || (new.status.is_terminal() && (new.attempt, new.continuations) != (old.attempt, old.continuations))
    {
        write.says(found, rules::LEGAL_STEP, format!("makes {new:?} of {old:?}"));
    }
    let is_taken = old.status == Status::Processing
        && caller.is_some_and(|caller| is_of(caller, SWEEPER))
        && setting.is_faultless;
    if is_taken {
        let since = life.claims.get(&old.epoch).map(|claim| at.since(claim.at));
        let message =
            format!("takes its lease, which ended at {:?}, {since:?} after the claim", old.lease_end);
        write.says(found, rules::LEASE_IS_KEPT, message);
    }
}

/// The attempt's own attributes are its holder's, or the sweeper's who ends it.
fn check_fence(found: &mut Found, write: &Write<'_>, life: &mut Life) {
    let Write { at, caller, old, new, .. } = write;
    let number = caller.map(Caller::number);
    if write.is_claim() {
        let claim = Claim {
            by: number,
            at: *at,
            attempt: new.attempt,
            continuations: new.continuations,
            stored: 0,
            checkpoints: 0,
        };
        life.claims.insert(new.epoch, claim);
        return;
    }
    let Some(caller) = caller else { return };
    let Some(own) = write.changed.iter().find(|attribute| ATTEMPTS_OWN.contains(attribute)) else { return };
    let holder = life.claims.get(&old.epoch);
    let is_holders = old.status == Status::Processing && holder.is_some_and(|claim| claim.by == number);
    let may = if runs_requests(caller) { is_holders } else { write.is_step() };
    if !may {
        let message = format!(
            "changes its {own} in epoch {}, which {:?} has claimed, and stands as {:?}",
            old.epoch,
            holder.and_then(|claim| claim.by),
            old.status
        );
        write.says(found, rules::FENCED, message);
    }
    let is_left = text(write.image, "owner").is_some();
    if !runs_requests(caller) && write.is_step() && new.status.is_terminal() && is_left {
        write.says(
            found,
            rules::FENCED,
            "ends it, and leaves its owner, who may take the end for its own".to_owned(),
        );
    }
}

/// The stored number never falls, and while an attempt runs it is one of its own.
fn check_seq(found: &mut Found, write: &Write<'_>) {
    let Write { old, new, caller, .. } = write;
    let is_holders = caller.is_some_and(runs_requests) && !write.is_claim();
    let is_own = epoch_of(new.seq) == new.epoch || new.seq == (new.epoch + 1) << 20;
    if new.seq < old.seq || (is_holders && new.seq != old.seq && !is_own) {
        let message = format!("sets its number from {} to {} in epoch {}", old.seq, new.seq, new.epoch);
        write.says(found, rules::STORED_SEQ_RISES, message);
    }
    if !old.status.is_terminal() && new.status.is_terminal() && new.seq <= old.seq {
        let message = format!("ends it under number {}, which is not above {}", new.seq, old.seq);
        write.says(found, rules::STORED_SEQ_RISES, message);
    }
}

/// Reports and renewals come at their pace.
fn account(setting: &Setting, found: &mut Found, write: &Write<'_>, life: &mut Life) {
    let Write { at, old, new, caller, .. } = write;
    let is_runners = caller.is_some_and(runs_requests);
    let (before, now) = (subscribers(write.before).count(), subscribers(write.image).count());
    if write.has_changed("subscribers") {
        // Whoever listens already may come again, further on.
        life.cost.listens += u32::from(now >= before);
    }
    let by_router = caller.is_some_and(|caller| is_of(caller, ROUTER));
    let is_note = old.status.is_terminal() && (now < before || !write.has_changed("subscribers"));
    life.cost.notes += u32::from(is_note && (is_runners || by_router));
    let Some(claim) = life.claims.get_mut(&old.epoch) else { return };
    if old.status != Status::Processing || write.is_step() || !is_runners {
        return;
    }
    if write.has_changed("checkpoint") || write.has_changed("checkpoint_part") {
        claim.checkpoints += 1;
    } else if write.has_changed("lease_expires_at") {
        claim.stored += 1;
    }
    // A big checkpoint is followed by a renewal; a write may be slow and overtaken by none.
    let seconds = at.since(claim.at).as_millis() / STORE_INTERVAL.as_millis();
    let most = seconds + 3 + 2 * u128::from(claim.checkpoints);
    if u128::from(claim.stored) > most && new.status == Status::Processing && setting.is_faultless {
        let message = format!("stores {} reports within {seconds} s", claim.stored);
        write.says(found, rules::PACED, message);
    }
}

/// What falls due is seen to within some minutes, once nothing goes wrong any more: the sweeper comes each minute, and may
/// have to wait for the one before it to be done.
pub(super) fn is_seen_to(
    found: &mut Found,
    calm_at: Option<Timestamp>,
    at: Timestamp,
    key: &str,
    life: &Life,
) {
    let (Some(calm_at), Some(timer_at)) = (calm_at, life.stand.timer_at) else { return };
    let late = at.since(timer_at.max(calm_at));
    if late > DUE_IS_SEEN_TO {
        let message =
            format!("its timer fired at {timer_at}, {late:?} ago, and it stands as {:?}", life.stand);
        found.broken(rules::DUE_IS_SEEN_TO, at, Some(key), message);
    }
}

/// Who is asked to stop hears of it with the next renewal, and has some seconds then.
fn heard_the_cancel(setting: &Setting, found: &mut Found, at: Timestamp, key: &str, asked_at: Timestamp) {
    let most = setting.lease / 3 + Duration::from_secs(10);
    if setting.is_faultless && at.since(asked_at) > most {
        let message = format!("it ends {:?} after it was asked to, not within {most:?}", at.since(asked_at));
        found.broken(rules::CANCEL_IS_HEARD, at, Some(key), message);
    }
}

/// What every image of a request must be, whatever came before it.
fn is_sound(setting: &Setting, found: &mut Found, at: Timestamp, key: &str, life: &Life) {
    let Life { image, stand, .. } = life;
    let has = |attribute| has(image, attribute);
    let status = stand.status;
    let is_open = !status.is_terminal();
    let mut wrong = |rule, message: &str| {
        found.broken(rule, at, Some(key), format!("{message}, and it stands as {stand:?}"));
    };
    let has_timer = has("timer_shard") && stand.timer_at.is_some();
    if !has_timer && (is_open || has("dead_letter") || subscribers(image).next().is_some()) {
        wrong(rules::HAS_A_TIMER, "it has no timer");
    }
    let latest = match status {
        Status::Pending => Some(at + UNCLAIMED),
        Status::Processing => stand.lease_end.map(|end| end.max(at) + LEASE_GRACE + setting.lease),
        Status::Retrying | Status::Completed | Status::Failed | Status::Cancelled => None,
    };
    if let (Some(timer), Some(latest)) = (stand.timer_at, latest)
        && timer > latest + setting.skew + Duration::from_secs(1)
    {
        wrong(rules::HAS_A_TIMER, "its timer is too late");
    }
    if is_open == has("ttl") || is_open == has("finished_at") {
        wrong(rules::EXPIRES_ONLY_ENDED, "it has a time to live and an end, or not");
    }
    if let (Some(ttl), Some(end)) = (number(image, "ttl"), time(image, "finished_at"))
        && ttl != (end + setting.ttl).as_secs()
    {
        wrong(rules::EXPIRES_ONLY_ENDED, "it expires at another time than it should");
    }
    let is_held = status == Status::Processing;
    let in_shard = text(image, "status_shard").and_then(|shard| shard.split('#').next());
    let has_result = has("result") || has("result_part");
    let is_sound = is_held == has("lease_expires_at")
        && (!is_held || has("owner"))
        && (is_held || !has("cancel_requested"))
        && in_shard == Some(status.as_str())
        && has_result == (status == Status::Completed)
        && has("error") == (status == Status::Failed)
        && (!has("dead_letter") || status == Status::Failed);
    if !is_sound {
        wrong(rules::ITEM_IS_SOUND, "it has attributes that its status does not have, or lacks some");
    }
    if status.is_terminal() && life.ended_at == Some(at) {
        let read = item_of_image(image).map_err(|error| error.to_string());
        let read =
            read.and_then(|item| request_item::decode_summary(&item).map_err(|error| error.to_string()));
        if let Err(error) = read {
            wrong(rules::ITEM_IS_SOUND, &error);
        }
    }
}
