//! Ids, timestamps and ARN partitions in the formats of AWS.

use std::fmt::Write as _;

use streamer::ports::{Entropy, Timestamp};

/// Returns a random UUID (version 4), the format of request ids of Lambda and of the gateway's management API.
pub(crate) fn uuid(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Returns the `Root` field of an X-Ray trace header, such as `Root=1-65c66d9f-…`. `now` is the start of the trace.
pub(crate) fn trace_root(entropy: &dyn Entropy, now: Timestamp) -> String {
    let mut bytes = [0; 12];
    entropy.fill(&mut bytes);
    format!("Root=1-{:08x}-{}", now.as_secs(), hex(&bytes))
}

/// Returns the AWS partition that contains `region`: `aws`, `aws-cn` or `aws-us-gov`.
///
/// The partition is the second field of an ARN.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    match region.split('-').take(2).collect::<Vec<_>>().as_slice() {
        ["cn", ..] => "aws-cn",
        ["us", "gov"] => "aws-us-gov",
        _ => "aws",
    }
}

/// Formats `bytes` as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

/// Formats a timestamp as ISO 8601 in UTC with milliseconds, such as `2024-02-09T18:23:28.941Z`.
pub(crate) fn iso_8601(at: Timestamp) -> String {
    strftime(at, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// Formats a timestamp as the label of a DynamoDB stream: ISO 8601 in UTC with milliseconds, without the suffix `Z`.
pub(crate) fn stream_label(at: Timestamp) -> String {
    strftime(at, "%Y-%m-%dT%H:%M:%S%.3f")
}

/// Formats a timestamp in the common log format (CLF), such as `09/Feb/2024:18:23:28 +0000`.
pub(crate) fn clf(at: Timestamp) -> String {
    strftime(at, "%d/%b/%Y:%H:%M:%S +0000")
}

/// Formats the UTC date of a timestamp as in the name of a Lambda log stream, such as `2026/03/01`.
pub(crate) fn log_day(at: Timestamp) -> String {
    strftime(at, "%Y/%m/%d")
}

/// Formats a timestamp in UTC. A timestamp too large for `jiff` is replaced by [`jiff::Timestamp::MAX`], in the
/// year 9999.
fn strftime(at: Timestamp, format: &str) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    at.strftime(format).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Entropy source whose bytes all have this value.
    #[derive(Debug)]
    pub(crate) struct Constant(pub(crate) u8);

    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn uuid_and_trace_root_have_the_format_of_aws() {
        assert_eq!(uuid(&Constant(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(&Constant(0x00)), "00000000-0000-4000-8000-000000000000");
        let root = trace_root(&Constant(0xab), Timestamp::from_secs(1_707_503_007));
        assert_eq!(root, "Root=1-65c66d9f-abababababababababababab");
    }

    #[test]
    fn timestamps_have_the_formats_that_aws_uses() {
        for (millis, expected_clf, expected_iso) in [
            (0, "01/Jan/1970:00:00:00 +0000", "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "29/Feb/2000:00:00:00 +0000", "2000-02-29T00:00:00.001Z"),
            (1_707_503_008_941, "09/Feb/2024:18:23:28 +0000", "2024-02-09T18:23:28.941Z"),
            (1_655_103_417_249, "13/Jun/2022:06:56:57 +0000", "2022-06-13T06:56:57.249Z"),
            (1_735_689_599_999, "31/Dec/2024:23:59:59 +0000", "2024-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "01/Mar/2100:00:00:00 +0000", "2100-03-01T00:00:00.000Z"),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!((clf(at).as_str(), iso_8601(at).as_str()), (expected_clf, expected_iso));
            assert_eq!(stream_label(at) + "Z", expected_iso);
        }
        assert_eq!(log_day(Timestamp::from_secs(1_772_323_200)), "2026/03/01");
        assert!(
            iso_8601(Timestamp::from_millis(u64::MAX)).starts_with("9999-12-30"),
            "a timestamp after the year 9999 is formatted as the last representable time"
        );
    }
}
