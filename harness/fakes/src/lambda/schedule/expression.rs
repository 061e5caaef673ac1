//! Schedule expressions, which define the times at which a schedule invokes its function.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use streamer::ports::Timestamp;

use super::cron::{Cron, timestamp};
use super::error::{ExpressionError, wrong};

/// A schedule expression: `rate(5 minutes)`, `cron(0 12 * * ? *)` or `at(2026-03-01T12:00:00)`. Times are in
/// UTC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expression(When);

#[derive(Clone, Debug, Eq, PartialEq)]
enum When {
    /// Interval between invocations, counted from the start of the schedule.
    Rate(Duration),
    At(Timestamp),
    Cron(Box<Cron>),
}

impl Expression {
    pub(super) fn is_rate(&self) -> bool {
        matches!(self.0, When::Rate(_))
    }

    /// Returns the first invocation time after `after`, for a schedule that was created at `start`; `None` if
    /// no later time exists.
    pub(super) fn next(&self, start: Timestamp, after: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            When::Rate(every) => {
                let every_ms = u64::try_from(every.as_millis()).ok()?;
                let passed = u64::try_from(after.since(start).as_millis()).ok()? / every_ms;
                Some(start + Duration::from_millis(every_ms.checked_mul(passed + 1)?))
            }
            When::At(at) => (*at > after).then_some(*at),
            When::Cron(cron) => cron.next(after),
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let inner = |kind: &str| text.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(rate) = inner("rate") {
            return rate_of(rate).map(|rate| Self(When::Rate(rate)));
        }
        if let Some(cron) = inner("cron") {
            return Cron::parse(cron).map(|cron| Self(When::Cron(Box::new(cron))));
        }
        if let Some(at) = inner("at") {
            let at: DateTime =
                at.parse().map_err(|_| wrong(format!("expected yyyy-mm-ddThh:mm:ss, found {at:?}")))?;
            let at = timestamp(at)
                .ok_or_else(|| wrong(format!("expected a time in 1970 or later, found {text:?}")))?;
            return Ok(Self(When::At(at)));
        }
        Err(wrong(format!("expected rate(…), cron(…) or at(…), found {text:?}")))
    }
}

fn rate_of(text: &str) -> Result<Duration, ExpressionError> {
    let parts: Vec<_> = text.split_whitespace().collect();
    let [value, unit] = *parts.as_slice() else {
        return Err(wrong(format!("expected a value and a unit, such as 5 minutes, found {text:?}")));
    };
    let value: u32 = value
        .parse()
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| wrong(format!("expected a whole number above 0, found {value:?}")))?;
    // AWS requires the singular unit after 1, and the plural unit otherwise.
    let minutes = match (unit, value) {
        ("minute", 1) | ("minutes", 2..) => 1,
        ("hour", 1) | ("hours", 2..) => 60,
        ("day", 1) | ("days", 2..) => 24 * 60,
        _ => {
            return Err(wrong(format!(
                "expected minute, hour or day after 1, otherwise minutes, hours or days; found {text:?}"
            )));
        }
    };
    Ok(Duration::from_mins(minutes) * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_format::iso_8601;

    fn moment(text: &str) -> Timestamp {
        timestamp(text.parse().unwrap()).unwrap()
    }

    fn next(expression: &str, after: &str) -> Option<String> {
        let expression: Expression = expression.parse().unwrap();
        let next = expression.next(moment("2026-01-01T00:00:00"), moment(after));
        next.map(|next| iso_8601(next).replace(":00.000Z", ""))
    }

    #[test]
    fn next_time_of_a_cron_expression_is_found_for_every_kind_of_field() {
        // March 1, 2026 is a Sunday.
        for (expression, after, expected) in [
            ("cron(0 12 * * ? *)", "2026-03-01T11:59:59", "2026-03-01T12:00"),
            ("cron(0 12 * * ? *)", "2026-03-01T12:00:00", "2026-03-02T12:00"),
            ("cron(0/15 * * * ? *)", "2026-12-31T23:50:00", "2027-01-01T00:00"),
            ("cron(5,35 14 * * ? *)", "2026-03-01T14:05:00", "2026-03-01T14:35"),
            ("cron(1/10 8-10 * * ? *)", "2026-03-01T08:51:00", "2026-03-01T09:01"),
            ("cron(0 10 ? * MON-FRI *)", "2026-03-01T00:00:00", "2026-03-02T10:00"),
            ("cron(0 10 ? * FRI-SUN *)", "2026-03-01T10:00:00", "2026-03-06T10:00"),
            ("cron(0 0 ? * 1 *)", "2026-03-01T00:00:00", "2026-03-08T00:00"),
            ("cron(0 0 ? * L *)", "2026-03-01T00:00:00", "2026-03-07T00:00"),
            ("cron(15 10 ? * 6L *)", "2026-03-01T00:00:00", "2026-03-27T10:15"),
            ("cron(0 9 ? * 3#2 *)", "2026-03-01T00:00:00", "2026-03-10T09:00"),
            ("cron(0 9 ? * TUE#5 *)", "2026-04-01T00:00:00", "2026-06-30T09:00"),
            ("cron(0 8 1 * ? *)", "2026-03-01T08:00:00", "2026-04-01T08:00"),
            ("cron(0 8 31 * ? *)", "2026-04-01T00:00:00", "2026-05-31T08:00"),
            ("cron(0 8 L FEB ? *)", "2026-03-01T00:00:00", "2027-02-28T08:00"),
            ("cron(0 8 29 2 ? *)", "2026-03-01T00:00:00", "2028-02-29T08:00"),
            ("cron(0 8 1W * ? *)", "2026-02-15T00:00:00", "2026-03-02T08:00"),
            ("cron(0 8 1W * ? *)", "2026-07-15T00:00:00", "2026-08-03T08:00"),
            ("cron(0 8 7W 3 ? *)", "2026-03-01T00:00:00", "2026-03-06T08:00"),
            ("cron(0 8 31W 5 ? *)", "2026-03-01T00:00:00", "2026-05-29T08:00"),
            ("cron(0 0 1 1 ? 2030-2032)", "2026-03-01T00:00:00", "2030-01-01T00:00"),
        ] {
            assert_eq!(next(expression, after).as_deref(), Some(expected), "{expression} after {after}");
        }
        assert_eq!(
            next("cron(0 0 1 1 ? 2026)", "2026-03-01T00:00:00"),
            None,
            "the expression has no time after 2026"
        );
        assert_eq!(next("cron(0 0 30 2 ? *)", "2026-03-01T00:00:00"), None, "February has no 30th day");
    }

    #[test]
    fn rate_schedule_counts_from_its_start_and_at_schedule_fires_once() {
        assert_eq!(next("rate(5 minutes)", "2026-01-01T00:00:00").unwrap(), "2026-01-01T00:05");
        assert_eq!(next("rate(5 minutes)", "2026-01-01T00:05:00").unwrap(), "2026-01-01T00:10");
        assert_eq!(next("rate(1 hour)", "2026-01-01T07:30:00").unwrap(), "2026-01-01T08:00");
        assert_eq!(next("rate(2 days)", "2026-01-01T00:00:00").unwrap(), "2026-01-03T00:00");
        assert_eq!(next("at(2026-03-01T12:00:00)", "2026-01-01T00:00:00").unwrap(), "2026-03-01T12:00");
        assert_eq!(next("at(2026-03-01T12:00:00)", "2026-03-01T12:00:00"), None);
    }

    #[test]
    fn invalid_schedule_expression_is_rejected() {
        for text in [
            "",
            "every day",
            "rate()",
            "rate(0 minutes)",
            "rate(1 minutes)",
            "rate(5 minute)",
            "rate(5 weeks)",
            "rate(-1 hours)",
            "cron(0 12 * * ?)",
            "cron(0 12 * * * *)",
            "cron(0 12 ? * ? *)",
            "cron(60 12 * * ? *)",
            "cron(0 24 * * ? *)",
            "cron(0 12 0 * ? *)",
            "cron(0 12 32W * ? *)",
            "cron(0 12 * 13 ? *)",
            "cron(0 12 * FOO ? *)",
            "cron(0 12 ? * 8 *)",
            "cron(0 12 ? * 2#6 *)",
            "cron(0 12 * * ? 1969)",
            "cron(0/0 12 * * ? *)",
            "cron(0 12 * * ? *",
            "at(tomorrow)",
        ] {
            assert!(text.parse::<Expression>().is_err(), "{text}");
        }
    }
}
