use serde_json::Value;

use crate::ids::RequestId;
use crate::protocol::{ErrorBody, FieldError, Seq};

/// The parsed payload of the built-in actions `status`, `subscribe` and `cancel`: a reference to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RequestRef {
    /// The id of the request that the client asks about.
    pub(super) request_id: RequestId,
    /// Sequence number of the last frame of the request that the client has received; only `subscribe` uses
    /// it.
    pub(super) last_seen: Seq,
}

impl RequestRef {
    /// Parses the payload of `status` and `cancel`; ignores all keys except `request_id`.
    pub(super) fn parse(payload: &Value) -> Result<Self, ErrorBody> {
        let request_id = request_id(payload).map_err(|problem| ErrorBody::invalid_fields(&[problem]))?;
        Ok(Self { request_id, last_seen: Seq::default() })
    }

    /// Parses the payload of `subscribe`; ignores all keys except `request_id` and `seq`.
    pub(super) fn parse_with_seq(payload: &Value) -> Result<Self, ErrorBody> {
        match (request_id(payload), last_seen(payload)) {
            (Ok(request_id), Ok(last_seen)) => Ok(Self { request_id, last_seen }),
            (id, last_seen) => {
                let problems: Vec<FieldError> = id.err().into_iter().chain(last_seen.err()).collect();
                Err(ErrorBody::invalid_fields(&problems))
            }
        }
    }
}

fn request_id(payload: &Value) -> Result<RequestId, FieldError> {
    let wrong = |problem| FieldError::new("request_id", problem);
    match payload.get("request_id").and_then(Value::as_str) {
        Some(id) => RequestId::parse(id).map_err(wrong),
        None => Err(wrong("must be a string, the id of the request".to_owned())),
    }
}

fn last_seen(payload: &Value) -> Result<Seq, FieldError> {
    match payload.get("seq") {
        None | Some(Value::Null) => Ok(Seq::default()),
        Some(seq) => seq.as_u64().map(Seq::from_stored).ok_or_else(|| {
            FieldError::new("seq", "must be a whole number, the seq of the last frame received (0 if none)")
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subscribe_payload_contains_a_request_id_and_an_optional_seq() {
        let payload = json!({"request_id": "ä/%2F\"b", "seq": u64::MAX, "user": "eve"});
        let RequestRef { request_id, last_seen } = RequestRef::parse_with_seq(&payload).unwrap();
        assert_eq!((request_id.as_str(), last_seen.as_u64()), ("ä/%2F\"b", u64::MAX));
        assert_eq!(RequestRef::parse(&payload).unwrap().last_seen, Seq::default());
        for without_seq in [json!({"request_id": "r1"}), json!({"request_id": "r1", "seq": null})] {
            assert_eq!(RequestRef::parse_with_seq(&without_seq).unwrap().last_seen, Seq::default());
        }
        let invalid_seq = json!({"request_id": "r1", "seq": "x"});
        assert!(RequestRef::parse(&invalid_seq).is_ok(), "status and cancel ignore seq");
    }

    #[test]
    fn subscribe_payload_with_invalid_fields_is_refused_and_each_field_is_named() {
        let refused: Vec<String> = [
            json!(null),
            json!("r1"),
            json!([]),
            json!({"request_id": 1, "seq": 1.5}),
            json!({"request_id": "", "seq": -1}),
            json!({"request_id": "a\u{0}", "seq": "1"}),
            json!({"request_id": "x".repeat(129), "seq": 1e30}),
            json!({"request_id": "r1", "seq": [1]}),
            json!({"request_id": ["r1"], "seq": true}),
        ]
        .iter()
        .map(|payload| {
            let error = RequestRef::parse_with_seq(payload).unwrap_err();
            format!("{}: {}", error.code, error.message)
        })
        .collect();
        insta::assert_snapshot!(refused.join("\n"));
    }
}
