//! The two ways in which API Gateway writes a moment, both in UTC.

use streamer::ports::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The common log format, as `09/Feb/2024:18:23:28 +0000`.
pub(super) fn clf(at: Timestamp) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(at);
    let month = MONTHS[month - 1];
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// ISO 8601 with milliseconds, as `2024-02-09T18:23:28.941Z`.
pub(super) fn iso_8601(at: Timestamp) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(at);
    let millis = at.as_millis() % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

struct Civil {
    year: u64,
    /// From 1 to 12.
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn of(at: Timestamp) -> Self {
        let secs = at.as_secs();
        let (year, mut day) = year_and_day(secs / 86_400);
        let leap = u64::from(is_leap(year));
        let mut month = 0;
        for length in [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        Self {
            year,
            month: month + 1,
            day: day + 1,
            hour: secs / 3_600 % 24,
            minute: secs / 60 % 60,
            second: secs % 60,
        }
    }
}

/// The year that a day since the epoch falls in, and its place in that year, both found without stepping
/// through the years: a clock in a test may be set anywhere.
fn year_and_day(days: u64) -> (u64, u64) {
    // The Gregorian calendar repeats every 400 years; counted from 1970, its cycles hold as many days.
    const CYCLE: u64 = 146_097;
    let mut year = 1_970 + days / CYCLE * 400;
    let mut day = days % CYCLE;
    loop {
        let length = 365 + u64::from(is_leap(year));
        if day < length {
            return (year, day);
        }
        day -= length;
        year += 1;
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_recorded() {
        for (millis, expected_clf, expected_iso) in [
            (0, "01/Jan/1970:00:00:00 +0000", "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "29/Feb/2000:00:00:00 +0000", "2000-02-29T00:00:00.001Z"),
            (1_707_503_008_941, "09/Feb/2024:18:23:28 +0000", "2024-02-09T18:23:28.941Z"),
            (1_655_103_417_249, "13/Jun/2022:06:56:57 +0000", "2022-06-13T06:56:57.249Z"),
            (1_735_689_599_999, "31/Dec/2024:23:59:59 +0000", "2024-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "01/Mar/2100:00:00:00 +0000", "2100-03-01T00:00:00.000Z"),
            (13_569_465_600_000, "01/Jan/2400:00:00:00 +0000", "2400-01-01T00:00:00.000Z"),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!((clf(at).as_str(), iso_8601(at).as_str()), (expected_clf, expected_iso));
        }
        assert!(clf(Timestamp::from_millis(u64::MAX)).ends_with("+0000"), "no moment is out of reach");
    }
}
