//! Recursive loops: which functions a chain of requests has been through, as the trace header carries it.
//!
//! The form of the `Lineage` in the header is undocumented; SDKs pass the header on as they find it in
//! `_X_AMZN_TRACE_ID`, whatever it holds. What is counted here is each function's invocations, as Lambda's guide
//! says («Use Lambda recursive loop detection»).

use ring::digest::{SHA256, digest};
use streamer::ports::{Entropy, Timestamp};

use super::identifiers::{parent_id, trace_id};
use crate::aws_format::hex;

/// How often a function may be invoked in one chain of requests. AWS says «approximately».
const MAX_ROUNDS: u32 = 16;

/// The trace header of an invocation of the function of `arn`, which `caused_by` led to.
///
/// Nothing when the function has been invoked in this chain of requests as often as it may.
pub(super) fn trace(
    arn: &str,
    caused_by: Option<&str>,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Option<String> {
    let part = |name: &str| {
        let mut parts = caused_by?.split(';').filter_map(|part| part.trim().split_once('='));
        parts.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let own = &hex(digest(&SHA256, arn.as_bytes()).as_ref())[..8];
    let mut rounds = 1;
    let mut lineage = Vec::new();
    for entry in part("Lineage").unwrap_or_default().split('|').filter(|entry| !entry.is_empty()) {
        let (function, count) = entry.rsplit_once(':').unwrap_or((entry, "0"));
        if function == own {
            rounds = count.parse::<u32>().unwrap_or_default().saturating_add(1);
        } else {
            lineage.push(entry.to_owned());
        }
    }
    if rounds > MAX_ROUNDS {
        return None;
    }
    lineage.push(format!("{own}:{rounds}"));
    let lineage = lineage.join("|");
    Some(match part("Root") {
        Some(root) => format!("Root={root};Parent={};Sampled=0;Lineage={lineage}", parent_id(entropy)),
        None => format!("{};Lineage={lineage}", trace_id(entropy, now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_format::tests::Constant;

    fn next(arn: &str, caused_by: Option<&str>) -> Option<String> {
        trace(arn, caused_by, &Constant(0xab), Timestamp::from_secs(0x6000_0001))
    }

    #[test]
    fn recursion_row_each_function_of_a_chain_is_counted_on_its_own() {
        let root = "Root=1-60000001-abababababababababababab;Parent=abababababababab;Sampled=0;Lineage=";
        let first = next("a", None).unwrap();
        assert_eq!(first, format!("{root}ca978112:1"));
        let second = next("b", Some(&first)).unwrap();
        assert_eq!(second, format!("{root}ca978112:1|3e23e816:1"));
        assert_eq!(next("a", Some(&second)).unwrap(), format!("{root}3e23e816:1|ca978112:2"));
    }

    #[test]
    fn recursion_row_the_seventeenth_round_is_stopped() {
        let mut last = None;
        for _ in 0..16 {
            last = Some(next("a", last.as_deref()).unwrap());
        }
        assert_eq!(next("a", last.as_deref()), None);
        assert!(next("b", last.as_deref()).is_some(), "another function has had no round yet");
    }

    #[test]
    fn recursion_row_any_header_is_taken() {
        for header in ["", ";;=", "Lineage=", "Lineage=|:|x", "Root=1;Lineage=ca978112:many", "Lineage=:::"] {
            assert!(next("a", Some(header)).is_some(), "{header}");
        }
        assert_eq!(next("a", Some("lineage=ca978112:4294967295")), None);
    }
}
