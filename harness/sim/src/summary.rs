//! Summary of many worlds, printed as tables of counts.

use std::fmt;
use std::time::Duration;

use super::plan::FaultKind;
use super::tally::{FRAMES, TRANSITIONS, Tally};

/// Summary of many simulated runs, printed as tables with the number of occurrences of each fault, status
/// change, frame and error code.
#[derive(Debug)]
pub struct Summary<'a> {
    pub(super) worlds: u64,
    pub(super) lasted: Duration,
    pub(super) took: Duration,
    pub(super) worlds_per_second: f64,
    pub(super) tally: &'a Tally,
}

impl Summary<'_> {
    /// Returns the names of the kinds of faults, status changes and types of frames that no simulated run
    /// reached.
    #[must_use]
    pub fn never(&self) -> Vec<String> {
        self.tally.never()
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, lasted, took, worlds_per_second, tally } = self;
        writeln!(
            f,
            "{} worlds in {}: {worlds_per_second:.1} per second; {} of virtual time, {} times real time",
            grouped(*worlds),
            span(*took),
            span(*lasted),
            grouped(times_real_time(*lasted, *took)),
        )?;
        writeln!(
            f,
            "{} messages from clients, {} handler runs, {} events",
            grouped(tally.messages),
            grouped(tally.runs),
            grouped(tally.events),
        )?;
        let faults = FaultKind::ALL.iter().filter_map(|kind| tally.faults.get_key_value(kind.name()));
        table(f, "faults injected", faults.map(|(kind, times)| ((*kind).to_owned(), *times)))?;
        // List the legal status changes in the order of a request's life, and then the illegal changes, which
        // the checker also reports as violations.
        let known = TRANSITIONS.iter().filter_map(|change| tally.transitions.get_key_value(change));
        let others = tally.transitions.iter().filter(|(change, _)| !TRANSITIONS.contains(change));
        let changes = known.chain(others);
        table(f, "status changes", changes.map(|((from, to), times)| (format!("{from} → {to}"), *times)))?;
        let known = FRAMES.iter().filter_map(|kind| tally.frames.get_key_value(*kind));
        let others = tally.frames.iter().filter(|(kind, _)| !FRAMES.contains(&kind.as_str()));
        table(f, "frames received", known.chain(others).map(|(kind, times)| (kind.clone(), *times)))?;
        table(f, "error codes", tally.codes.iter().map(|(code, times)| (code.clone(), *times)))?;
        let never = self.never();
        if never.is_empty() { Ok(()) } else { write!(f, "\n{}", wrapped("never reached: ", &never)) }
    }
}

/// Formats a list, wrapped at 80 characters.
fn wrapped(title: &str, words: &[String]) -> String {
    const WIDTH: usize = 80;
    let (mut text, mut line) = (String::new(), title.to_owned());
    for (at, word) in words.iter().enumerate() {
        let comma = if at + 1 < words.len() { ", " } else { "" };
        if line.chars().count() + word.chars().count() + 1 > WIDTH {
            text += line.trim_end();
            text.push('\n');
            line = " ".repeat(title.len());
        }
        line = line + word + comma;
    }
    text + line.trim_end() + "\n"
}

/// Returns the ratio of virtual time to real time, as a whole number.
fn times_real_time(lasted: Duration, took: Duration) -> u64 {
    let times = lasted.as_millis() / took.as_millis().max(1);
    u64::try_from(times).unwrap_or(u64::MAX)
}

/// Prints names and counts in two columns, under a title.
fn table(f: &mut fmt::Formatter<'_>, title: &str, rows: impl Iterator<Item = (String, u64)>) -> fmt::Result {
    let cells: Vec<String> = rows.map(|(name, times)| format!("{name:<25} {:>12}", grouped(times))).collect();
    if cells.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    let height = cells.len().div_ceil(2);
    for row in 0..height {
        let pair = [cells.get(row), cells.get(row + height)];
        let pair: Vec<&str> = pair.into_iter().flatten().map(String::as_str).collect();
        writeln!(f, "  {}", pair.join("    "))?;
    }
    Ok(())
}

/// Formats a number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration in its two largest units, or in seconds if it is below a minute.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{:.1} s", duration.as_secs_f64()),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{} d {hours} h", grouped(days)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_list_is_wrapped_at_80_characters() {
        let words: Vec<String> = (0..40).map(|number| format!("word{number}")).collect();
        let text = wrapped("never: ", &words);
        assert!(
            text.lines().all(|line| line.len() <= 80) && text.lines().count() > 3,
            "the list takes several lines of at most 80 characters: {text}"
        );
        let all = text.replace(['\n', ' '], "");
        assert_eq!(all, format!("never:{}", words.join(",")));
        assert_eq!(wrapped("never: ", &["kill".to_owned()]), "never: kill\n");
    }

    #[test]
    fn counts_have_thousands_separators_and_durations_have_units() {
        let numbers = [0, 999, 1_000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let times = [1_500, 59_960, 61_000, 3_600_000, 90_000_000, 86_400_000_000];
        let times = times.map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(times, ["1.5 s", "60.0 s", "1 min 1 s", "1 h 0 min", "1 d 1 h", "1,000 d 0 h"]);
    }
}
