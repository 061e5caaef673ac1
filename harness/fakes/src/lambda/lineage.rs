//! Detection of recursive loops: the trace header counts the invocations of each function in a chain of
//! requests.
//!
//! The format of `Lineage` in the trace header is undocumented, so the fake uses its own format. SDKs forward
//! the header unchanged from `_X_AMZN_TRACE_ID`, so any format works. The fake counts the invocations of each
//! function separately, as the Lambda guide describes ("Use Lambda recursive loop detection").

use ring::digest::{SHA256, digest};
use streamer::ports::{Entropy, Timestamp};

use super::identifiers::{parent_id, trace_id};
use crate::aws_format::hex;

/// Maximum number of invocations of one function in a chain of requests. AWS documents "approximately 16".
const MAX_ROUNDS: u32 = 16;

/// Returns the trace header for an invocation of the function `arn`.
///
/// `caused_by` is the trace header of the call that invokes the function. Returns `None` if the chain of
/// requests has already invoked the function [`MAX_ROUNDS`] times.
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
    fn loop_detection_counts_each_function_of_a_chain_separately() {
        let root = "Root=1-60000001-abababababababababababab;Parent=abababababababab;Sampled=0;Lineage=";
        let first = next("a", None).unwrap();
        assert_eq!(first, format!("{root}ca978112:1"));
        let second = next("b", Some(&first)).unwrap();
        assert_eq!(second, format!("{root}ca978112:1|3e23e816:1"));
        assert_eq!(next("a", Some(&second)).unwrap(), format!("{root}3e23e816:1|ca978112:2"));
    }

    #[test]
    fn loop_detection_stops_the_seventeenth_invocation_of_a_function() {
        let mut last = None;
        for _ in 0..16 {
            last = Some(next("a", last.as_deref()).unwrap());
        }
        assert_eq!(next("a", last.as_deref()), None);
        assert!(
            next("b", last.as_deref()).is_some(),
            "a function that the chain has not invoked yet is not stopped"
        );
    }

    #[test]
    fn loop_detection_accepts_malformed_trace_headers() {
        for header in ["", ";;=", "Lineage=", "Lineage=|:|x", "Root=1;Lineage=ca978112:many", "Lineage=:::"] {
            assert!(next("a", Some(header)).is_some(), "{header}");
        }
        assert_eq!(next("a", Some("lineage=ca978112:4294967295")), None);
    }
}
