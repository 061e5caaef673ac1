//! Ids and moments in the forms that AWS writes them in.

use std::fmt::Write as _;

use streamer::ports::{Entropy, Timestamp};

/// A random UUID (version 4): a request id of Lambda, or of the gateway's management API.
pub(crate) fn uuid(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The root of an X-Ray trace that begins at `now`: `Root=1-65c66d9f-…`.
pub(crate) fn trace_root(entropy: &dyn Entropy, now: Timestamp) -> String {
    let mut bytes = [0; 12];
    entropy.fill(&mut bytes);
    format!("Root=1-{:08x}-{}", now.as_secs(), hex(&bytes))
}

/// The partition that a region belongs to, as ARNs begin with it.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    match region.split('-').take(2).collect::<Vec<_>>().as_slice() {
        ["cn", ..] => "aws-cn",
        ["us", "gov"] => "aws-us-gov",
        _ => "aws",
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

/// ISO 8601 in UTC with milliseconds: `2024-02-09T18:23:28.941Z`.
pub(crate) fn iso_8601(at: Timestamp) -> String {
    strftime(at, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// The label of a stream: ISO 8601 in UTC with milliseconds, without a zone.
pub(crate) fn stream_label(at: Timestamp) -> String {
    strftime(at, "%Y-%m-%dT%H:%M:%S%.3f")
}

/// The common log format: `09/Feb/2024:18:23:28 +0000`.
pub(crate) fn clf(at: Timestamp) -> String {
    strftime(at, "%d/%b/%Y:%H:%M:%S +0000")
}

/// The day in the name of a log stream: `2026/03/01`.
pub(crate) fn log_day(at: Timestamp) -> String {
    strftime(at, "%Y/%m/%d")
}

/// What lies beyond the year 9999 is written as its last moment.
fn strftime(at: Timestamp, format: &str) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    at.strftime(format).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Entropy that has one byte to give.
    #[derive(Debug)]
    pub(crate) struct Constant(pub(crate) u8);

    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn ids_have_their_form() {
        assert_eq!(uuid(&Constant(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(&Constant(0x00)), "00000000-0000-4000-8000-000000000000");
        let root = trace_root(&Constant(0xab), Timestamp::from_secs(1_707_503_007));
        assert_eq!(root, "Root=1-65c66d9f-abababababababababababab");
    }

    #[test]
    fn moments_are_written_as_recorded() {
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
            "no moment is out of reach"
        );
    }
}
