//! Parsing of a function's reply to a batch, with `ReportBatchItemFailures`.

use serde::Deserialize;
use serde_json::Value;

/// Result of a batch, as the function's reply reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// All records of the batch succeeded.
    Done,
    /// The records before this index succeeded. The record at this index, and all later records, failed.
    FailedFrom(usize),
}

/// Parses a reply with `ReportBatchItemFailures`. `index_of` maps a sequence number to the index of its record in the
/// batch.
///
/// An empty reply and `null` mean success. The whole batch has failed if any other reply is not a JSON object, or
/// names an unknown record.
pub(super) fn verdict(reply: &[u8], index_of: impl Fn(&str) -> Option<usize>) -> Verdict {
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
    let indexes = failures.iter().map(|failure| failure.get("itemIdentifier")?.as_str().and_then(&index_of));
    match indexes.collect::<Option<Vec<_>>>() {
        Some(indexes) => indexes.into_iter().min().map_or(Verdict::Done, Verdict::FailedFrom),
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
    fn empty_null_or_object_reply_without_batch_item_failures_is_a_success() {
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
    fn whole_batch_fails_for_an_invalid_reply_or_an_unknown_item_identifier() {
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
    fn batch_fails_from_the_lowest_item_identifier_in_the_reply() {
        let reply = r#"{"batchItemFailures":[{"itemIdentifier":"102"},{"itemIdentifier":"101"}]}"#;
        assert_eq!(of(reply), Verdict::FailedFrom(1));
    }
}
