//! What functions push to clients.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::image::{epoch_of, place_of};
use super::request::Life;
use super::{Checker, Setting, rules};
use streamer_fakes::faults::Caller;
use streamer_fakes::observe::Answer;

/// What a frame is, without what it tells.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) seq: Option<u64>,
}

impl<'a> Head<'a> {
    /// Of a frame of ours; what else arrives is the gateway's own, or an app's.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether it ends a queued request.
    pub(super) fn is_end(&self) -> bool {
        self.seq.is_some() && matches!(&*self.kind, "complete" | "error")
    }

    pub(super) fn is_progress(&self) -> bool {
        self.seq.is_some() && self.kind == "progress"
    }
}

/// What a connection was told about a request.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The last number from each environment and attempt: these are serial.
    last: BTreeMap<(Option<u64>, u64), u64>,
    /// From which attempts a frame came too late.
    late: BTreeMap<u64, u32>,
    pub(super) has_end: bool,
}

/// A frame on its way, and to whom.
struct Post<'a> {
    at: Timestamp,
    by: Option<&'a Caller>,
    connection: &'a str,
    text: &'a str,
    seq: u64,
}

impl Checker {
    pub(super) fn posted(
        &mut self,
        at: Timestamp,
        caller: Option<&Caller>,
        connection: &str,
        frame: &str,
        answer: &Answer,
    ) {
        if *answer != Answer::Done {
            return;
        }
        let (Some(head), Some(owner)) = (Head::of(frame), self.owners.get(connection)) else { return };
        let (Some(id), Some(seq)) = (&head.request_id, head.seq) else { return };
        if !head.is_end() && !head.is_progress() {
            return;
        }
        let key = owner.key(id);
        let post = Post { at, by: caller, connection, text: frame, seq };
        let Self { requests, found, setting, .. } = self;
        let wrongs = match requests.get_mut(&key) {
            None => vec![(rules::ITS_USERS_ALONE, "there is no such request of its user's".to_owned())],
            Some(life) if head.is_end() => ended(life, &post),
            Some(life) => progressed(setting, life, &post),
        };
        for (rule, wrong) in wrongs {
            let by = caller.map_or_else(|| "somebody".to_owned(), |caller| format!("{caller:?}"));
            let frame: String = frame.chars().take(160).collect();
            found.broken(rule, at, Some(&key), format!("{by} sends {connection} {frame}, and {wrong}"));
        }
    }
}

type Wrongs = Vec<(&'static str, String)>;

/// A terminal frame is sent once the end is written, and is what is written.
fn ended(life: &mut Life, post: &Post<'_>) -> Wrongs {
    let Post { connection, text, seq, .. } = post;
    let status = life.stand.status;
    if !status.is_terminal() {
        return vec![(rules::WRITTEN_BEFORE_TOLD, format!("the request is {}", status.as_str()))];
    }
    let mut wrongs = Wrongs::new();
    let heard = life.heard.entry((*connection).to_owned()).or_default();
    heard.has_end = true;
    life.cost.told += 1;
    match &life.terminal_frame {
        Some(first) if first == text => return wrongs,
        Some(first) => {
            wrongs.push((rules::ONE_TERMINAL_FRAME, format!("it was {first} before")));
            return wrongs;
        }
        None => life.terminal_frame = Some((*text).to_owned()),
    }
    // A client that has heard a higher number would drop it.
    if let Some(last) = heard.last.values().max().filter(|last| *last >= seq) {
        wrongs.push((rules::SEQ_RISES, format!("it was told number {last} before")));
    }
    if *seq != life.stand.seq {
        wrongs.push((rules::ONE_TERMINAL_FRAME, format!("the number that is stored is {}", life.stand.seq)));
    }
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let code = frame["error"]["code"].as_str();
    let is_it = match status {
        Status::Completed => frame["type"] == "complete" && Some(&frame["result"]) == life.result().as_ref(),
        Status::Failed => code.is_some() && code == life.error_code().as_deref(),
        Status::Cancelled => code == Some("CANCELLED"),
        Status::Pending | Status::Processing | Status::Retrying => false,
    };
    if !is_it {
        let stored = (status.as_str(), life.result(), life.error_code());
        wrongs.push((rules::ONE_TERMINAL_FRAME, format!("what is stored is {stored:?}")));
    }
    // The simulator's own handlers answer with whom they ran for.
    let whom = |name: &str| frame["result"][name].as_str();
    if let (Some(user), Some(tenant), Some(id)) = (whom("user"), whom("tenant"), whom("id"))
        && (user, tenant, id) != (life.owner.user.as_str(), life.owner.tenant.as_str(), life.id.as_str())
    {
        wrongs.push((rules::ITS_USERS_ALONE, "it tells of another's request".to_owned()));
    }
    wrongs
}

/// Progress comes from the holder of its attempt's lease, at its pace, in order.
fn progressed(setting: &Setting, life: &mut Life, post: &Post<'_>) -> Wrongs {
    let Post { at, by, connection, seq, .. } = post;
    let (number, epoch) = (by.map(Caller::number), epoch_of(*seq));
    let mut wrongs = Wrongs::new();
    let Some(claim) = life.claims.get(&epoch) else {
        wrongs.push((rules::SILENT_WITHOUT_LEASE, format!("epoch {epoch} was never claimed")));
        return wrongs;
    };
    if claim.by != number {
        wrongs.push((rules::ITS_USERS_ALONE, format!("{:?} has claimed epoch {epoch}", claim.by)));
    }
    let most = at.since(claim.at).as_millis() / 100 + 3;
    if u128::from(place_of(*seq)) > most {
        let message = format!("no more than {most} are due since the claim");
        wrongs.push((rules::PACED, message));
    }
    let stand = &life.stand;
    // Whoever has written the end may still say what came before it.
    let is_own_end = stand.status.is_terminal() && stand.epoch == epoch && epoch_of(stand.seq) == epoch;
    let is_held = stand.status == Status::Processing
        && stand.epoch == epoch
        && stand.lease_end.is_some_and(|end| *at <= end + setting.skew);
    let heard = life.heard.entry((*connection).to_owned()).or_default();
    let mut is_late = false;
    let may_speak = is_held || (is_own_end && !heard.has_end);
    if !may_speak {
        let late = heard.late.entry(epoch).or_default();
        *late += 1;
        is_late = setting.may_be_late && *late == 1;
        if !is_late {
            let stands = format!("the request stands as {stand:?}");
            let rule = if heard.has_end { rules::SEQ_RISES } else { rules::SILENT_WITHOUT_LEASE };
            wrongs.push((rule, stands));
        }
    }
    let last = heard.last.entry((number, epoch)).or_default();
    if seq <= last && !is_late {
        wrongs.push((rules::SEQ_RISES, format!("it was told number {last} before")));
    }
    *last = (*last).max(*seq);
    wrongs
}
