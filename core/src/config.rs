//! Reading a function's settings from its environment variables, and reporting all invalid values together.
//!
//! [`Environment`] reads and checks single variables. The variables of a settings struct, with their defaults and
//! bounds, are listed in the struct's own `from_env`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Reads environment variables, and collects the problems with them.
///
/// An empty value counts as not set, because a CloudFormation template cannot omit a variable conditionally.
pub struct Environment<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

/// A function that returns the value of a variable by its name.
type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + Send + 'a>;

impl<'a> Environment<'a> {
    /// Creates an environment whose variables are looked up with `lookup`.
    #[must_use]
    pub fn new(lookup: impl Fn(&str) -> Option<String> + Send + 'a) -> Self {
        Self { lookup: Box::new(lookup), problems: Vec::new() }
    }

    /// Creates the environment of this process.
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

    /// Returns the value of a required variable. If it is not set, records a problem and returns an empty string.
    pub fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(format!("{name} is not set"));
            String::new()
        })
    }

    /// Parses the value of a required variable. If it is not set or `parse` fails, records a problem and returns
    /// `None`.
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

    /// Parses the value of an optional variable. If it is not set, or is not `expected`, returns the default.
    ///
    /// A value that cannot be parsed is recorded as a problem.
    pub fn or_default<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(value) = self.optional(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.problem(format!("{name}: expected {expected}, found {value:?}"));
            default
        })
    }

    /// Reads an optional whole number of `unit` with a default. A value out of bounds is recorded as a problem.
    pub fn number(&mut self, name: &str, unit: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let expected = format!("{unit} from {} to {}", bounds.start(), bounds.end());
        let number = self.or_default(name, default, &expected);
        if bounds.contains(&number) {
            return number;
        }
        self.problem(format!("{name}: expected {expected}, found {number}"));
        default
    }

    /// Reads an optional duration in whole milliseconds, with a default and bounds.
    pub fn milliseconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(name, "milliseconds", default, bounds))
    }

    /// Reads an optional duration in whole seconds, with a default and bounds.
    pub fn seconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(name, "seconds", default.as_secs(), bounds))
    }

    /// Records a problem with the environment.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Finishes reading.
    ///
    /// # Errors
    /// [`ConfigError`] with all recorded problems, if there are any.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Finishes reading and returns the settings that were read. `None` means that a problem was recorded.
    ///
    /// # Errors
    /// [`ConfigError`] with all recorded problems, if there are any.
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

/// The problems with a function's environment, because of which the function cannot start.
#[derive(Clone, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Creates an error with one problem.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

/// Formats the error like `Display`, because Rust prints an error that `main` returns with `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment of this function is wrong: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}
