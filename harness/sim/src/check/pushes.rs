//! What functions push to clients.

use serde_json::Value;
use streamer::ports::Timestamp;
use streamer::store::Status;

use super::frame_header::FrameHeader;
use super::image::{epoch_of, place_of};
use super::limits::Limits;
use super::request_model::RequestModel;
use super::rules;
use super::world_model::WorldModel;
use streamer_fakes::faults::Caller;
use streamer_fakes::observe::Answer;

/// A frame on its way, and to whom.
struct Post<'a> {
    at: Timestamp,
    by: Option<&'a Caller>,
    connection: &'a str,
    text: &'a str,
    seq: u64,
}

impl WorldModel {
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
        let (Some(header), Some(owner)) = (FrameHeader::of(frame), self.owners.get(connection)) else {
            return;
        };
        let (Some(id), Some(seq)) = (&header.request_id, header.seq) else { return };
        if !header.is_end() && !header.is_progress() {
            return;
        }
        let key = owner.key(id);
        let post = Post { at, by: caller, connection, text: frame, seq };
        let Self { requests, found, limits, .. } = self;
        let wrongs = match requests.get_mut(&key) {
            None => vec![(rules::ITS_USERS_ALONE, "there is no such request of its user's".to_owned())],
            Some(request) if header.is_end() => ended(request, &post),
            Some(request) => progressed(limits, request, &post),
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
fn ended(request: &mut RequestModel, post: &Post<'_>) -> Wrongs {
    let Post { connection, text, seq, .. } = post;
    let status = request.state.status;
    if !status.is_terminal() {
        return vec![(rules::WRITTEN_BEFORE_DELIVERED, format!("the request is {}", status.as_str()))];
    }
    let mut wrongs = Wrongs::new();
    let pushed = request.pushed.entry((*connection).to_owned()).or_default();
    pushed.has_terminal_frame = true;
    request.cost.deliveries += 1;
    match &request.terminal_frame {
        Some(first) if first == text => return wrongs,
        Some(first) => {
            wrongs.push((rules::ONE_TERMINAL_FRAME, format!("it was {first} before")));
            return wrongs;
        }
        None => request.terminal_frame = Some((*text).to_owned()),
    }
    // A client that has heard a higher number would drop it.
    if let Some(last) = pushed.last.values().max().filter(|last| *last >= seq) {
        wrongs.push((rules::SEQ_RISES, format!("it was told number {last} before")));
    }
    if *seq != request.state.seq {
        wrongs
            .push((rules::ONE_TERMINAL_FRAME, format!("the number that is stored is {}", request.state.seq)));
    }
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let code = frame["error"]["code"].as_str();
    let is_it = match status {
        Status::Completed => {
            frame["type"] == "complete" && Some(&frame["result"]) == request.result().as_ref()
        }
        Status::Failed => code.is_some() && code == request.error_code().as_deref(),
        Status::Cancelled => code == Some("CANCELLED"),
        Status::Pending | Status::Processing | Status::Retrying => false,
    };
    if !is_it {
        let stored = (status.as_str(), request.result(), request.error_code());
        wrongs.push((rules::ONE_TERMINAL_FRAME, format!("what is stored is {stored:?}")));
    }
    // The simulator's own handlers answer with whom they ran for.
    let whom = |name: &str| frame["result"][name].as_str();
    if let (Some(user), Some(tenant), Some(id)) = (whom("user"), whom("tenant"), whom("id"))
        && (user, tenant, id)
            != (request.owner.user.as_str(), request.owner.tenant.as_str(), request.id.as_str())
    {
        wrongs.push((rules::ITS_USERS_ALONE, "it tells of another's request".to_owned()));
    }
    wrongs
}

/// Progress comes from the holder of its attempt's lease, at its pace, in order.
fn progressed(limits: &Limits, request: &mut RequestModel, post: &Post<'_>) -> Wrongs {
    let Post { at, by, connection, seq, .. } = post;
    let (number, epoch) = (by.map(Caller::number), epoch_of(*seq));
    let mut wrongs = Wrongs::new();
    let Some(claim) = request.claims.get(&epoch) else {
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
    let state = &request.state;
    // Whoever has written the end may still say what came before it.
    let is_own_end = state.status.is_terminal() && state.epoch == epoch && epoch_of(state.seq) == epoch;
    let is_held = state.status == Status::Processing
        && state.epoch == epoch
        && state.lease_end.is_some_and(|end| *at <= end + limits.skew);
    let pushed = request.pushed.entry((*connection).to_owned()).or_default();
    let mut is_late = false;
    let may_speak = is_held || (is_own_end && !pushed.has_terminal_frame);
    if !may_speak {
        let late = pushed.late.entry(epoch).or_default();
        *late += 1;
        is_late = limits.may_be_late && *late == 1;
        if !is_late {
            let stands = format!("the request stands as {state:?}");
            let rule = if pushed.has_terminal_frame { rules::SEQ_RISES } else { rules::SILENT_WITHOUT_LEASE };
            wrongs.push((rule, stands));
        }
    }
    let last = pushed.last.entry((number, epoch)).or_default();
    if seq <= last && !is_late {
        wrongs.push((rules::SEQ_RISES, format!("it was told number {last} before")));
    }
    *last = (*last).max(*seq);
    wrongs
}
