//! Cron expressions in AWS's syntax.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday, date};
use jiff::tz::TimeZone;
use streamer::ports::Timestamp;

use super::error::{ExpressionError, wrong};

/// A parsed cron expression in AWS's syntax, with the matching values of its six fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cron {
    minutes: BTreeSet<i16>,
    hours: BTreeSet<i16>,
    days: Days,
    months: BTreeSet<i16>,
    years: BTreeSet<i16>,
}

/// Matching days of a cron expression: days of the month, or days of the week.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Days {
    OfMonth(BTreeSet<i16>),
    /// `L`: the last day of the month.
    Last,
    /// `3W`: the working day of the month that is nearest to the third day.
    WorkingDay(i8),
    /// Days of the week, of which Sunday is 1.
    OfWeek(BTreeSet<i16>),
    /// `6L`: the last Friday of the month.
    LastWeekday(Weekday),
    /// `3#2`: the second Tuesday of the month.
    NthWeekday(Weekday, i8),
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Cron {
    pub(super) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, day, month, weekday, year] = *fields.as_slice() else {
            return Err(wrong(format!(
                "expected six cron fields (minutes, hours, day of month, month, day of week, year), found {} in {text:?}",
                fields.len()
            )));
        };
        let days = match (day, weekday) {
            (day, "?") => Days::of_month(day)?,
            ("?", weekday) => Days::of_week(weekday)?,
            _ => return Err(wrong("exactly one of day of month and day of week must be ?")),
        };
        Ok(Self {
            minutes: Field { name: "minutes", least: 0, most: 59, names: &[] }.values(minutes)?,
            hours: Field { name: "hours", least: 0, most: 23, names: &[] }.values(hours)?,
            days,
            months: Field { name: "month", least: 1, most: 12, names: &MONTHS }.values(month)?,
            years: Field { name: "year", least: 1970, most: 2199, names: &[] }.values(year)?,
        })
    }

    /// Returns the first matching minute after `after`; `None` if no later minute matches.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
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
        let field = Field { name: "day of month", least: 1, most: 31, names: &[] };
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
        let field = Field { name: "day of week", least: 1, most: 7, names: &WEEKDAYS };
        let weekday = |text: &str| {
            let day = i8::try_from(field.value(text)?).ok();
            day.and_then(|day| Weekday::from_sunday_one_offset(day).ok()).ok_or_else(|| field.wrong(text))
        };
        if text == "L" {
            // `L` alone is the last day of the week, Saturday.
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

/// Returns the working day nearest to the `near`th day of the month that contains `day`; `None` if the month
/// has fewer than `near` days.
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

/// Name and allowed values of one field of a cron expression. A field is a list of values, ranges and steps.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    least: i16,
    most: i16,
    /// Alternative names of the values, such as `JAN`, in ascending order from the value 1; empty if there
    /// are none.
    names: &'static [&'static str],
}

impl Field {
    fn wrong(&self, text: &str) -> ExpressionError {
        let Self { name, least, most, .. } = self;
        wrong(format!("{name}: expected values from {least} to {most}, found {text:?}"))
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
                // `1/10` means every tenth value from 1 to the largest value of the field.
                None if step.is_some() => (self.value(range)?, self.most),
                None => (self.value(range)?, self.value(range)?),
            };
            let step = step.unwrap_or(1);
            if first <= last {
                values.extend((first..=last).step_by(step));
            } else {
                // `FRI-MON` wraps around.
                values.extend((first..=self.most).chain(self.least..=last).step_by(step));
            }
        }
        Ok(values)
    }
}

/// Converts a date and time in UTC to a timestamp; `None` before 1970.
pub(super) fn timestamp(at: DateTime) -> Option<Timestamp> {
    let at = TimeZone::UTC.to_timestamp(at).ok()?;
    u64::try_from(at.as_second()).ok().map(Timestamp::from_secs)
}
