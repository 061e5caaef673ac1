//! Checks of the frames that functions push to clients.

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

/// A frame that was pushed to a connection.
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
        if !header.is_terminal() && !header.is_progress() {
            return;
        }
        let key = owner.key(id);
        let post = Post { at, by: caller, connection, text: frame, seq };
        let Self { requests, found, limits, .. } = self;
        let problems = match requests.get_mut(&key) {
            None => {
                vec![(rules::BELONGS_TO_ITS_USER, "the connection's user has no such request".to_owned())]
            }
            Some(request) if header.is_terminal() => check_terminal_frame(request, &post),
            Some(request) => check_progress(limits, request, &post),
        };
        for (rule, problem) in problems {
            let by = caller.map_or_else(|| "an unknown caller".to_owned(), |caller| format!("{caller:?}"));
            let frame: String = frame.chars().take(160).collect();
            found.broken(rule, at, Some(&key), format!("{by} pushed {frame} to {connection}, but {problem}"));
        }
    }
}

type Problems = Vec<(&'static str, String)>;

/// Checks that a pushed terminal frame follows the terminal write and matches the request's item.
fn check_terminal_frame(request: &mut RequestModel, post: &Post<'_>) -> Problems {
    let Post { connection, text, seq, .. } = post;
    let status = request.state.status;
    if !status.is_terminal() {
        return vec![(
            rules::WRITTEN_BEFORE_DELIVERED,
            format!("the request's status is {}", status.as_str()),
        )];
    }
    let mut problems = Problems::new();
    let pushed = request.pushed.entry((*connection).to_owned()).or_default();
    pushed.has_terminal_frame = true;
    request.cost.deliveries += 1;
    match &request.terminal_frame {
        Some(first) if first == text => return problems,
        Some(first) => {
            problems.push((rules::ONE_TERMINAL_FRAME, format!("an earlier terminal frame was {first}")));
            return problems;
        }
        None => request.terminal_frame = Some((*text).to_owned()),
    }
    // A client that has received a higher sequence number drops this frame.
    if let Some(last) = pushed.last.values().max().filter(|last| *last >= seq) {
        problems
            .push((rules::SEQ_RISES, format!("sequence number {last} was already pushed to the connection")));
    }
    if *seq != request.state.seq {
        problems.push((
            rules::ONE_TERMINAL_FRAME,
            format!("the stored sequence number is {}", request.state.seq),
        ));
    }
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let code = frame["error"]["code"].as_str();
    let matches_item = match status {
        Status::Completed => {
            frame["type"] == "complete" && Some(&frame["result"]) == request.result().as_ref()
        }
        Status::Failed => code.is_some() && code == request.error_code().as_deref(),
        Status::Cancelled => code == Some("CANCELLED"),
        Status::Pending | Status::Processing | Status::Retrying => false,
    };
    if !matches_item {
        let stored = (status.as_str(), request.result(), request.error_code());
        problems.push((rules::ONE_TERMINAL_FRAME, format!("the item holds {stored:?}")));
    }
    // The results of the simulator's own handlers name the user, tenant and request id.
    let field = |name: &str| frame["result"][name].as_str();
    if let (Some(user), Some(tenant), Some(id)) = (field("user"), field("tenant"), field("id"))
        && (user, tenant, id)
            != (request.owner.user.as_str(), request.owner.tenant.as_str(), request.id.as_str())
    {
        problems.push((rules::BELONGS_TO_ITS_USER, "the result belongs to a different request".to_owned()));
    }
    problems
}

/// Checks that a pushed progress frame comes from the holder of the lease, at a limited rate, with rising
/// sequence numbers.
fn check_progress(limits: &Limits, request: &mut RequestModel, post: &Post<'_>) -> Problems {
    let Post { at, by, connection, seq, .. } = post;
    let (number, epoch) = (by.map(Caller::number), epoch_of(*seq));
    let mut problems = Problems::new();
    let Some(claim) = request.claims.get(&epoch) else {
        problems.push((rules::NO_PUSH_WITHOUT_LEASE, format!("epoch {epoch} was never claimed")));
        return problems;
    };
    if claim.by != number {
        problems.push((
            rules::BELONGS_TO_ITS_USER,
            format!("environment {:?} has claimed epoch {epoch}", claim.by),
        ));
    }
    let most = at.since(claim.at).as_millis() / 100 + 3;
    if u128::from(place_of(*seq)) > most {
        let message = format!("at most {most} frames are allowed since the claim");
        problems.push((rules::PACED, message));
    }
    let state = &request.state;
    // The attempt that made the terminal write may still push progress from before that write.
    let is_own_end = state.status.is_terminal() && state.epoch == epoch && epoch_of(state.seq) == epoch;
    let is_held = state.status == Status::Processing
        && state.epoch == epoch
        && state.lease_end.is_some_and(|end| *at <= end + limits.skew);
    let pushed = request.pushed.entry((*connection).to_owned()).or_default();
    let mut is_late = false;
    let may_push = is_held || (is_own_end && !pushed.has_terminal_frame);
    if !may_push {
        let late = pushed.late.entry(epoch).or_default();
        *late += 1;
        is_late = limits.may_be_late && *late == 1;
        if !is_late {
            let message = format!("the request is in state {state:?}");
            let rule =
                if pushed.has_terminal_frame { rules::SEQ_RISES } else { rules::NO_PUSH_WITHOUT_LEASE };
            problems.push((rule, message));
        }
    }
    let last = pushed.last.entry((number, epoch)).or_default();
    if seq <= last && !is_late {
        problems
            .push((rules::SEQ_RISES, format!("sequence number {last} was already pushed to the connection")));
    }
    *last = (*last).max(*seq);
    problems
}
