//! What a function's reply says about its batch.

use serde::Deserialize;
use serde_json::Value;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// All of it is done.
    Done,
    /// What comes before this index is done.
    FailedFrom(usize),
}

/// Reads a reply under `ReportBatchItemFailures`; `place` says where in the batch a sequence number stands.
///
/// A reply that is no JSON object says nothing about the batch that could be trusted: all of it failed.
pub(super) fn verdict(reply: &[u8], place: impl Fn(&str) -> Option<usize>) -> Verdict {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reply {
        #[serde(default)]
        batch_item_failures: Option<Vec<Value>>,
    }
    if reply.is_empty() {
        return Verdict::Done;
    }
    let failures = match serde_json::from_slice::<Option<Reply>>(reply) {
        Ok(reply) => reply.and_then(|reply| reply.batch_item_failures).unwrap_or_default(),
        Err(_) => return Verdict::FailedFrom(0),
    };
    let places = failures.iter().map(|failure| failure.get("itemIdentifier")?.as_str().and_then(&place));
    match places.collect::<Option<Vec<_>>>() {
        Some(places) => places.into_iter().min().map_or(Verdict::Done, Verdict::FailedFrom),
        None => Verdict::FailedFrom(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reply: &str) -> Verdict {
        let batch = ["100", "101", "102"];
        verdict(reply.as_bytes(), |sequence_number| {
            batch.iter().position(|number| *number == sequence_number)
        })
    }

    #[test]
    fn success_row_every_form() {
        for reply in [
            "",
            "null",
            "{}",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
            r#"{"other":1}"#,
        ] {
            assert_eq!(of(reply), Verdict::Done, "{reply}");
        }
    }

    #[test]
    fn whole_batch_fails_row_every_form() {
        for failures in [
            r#"[{"itemIdentifier":""}]"#,
            r#"[{"itemIdentifier":null}]"#,
            r#"[{"itemIdentifier":101}]"#,
            r#"[{"id":"101"}]"#,
            r#"[{"itemIdentifier":"999"}]"#,
            r#"[{"itemIdentifier":"102"},{"itemIdentifier":"999"}]"#,
            r#"["102"]"#,
            r#""102""#,
        ] {
            assert_eq!(
                of(&format!(r#"{{"batchItemFailures":{failures}}}"#)),
                Verdict::FailedFrom(0),
                "{failures}"
            );
        }
        for reply in [r#""ok""#, "7", "not JSON"] {
            assert_eq!(of(reply), Verdict::FailedFrom(0), "{reply}");
        }
    }

    #[test]
    fn checkpoint_row_the_lowest_listed_counts() {
        let reply = r#"{"batchItemFailures":[{"itemIdentifier":"102"},{"itemIdentifier":"101"}]}"#;
        assert_eq!(of(reply), Verdict::FailedFrom(1));
    }
}
