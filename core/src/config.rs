//! Reads a function's settings from its environment variables, and reports all invalid values together.
//!
//! [`Environment`] reads and validates single variables. Each settings struct, such as `RouterSettings`, has a
//! function `from_env` with the names, defaults and bounds of its variables.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Reads environment variables, and collects a list of missing and invalid values.
///
/// An empty value counts as not set, because CloudFormation templates commonly set a variable to an empty text
/// instead of omitting it.
pub struct Environment<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

/// A function that returns the value of a variable by its name.
type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + Send + 'a>;

impl<'a> Environment<'a> {
    /// Creates an environment that calls `lookup` with the name of a variable to get its value.
    #[must_use]
    pub fn new(lookup: impl Fn(&str) -> Option<String> + Send + 'a) -> Self {
        Self { lookup: Box::new(lookup), problems: Vec::new() }
    }

    /// Creates an environment that reads the variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    #[cfg(test)]
    pub(crate) fn of_variables(variables: &'a [(&'a str, &'a str)]) -> Self {
        Self::new(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// Returns the value of an optional variable; `None` if the variable is not set or empty.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// Returns the value of a required variable. If the variable is not set, records a problem and returns an empty
    /// string.
    pub fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(format!("{name} is not set"));
            String::new()
        })
    }

    /// Parses the value of a required variable. If the variable is not set or `parse` fails, records a problem and
    /// returns `None`.
    pub fn parsed<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.optional(name);
        if value.is_none() {
            self.problem(format!("{name} is not set"));
        }
        match parse(&value?) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.problem(format!("{name}: {problem}"));
                None
            }
        }
    }

    /// Parses the value of an optional variable. Returns `default` if the variable is not set.
    ///
    /// If the value cannot be parsed, records a problem and returns `default`. `expected` describes a valid value for
    /// the text of the problem, such as `true or false`.
    pub fn or_default<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(value) = self.optional(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.problem(format!("{name}: expected {expected}, found {value:?}"));
            default
        })
    }

    /// Parses an optional variable as a whole number; `unit` is the unit of the number for error texts, such
    /// as `seconds`. Returns `default` if the variable is not set.
    ///
    /// If the value is not a number or is out of bounds, records a problem and returns `default`.
    pub fn number(&mut self, name: &str, unit: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let expected = format!("a number of {unit} from {} to {}", bounds.start(), bounds.end());
        let number = self.or_default(name, default, &expected);
        if bounds.contains(&number) {
            return number;
        }
        self.problem(format!("{name}: expected {expected}, found {number}"));
        default
    }

    /// Parses an optional variable as a duration in whole milliseconds, like [`number`](Self::number).
    pub fn milliseconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(name, "milliseconds", default, bounds))
    }

    /// Parses an optional variable as a duration in whole seconds, like [`number`](Self::number).
    pub fn seconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(name, "seconds", default.as_secs(), bounds))
    }

    /// Records the description of a missing or invalid variable.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Returns an error if any variable was missing or invalid.
    ///
    /// # Errors
    /// [`ConfigError`] with all recorded problems, if there are any.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Returns the settings in `read`, or an error if any variable was missing or invalid.
    ///
    /// # Errors
    /// [`ConfigError`] with all recorded problems, if there are any, or if `read` is `None`.
    pub fn finish_with<T>(self, read: Option<T>) -> Result<T, ConfigError> {
        let Self { problems, .. } = self;
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(ConfigError { problems }),
        }
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("problems", &self.problems).finish_non_exhaustive()
    }
}

/// The error of a function that cannot start, with a list of its missing and invalid settings.
#[derive(Clone, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Creates an error with the description of one missing or invalid setting.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

/// Formats the error in the same way as `Display`, because Rust prints the error that `main` returns with `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration of this function is invalid: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}
