//! Functions that are invoked by the clock: `EventBridge`'s scheduled rules and `EventBridge` Scheduler's schedules.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::civil::{Date, DateTime, Weekday, date};
use jiff::tz::TimeZone;
use serde_json::json;
use streamer::ports::{Clock, Entropy, Timestamp};

use super::Functions;
use crate::aws_format::{iso_8601, uuid};

/// The most that the clock is waited for at once, since it may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// A function that the clock invokes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// The name of the function.
    pub function: String,
    /// The ARN of the rule or schedule, which the event names.
    pub arn: String,
    /// When.
    pub expression: Expression,
    /// The payload instead of the event that AWS makes.
    pub input: Option<String>,
    /// Which of AWS's two services keeps it.
    pub service: Scheduler,
}

/// What keeps a schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheduler {
    /// A scheduled rule of `EventBridge`: its event says that it was scheduled.
    Rule,
    /// A schedule of `EventBridge` Scheduler: its event has another source, and a detail that is text.
    Schedule,
}

impl Schedule {
    /// Invokes the function asynchronously at each moment of the schedule, until `stop` completes.
    ///
    /// A moment that passed unseen, since the machine slept, is not made up for.
    pub async fn run(
        self,
        functions: Functions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::select! {
            biased;
            () = stop => {}
            never = self.invoke_for_ever(&functions, &*clock, &*entropy) => match never {},
        }
    }

    async fn invoke_for_ever(
        &self,
        functions: &Functions,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Infallible {
        let start = clock.now();
        let mut coming = self.first(start);
        while let Some(next) = coming {
            loop {
                let left = next.since(clock.now());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
            let payload = Bytes::from(self.payload(next, entropy));
            if let Err(error) = functions.invoke_async(&self.function, payload) {
                let line = format!("{} did not invoke it: {error}", self.arn);
                functions.0.options.log.line(&self.function, &line);
            }
            coming = self.expression.next(start, next.max(clock.now()));
        }
        // There is no such moment any more, which is no end of the stage.
        std::future::pending().await
    }

    /// The first moment of a schedule that was made at `start`: of a schedule with a rate that very moment, since it names no
    /// other (`EventBridge` Scheduler's guide, «Schedule types»: without a `StartDate`, it «starts invoking the target
    /// immediately»); of a rule only after its interval.
    fn first(&self, start: Timestamp) -> Option<Timestamp> {
        match (self.service, &self.expression.0) {
            (Scheduler::Schedule, When::Rate(_)) => Some(start),
            (Scheduler::Rule, When::Rate(_)) | (_, When::At(_) | When::Cron(_)) => {
                self.expression.next(start, start)
            }
        }
    }

    /// The event as `EventBridge` makes it (its guide, «Creating a rule that runs on a schedule»).
    fn payload(&self, at: Timestamp, entropy: &dyn Entropy) -> String {
        if let Some(input) = &self.input {
            return input.clone();
        }
        let mut parts = self.arn.split(':').skip(3);
        let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (source, detail) = match self.service {
            Scheduler::Rule => ("aws.events", json!({})),
            Scheduler::Schedule => ("aws.scheduler", json!("{}")),
        };
        // Whole seconds, as AWS writes them.
        let time = iso_8601(Timestamp::from_secs(at.as_secs())).replace(".000Z", "Z");
        json!({
            "version": "0",
            "id": uuid(entropy),
            "detail-type": "Scheduled Event",
            "source": source,
            "account": account,
            "time": time,
            "region": region,
            "resources": [self.arn],
            "detail": detail,
        })
        .to_string()
    }
}

/// When a schedule invokes: `rate(5 minutes)`, `cron(0 12 * * ? *)`, or `at(2026-03-01T12:00:00)`; all in UTC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expression(When);

#[derive(Clone, Debug, Eq, PartialEq)]
enum When {
    /// This long after each other, from the stage's start on.
    Rate(Duration),
    At(Timestamp),
    Cron(Box<Cron>),
}

impl Expression {
    /// The first moment after `after`, of a schedule that was made at `start`.
    fn next(&self, start: Timestamp, after: Timestamp) -> Option<Timestamp> {
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

/// Why an expression is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpressionError(String);

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpressionError {}

fn wrong(message: impl Into<String>) -> ExpressionError {
    ExpressionError(message.into())
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
            let at: DateTime = at.parse().map_err(|_| wrong(format!("{at:?} is not yyyy-mm-ddThh:mm:ss")))?;
            let at = timestamp(at).ok_or_else(|| wrong(format!("{text:?} lies before 1970")))?;
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
    // AWS insists on the right number of the noun.
    let minutes = match (unit, value) {
        ("minute", 1) | ("minutes", 2..) => 1,
        ("hour", 1) | ("hours", 2..) => 60,
        ("day", 1) | ("days", 2..) => 24 * 60,
        _ => {
            return Err(wrong(format!(
                "expected minute, hour or day after 1, and else minutes, hours or days, found {text:?}"
            )));
        }
    };
    Ok(Duration::from_mins(minutes) * value)
}

/// The six fields of a cron expression of AWS.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Cron {
    minutes: BTreeSet<i16>,
    hours: BTreeSet<i16>,
    days: Days,
    months: BTreeSet<i16>,
    years: BTreeSet<i16>,
}

/// On which days of a month.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Days {
    OfMonth(BTreeSet<i16>),
    /// `L`: the last one.
    Last,
    /// `3W`: the working day next to the third, within the month.
    WorkingDay(i8),
    /// Days of the week, of which Sunday is 1.
    OfWeek(BTreeSet<i16>),
    /// `6L`: the last Friday.
    LastWeekday(Weekday),
    /// `3#2`: the second Tuesday.
    NthWeekday(Weekday, i8),
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Cron {
    fn parse(text: &str) -> Result<Self, ExpressionError> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, day, month, weekday, year] = *fields.as_slice() else {
            return Err(wrong(format!(
                "a cron expression has six fields (minutes, hours, day of month, month, day of week, year), and \
                 {text:?} has {}",
                fields.len()
            )));
        };
        let days = match (day, weekday) {
            (day, "?") => Days::of_month(day)?,
            ("?", weekday) => Days::of_week(weekday)?,
            _ => return Err(wrong("one of day of month and day of week must be ?, and the other not")),
        };
        Ok(Self {
            minutes: Field { what: "minutes", least: 0, most: 59, names: &[] }.values(minutes)?,
            hours: Field { what: "hours", least: 0, most: 23, names: &[] }.values(hours)?,
            days,
            months: Field { what: "month", least: 1, most: 12, names: &MONTHS }.values(month)?,
            years: Field { what: "year", least: 1970, most: 2199, names: &[] }.values(year)?,
        })
    }

    /// The first minute after `after` that fits; none when there is none any more.
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_second(i64::try_from(after.as_secs()).ok()?).ok()?;
        let after = TimeZone::UTC.to_datetime(after);
        for year in self.years.range(after.year()..) {
            for month in &self.months {
                let first = date(*year, i8::try_from(*month).ok()?, 1);
                if first.last_of_month() < after.date() {
                    continue;
                }
                for day in
                    first.series(jiff::Span::new().days(1)).take_while(|day| day.month() == first.month())
                {
                    if day < after.date() || !self.days.contains(day) {
                        continue;
                    }
                    let times = self
                        .hours
                        .iter()
                        .flat_map(|hour| self.minutes.iter().map(move |minute| (*hour, *minute)));
                    for (hour, minute) in times {
                        let at = day.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
                        if at > after {
                            return timestamp(at);
                        }
                    }
                }
            }
        }
        None
    }
}

impl Days {
    fn of_month(text: &str) -> Result<Self, ExpressionError> {
        let field = Field { what: "day of month", least: 1, most: 31, names: &[] };
        if text == "L" {
            return Ok(Self::Last);
        }
        if let Some(day) = text.strip_suffix('W') {
            let day = i8::try_from(field.value(day)?).map_err(|_| field.wrong(text))?;
            return Ok(Self::WorkingDay(day));
        }
        field.values(text).map(Self::OfMonth)
    }

    fn of_week(text: &str) -> Result<Self, ExpressionError> {
        let field = Field { what: "day of week", least: 1, most: 7, names: &WEEKDAYS };
        let weekday = |text: &str| {
            let day = i8::try_from(field.value(text)?).ok();
            day.and_then(|day| Weekday::from_sunday_one_offset(day).ok()).ok_or_else(|| field.wrong(text))
        };
        if text == "L" {
            // The last day of the week.
            return Ok(Self::OfWeek([7].into()));
        }
        if let Some(day) = text.strip_suffix('L') {
            return weekday(day).map(Self::LastWeekday);
        }
        if let Some((day, nth)) = text.split_once('#') {
            let nth =
                nth.parse().ok().filter(|nth| (1..=5).contains(nth)).ok_or_else(|| field.wrong(text))?;
            return Ok(Self::NthWeekday(weekday(day)?, nth));
        }
        field.values(text).map(Self::OfWeek)
    }

    fn contains(&self, day: Date) -> bool {
        match self {
            Self::OfMonth(days) => days.contains(&i16::from(day.day())),
            Self::Last => day == day.last_of_month(),
            Self::WorkingDay(near) => Some(day) == working_day(day, *near),
            Self::OfWeek(days) => days.contains(&i16::from(day.weekday().to_sunday_one_offset())),
            Self::LastWeekday(weekday) => {
                day.nth_weekday_of_month(-1, *weekday).is_ok_and(|last| last == day)
            }
            Self::NthWeekday(weekday, nth) => {
                day.nth_weekday_of_month(*nth, *weekday).is_ok_and(|nth| nth == day)
            }
        }
    }
}

/// The working day next to the `near`th of the month of `day`; none where the month is too short.
fn working_day(day: Date, near: i8) -> Option<Date> {
    let wanted = day.with().day(near).build().ok()?;
    let away = match wanted.weekday() {
        Weekday::Saturday if near == 1 => 2,
        Weekday::Saturday => -1,
        Weekday::Sunday if wanted == wanted.last_of_month() => -2,
        Weekday::Sunday => 1,
        Weekday::Monday | Weekday::Tuesday | Weekday::Wednesday | Weekday::Thursday | Weekday::Friday => 0,
    };
    wanted.checked_add(jiff::Span::new().days(away)).ok()
}

/// One field of a cron expression: a list of values, ranges and steps.
#[derive(Clone, Copy, Debug)]
struct Field {
    what: &'static str,
    least: i16,
    most: i16,
    /// Other words for the values, of which the first stands for 1.
    names: &'static [&'static str],
}

impl Field {
    fn wrong(&self, text: &str) -> ExpressionError {
        let Self { what, least, most, .. } = self;
        wrong(format!("{what}: expected values from {least} to {most}, found {text:?}"))
    }

    fn value(&self, text: &str) -> Result<i16, ExpressionError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(place) => i16::try_from(place).ok().map(|place| place + 1),
            None => text.parse().ok(),
        };
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| self.wrong(text))
    }

    fn values(&self, text: &str) -> Result<BTreeSet<i16>, ExpressionError> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse::<usize>().ok().filter(|step| *step > 0);
                    (range, Some(step.ok_or_else(|| self.wrong(part))?))
                }
                None => (part, None),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                // `1/10` goes on to the end.
                None if step.is_some() => (self.value(range)?, self.most),
                None => (self.value(range)?, self.value(range)?),
            };
            let step = step.unwrap_or(1);
            if first <= last {
                values.extend((first..=last).step_by(step));
            } else {
                // `FRI-MON` goes round.
                values.extend((first..=self.most).chain(self.least..=last).step_by(step));
            }
        }
        Ok(values)
    }
}

fn timestamp(at: DateTime) -> Option<Timestamp> {
    let at = TimeZone::UTC.to_timestamp(at).ok()?;
    u64::try_from(at.as_second()).ok().map(Timestamp::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        timestamp(text.parse().unwrap()).unwrap()
    }

    fn next(expression: &str, after: &str) -> Option<String> {
        let expression: Expression = expression.parse().unwrap();
        let next = expression.next(moment("2026-01-01T00:00:00"), moment(after));
        next.map(|next| iso_8601(next).replace(":00.000Z", ""))
    }

    #[test]
    fn schedule_row_cron_expressions_of_every_kind() {
        // The 1st of March 2026 is a Sunday.
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
        assert_eq!(next("cron(0 0 1 1 ? 2026)", "2026-03-01T00:00:00"), None, "never again");
        assert_eq!(next("cron(0 0 30 2 ? *)", "2026-03-01T00:00:00"), None, "there is no such day");
    }

    #[test]
    fn schedule_row_rates_count_from_the_start_and_at_happens_once() {
        assert_eq!(next("rate(5 minutes)", "2026-01-01T00:00:00").unwrap(), "2026-01-01T00:05");
        assert_eq!(next("rate(5 minutes)", "2026-01-01T00:05:00").unwrap(), "2026-01-01T00:10");
        assert_eq!(next("rate(1 hour)", "2026-01-01T07:30:00").unwrap(), "2026-01-01T08:00");
        assert_eq!(next("rate(2 days)", "2026-01-01T00:00:00").unwrap(), "2026-01-03T00:00");
        assert_eq!(next("at(2026-03-01T12:00:00)", "2026-01-01T00:00:00").unwrap(), "2026-03-01T12:00");
        assert_eq!(next("at(2026-03-01T12:00:00)", "2026-03-01T12:00:00"), None);
    }

    #[test]
    fn schedule_row_what_is_no_expression_is_refused() {
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
