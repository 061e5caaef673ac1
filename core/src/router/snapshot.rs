use serde_json::{Map, Value, json};

use super::response;
use crate::ids::RequestId;
use crate::protocol::{ErrorBody, Frame, MAX_FRAME_BYTES};
use crate::store::{Ending, Request};

/// Returns a `response` frame with the id `id`, whose data is the snapshot of `request`.
///
/// If the frame would be larger than the gateway carries, `result_omitted: true` replaces a result, and an
/// error is sent without its message and details. A client that
/// [subscribes](crate::app::App::BUILT_IN_ACTIONS) receives the result in a separate frame.
pub(super) fn snapshot(id: RequestId, request: &Request) -> Frame {
    let mut data = state_fields(request);
    let ending = match &request.ending {
        None => None,
        Some(Ending::Completed(result)) => Some(("result", result.clone())),
        Some(Ending::Failed(error)) => Some(("error", json!(error))),
        Some(Ending::Cancelled) => Some(("error", json!(ErrorBody::cancelled()))),
    };
    if let Some((key, value)) = ending {
        data.insert(key.into(), value);
    }
    let frame = response(id.clone(), Value::Object(data));
    if frame.to_json().len() <= MAX_FRAME_BYTES {
        return frame;
    }
    let mut data = state_fields(request);
    match &request.ending {
        None | Some(Ending::Cancelled) => {}
        Some(Ending::Completed(_)) => {
            data.insert("result_omitted".into(), json!(true));
        }
        Some(Ending::Failed(error)) => {
            data.insert("error".into(), json!(error.clone().without_details()));
        }
    }
    response(id, Value::Object(data))
}

/// Returns the fields of a snapshot without the request's result or error.
fn state_fields(request: &Request) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("request_id".into(), json!(request.id));
    data.insert("status".into(), json!(request.status.as_protocol()));
    data.insert("percentage".into(), json!(request.progress.percentage));
    data.insert("message".into(), json!(request.progress.message));
    if !request.progress.metadata.is_empty() {
        data.insert("metadata".into(), json!(request.progress.metadata));
    }
    data.insert("seq".into(), json!(request.seq));
    data.insert("attempt".into(), json!(request.attempt));
    data.insert("max_attempts".into(), json!(request.max_attempts));
    if request.continuations > 0 {
        data.insert("continuations".into(), json!(request.continuations));
    }
    data.insert("created_at".into(), json!(request.created_at.as_secs()));
    let times = [("started_at", request.started_at), ("finished_at", request.finished_at)];
    for (key, at) in times {
        if let Some(at) = at {
            data.insert(key.into(), json!(at.as_secs()));
        }
    }
    if request.cancel_requested && !request.status.is_terminal() {
        data.insert("cancel_requested".into(), json!(true));
    }
    if let Some(letter) = &request.redrive_of {
        data.insert("redrive_of".into(), json!(letter));
    }
    if let Some(id) = &request.redriven_as {
        data.insert("redriven_as".into(), json!(id));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Timestamp;
    use crate::protocol::{ErrorCode, Seq};
    use crate::store::{Progress, Status};

    fn request() -> Request {
        let at = Timestamp::from_secs(1_700_000_000);
        Request::new("r1".into(), "ann".into(), "acme".into(), "c1".into(), "report", json!(1), at)
    }

    fn terminal(ending: Ending) -> Request {
        let finished_at = Some(Timestamp::from_secs(1_700_000_060));
        let status = ending.status();
        Request { status, ending: Some(ending), finished_at, cancel_requested: true, ..request() }
    }

    #[test]
    fn snapshot_shows_the_request_state_without_payload_checkpoint_and_epoch() {
        let running = Request {
            status: Status::Processing,
            attempt: 2,
            max_attempts: 3,
            continuations: 4,
            epoch: 7,
            cancel_requested: true,
            progress: Progress {
                percentage: 45.5,
                message: "Working".into(),
                metadata: [("rows".to_owned(), json!(7))].into_iter().collect(),
            },
            seq: Seq::start_of(7).next(),
            checkpoint: Some(json!("ours")),
            redrive_of: Some("acme/ann/r0#3".into()),
            started_at: Some(Timestamp::from_secs(1_700_000_010)),
            ..request()
        };
        let failed = Ending::Failed(ErrorBody::new(ErrorCode::from("CARD_DECLINED"), "No"));
        let shown = [
            request(),
            running,
            terminal(Ending::Completed(json!({"url": "u"}))),
            Request { redriven_as: Some("r2".into()), ..terminal(failed) },
            terminal(Ending::Cancelled),
        ]
        .map(|request| snapshot("s1".into(), &request).to_json());
        insta::assert_snapshot!(shown.join("\n"), @r#"
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"queued","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000}}
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"processing","percentage":45.5,"message":"Working","metadata":{"rows":7},"seq":7340033,"attempt":2,"max_attempts":3,"continuations":4,"created_at":1700000000,"started_at":1700000010,"cancel_requested":true,"redrive_of":"acme/ann/r0#3"}}
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"completed","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000,"finished_at":1700000060,"result":{"url":"u"}}}
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"failed","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000,"finished_at":1700000060,"redriven_as":"r2","error":{"code":"CARD_DECLINED","message":"No"}}}
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"cancelled","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000,"finished_at":1700000060,"error":{"code":"CANCELLED","message":"The request was cancelled"}}}
        "#);
    }

    #[test]
    fn snapshot_omits_a_result_only_if_the_frame_would_exceed_the_limit() {
        let of_bytes = |bytes: usize| terminal(Ending::Completed(json!("x".repeat(bytes))));
        let shell = snapshot("s1".into(), &of_bytes(0)).to_json().len();
        let at_limit = snapshot("s1".into(), &of_bytes(MAX_FRAME_BYTES - shell)).to_json();
        assert_eq!(at_limit.len(), MAX_FRAME_BYTES);
        let above = snapshot("s1".into(), &of_bytes(MAX_FRAME_BYTES - shell + 1)).to_json();
        let long = ErrorBody::new(ErrorCode::Timeout, "x".repeat(MAX_FRAME_BYTES));
        let failed = snapshot("s1".into(), &terminal(Ending::Failed(long))).to_json();
        insta::assert_snapshot!([above, failed].join("\n"), @r#"
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"completed","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000,"finished_at":1700000060,"result_omitted":true}}
        {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"failed","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":1,"created_at":1700000000,"finished_at":1700000060,"error":{"code":"TIMEOUT","message":"The error's message and details are too large for a WebSocket frame"}}}
        "#);
    }
}
