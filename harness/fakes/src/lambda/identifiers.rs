//! Trace headers, log stream names and function names in Lambda's formats.

use streamer::ports::{Entropy, Timestamp};

use crate::aws_format::{hex, log_day, trace_root};

/// Returns a new X-Ray trace header, marked as not sampled because the fake collects no traces.
pub(super) fn trace_id(entropy: &dyn Entropy, now: Timestamp) -> String {
    let root = trace_root(entropy, now);
    format!("{root};Parent={};Sampled=0", parent_id(entropy))
}

/// Returns a new segment id for the `Parent` field of a trace header.
pub(super) fn parent_id(entropy: &dyn Entropy) -> String {
    let mut parent = [0; 8];
    entropy.fill(&mut parent);
    hex(&parent)
}

/// Returns the name of an environment's log stream: the date, the version and random hex digits.
pub(super) fn log_stream(entropy: &dyn Entropy, now: Timestamp) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    format!("{}/[$LATEST]{}", log_day(now), hex(&bytes))
}

/// Extracts the function's name from a name, an ARN or a partial ARN, each with or without the version
/// `$LATEST`. Returns `None` for any other text.
pub(super) fn function_name(named: &str) -> Option<&str> {
    let named = named.strip_suffix(":$LATEST").unwrap_or(named);
    let name = named.rsplit_once(":function:").map_or(named, |(_, name)| name);
    (!name.is_empty() && !name.contains(':')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_format::tests::Constant;

    #[test]
    fn trace_header_contains_its_creation_time_in_seconds() {
        let trace = trace_id(&Constant(0xab), Timestamp::from_secs(0x6000_0001));
        assert_eq!(trace, "Root=1-60000001-abababababababababababab;Parent=abababababababab;Sampled=0");
    }

    #[test]
    fn function_name_is_extracted_from_a_name_an_arn_or_a_partial_arn() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:router";
        for named in ["router", "router:$LATEST", arn, &arn[29..], &format!("{arn}:$LATEST")] {
            assert_eq!(function_name(named), Some("router"), "{named}");
        }
        for other in ["", "router:7", "arn:aws:sqs:us-east-1:000000000000:failed"] {
            assert_eq!(function_name(other), None, "{other}");
        }
    }

    #[test]
    fn log_stream_name_contains_the_day_and_the_version() {
        let name = log_stream(&Constant(1), Timestamp::from_secs(1_772_323_200));
        assert_eq!(name, "2026/03/01/[$LATEST]01010101010101010101010101010101");
    }
}
