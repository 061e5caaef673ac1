//! The names that Lambda gives to what it does.

use streamer::ports::{Entropy, Timestamp};

use crate::aws_format::{hex, log_day, trace_root};

/// An X-Ray trace header that says «not sampled», since nothing collects traces here.
pub(super) fn trace_id(entropy: &dyn Entropy, now: Timestamp) -> String {
    let root = trace_root(entropy, now);
    format!("{root};Parent={};Sampled=0", parent_id(entropy))
}

/// The id of the segment of a trace that leads to another one.
pub(super) fn parent_id(entropy: &dyn Entropy) -> String {
    let mut parent = [0; 8];
    entropy.fill(&mut parent);
    hex(&parent)
}

/// The name of an environment's log stream: date, version and a random part.
pub(super) fn log_stream(entropy: &dyn Entropy, now: Timestamp) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    format!("{}/[$LATEST]{}", log_day(now), hex(&bytes))
}

/// The function's name in a name, an ARN or a partial ARN, each with or without the version `$LATEST`.
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
    fn a_trace_id_carries_the_second_it_was_made_in() {
        let trace = trace_id(&Constant(0xab), Timestamp::from_secs(0x6000_0001));
        assert_eq!(trace, "Root=1-60000001-abababababababababababab;Parent=abababababababab;Sampled=0");
    }

    #[test]
    fn a_function_is_named_by_its_name_its_arn_or_a_part_of_it() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:router";
        for named in ["router", "router:$LATEST", arn, &arn[29..], &format!("{arn}:$LATEST")] {
            assert_eq!(function_name(named), Some("router"), "{named}");
        }
        for other in ["", "router:7", "arn:aws:sqs:us-east-1:000000000000:failed"] {
            assert_eq!(function_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_log_stream_is_named_by_day_and_version() {
        let name = log_stream(&Constant(1), Timestamp::from_secs(1_772_323_200));
        assert_eq!(name, "2026/03/01/[$LATEST]01010101010101010101010101010101");
    }
}
