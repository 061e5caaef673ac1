//! What a function reads from its environment: once, with every bad value reported at once.
//!
//! [`Environment`] knows how to read. Which variable is read, with which default and within which bounds, stands beside the
//! settings that it is for, in their `from_env`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Reads settings, and gathers what is wrong with them.
///
/// An empty value counts as none: a template has no other way to leave a variable out.
pub struct Environment<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

/// The value of a variable, by its name.
type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + Send + 'a>;

impl<'a> Environment<'a> {
    /// An environment that `lookup` knows.
    #[must_use]
    pub fn new(lookup: impl Fn(&str) -> Option<String> + Send + 'a) -> Self {
        Self { lookup: Box::new(lookup), problems: Vec::new() }
    }

    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    #[cfg(test)]
    pub(crate) fn of_variables(variables: &'a [(&'a str, &'a str)]) -> Self {
        Self::new(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// The value of a variable that may be missing.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable that must be there.
    pub fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(format!("{name} is not set"));
            String::new()
        })
    }

    /// The value of a variable that must be there and mean something.
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

    /// The value of a variable that has a default.
    pub fn or_default<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(value) = self.optional(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.problem(format!("{name}: expected {expected}, found {value:?}"));
            default
        })
    }

    /// A whole number, of `unit`, that has a default and bounds.
    pub fn number(&mut self, name: &str, unit: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let expected = format!("{unit} from {} to {}", bounds.start(), bounds.end());
        let number = self.or_default(name, default, &expected);
        if bounds.contains(&number) {
            return number;
        }
        self.problem(format!("{name}: expected {expected}, found {number}"));
        default
    }

    /// A duration in whole milliseconds that has a default and bounds.
    pub fn milliseconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(name, "milliseconds", default, bounds))
    }

    /// A duration in whole seconds that has a default and bounds.
    pub fn seconds(&mut self, name: &str, default: Duration, bounds: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(name, "seconds", default.as_secs(), bounds))
    }

    /// Adds something that is wrong with the environment.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All that was wrong.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Ends the reading with what was read, which is there unless there was a problem.
    ///
    /// # Errors
    /// All that was wrong.
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

/// An environment that a function cannot start in.
#[derive(Clone, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// An environment in which this is wrong.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

/// As it is read, since this is how Rust prints the error that ends `main`.
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
