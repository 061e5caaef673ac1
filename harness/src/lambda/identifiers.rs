//! The ids and dates that AWS writes into events, headers and names.

use std::fmt::Write as _;

use streamer::ports::{Entropy, Timestamp};

/// A request id as AWS makes them: a random UUID (version 4).
pub(crate) fn request_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// An X-Ray trace header that says «not sampled», since nothing collects traces here.
pub(super) fn trace_id(entropy: &dyn Entropy, now: Timestamp) -> String {
    let (mut root, mut parent) = ([0; 12], [0; 8]);
    entropy.fill(&mut root);
    entropy.fill(&mut parent);
    format!("Root=1-{:08x}-{};Parent={};Sampled=0", now.as_secs(), hex(&root), hex(&parent))
}

/// The name of an environment's log stream: date, version and a random part.
pub(super) fn log_stream(entropy: &dyn Entropy, now: Timestamp) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    let time = CivilTime::from(now);
    format!("{:04}/{:02}/{:02}/[$LATEST]{}", time.year, time.month, time.day, hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

/// A moment in the calendar, in UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CivilTime {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    millisecond: u64,
}

impl CivilTime {
    /// ISO 8601 with milliseconds: `2026-03-01T12:00:00.000Z`.
    pub(crate) fn iso8601(self) -> String {
        let Self { year, month, day, second_of_day: s, millisecond } = self;
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millisecond:03}Z",
            s / 3_600,
            s / 60 % 60,
            s % 60
        )
    }
}

impl From<Timestamp> for CivilTime {
    fn from(at: Timestamp) -> Self {
        const DAYS_IN_400_YEARS: u64 = 146_097;
        let mut day = at.as_secs() / 86_400;
        // The calendar repeats every 400 years: what is left to count is bounded.
        let mut year = 1970 + day / DAYS_IN_400_YEARS * 400;
        day %= DAYS_IN_400_YEARS;
        while day >= days_in_year(year) {
            day -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: day + 1,
            second_of_day: at.as_secs() % 86_400,
            millisecond: at.as_millis() % 1_000,
        }
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        assert_eq!(request_id(&Constant(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(request_id(&Constant(0x00)), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_trace_id_carries_the_second_it_was_made_in() {
        let trace = trace_id(&Constant(0xab), Timestamp::from_secs(0x6000_0001));
        assert_eq!(trace, "Root=1-60000001-abababababababababababab;Parent=abababababababab;Sampled=0");
    }

    #[test]
    fn a_log_stream_is_named_by_day_and_version() {
        let name = log_stream(&Constant(1), Timestamp::from_secs(1_772_323_200));
        assert_eq!(name, "2026/03/01/[$LATEST]01010101010101010101010101010101");
    }

    #[test]
    fn the_calendar_knows_leap_years_centuries_and_the_end_of_time() {
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_603_200, "2024-12-31T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (12_622_780_800, "2370-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(CivilTime::from(Timestamp::from_secs(secs)).iso8601(), expected);
        }
        assert!(CivilTime::from(Timestamp::from_millis(u64::MAX)).year > 584_000_000);
    }
}
