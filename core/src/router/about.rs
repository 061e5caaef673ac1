use serde_json::Value;

use crate::ids::RequestId;
use crate::protocol::{ErrorBody, FieldError, Seq};

/// What `status`, `subscribe` and `cancel` are asked with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct About {
    /// Which request is meant.
    pub(super) request_id: RequestId,
    /// The last frame of it that the client has seen; only `subscribe` asks for it.
    pub(super) seen: Seq,
}

impl About {
    /// Reads the payload of `status` and `cancel`; other keys are ignored.
    pub(super) fn request(payload: &Value) -> Result<Self, ErrorBody> {
        let request_id = request_id(payload).map_err(|problem| ErrorBody::invalid_fields(&[problem]))?;
        Ok(Self { request_id, seen: Seq::default() })
    }

    /// Reads the payload of `subscribe`; other keys are ignored.
    pub(super) fn subscription(payload: &Value) -> Result<Self, ErrorBody> {
        match (request_id(payload), seen(payload)) {
            (Ok(request_id), Ok(seen)) => Ok(Self { request_id, seen }),
            (id, seen) => {
                let problems: Vec<FieldError> = id.err().into_iter().chain(seen.err()).collect();
                Err(ErrorBody::invalid_fields(&problems))
            }
        }
    }
}

fn request_id(payload: &Value) -> Result<RequestId, FieldError> {
    let wrong = |problem| FieldError::new("request_id", problem);
    match payload.get("request_id").and_then(Value::as_str) {
        Some(id) => RequestId::parse(id).map_err(wrong),
        None => Err(wrong("must be a string: the id of the request that is asked for".to_owned())),
    }
}

fn seen(payload: &Value) -> Result<Seq, FieldError> {
    match payload.get("seq") {
        None | Some(Value::Null) => Ok(Seq::default()),
        Some(seq) => seq.as_u64().map(Seq::from_stored).ok_or_else(|| {
            FieldError::new("seq", "must be a whole number from 0 on: that of the last frame that was seen")
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_named_by_its_id_and_what_was_seen_of_it_by_a_number() {
        let payload = json!({"request_id": "ä/%2F\"b", "seq": u64::MAX, "user": "eve"});
        let About { request_id, seen } = About::subscription(&payload).unwrap();
        assert_eq!((request_id.as_str(), seen.as_u64()), ("ä/%2F\"b", u64::MAX));
        assert_eq!(About::request(&payload).unwrap().seen, Seq::default());
        for unseen in [json!({"request_id": "r1"}), json!({"request_id": "r1", "seq": null})] {
            assert_eq!(About::subscription(&unseen).unwrap().seen, Seq::default());
        }
        assert!(About::request(&json!({"request_id": "r1", "seq": "x"})).is_ok(), "it is not asked for");
    }

    #[test]
    fn what_names_no_request_is_refused_with_every_field_that_is_wrong() {
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
            let error = About::subscription(payload).unwrap_err();
            format!("{}: {}", error.code, error.message)
        })
        .collect();
        insta::assert_snapshot!(refused.join("\n"));
    }
}
