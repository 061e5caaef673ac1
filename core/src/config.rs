//! What a function is told by its environment: read once, with every bad value reported at once.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

use crate::auth::{Algorithm, TokenVerifier};

/// Reads settings, and gathers what is wrong with them.
///
/// An empty value counts as none: a template has no other way to leave a variable out.
#[derive(Debug)]
pub struct Environment<F> {
    lookup: F,
    problems: Vec<String>,
}

impl Environment<fn(&str) -> Option<String>> {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    /// An environment that `lookup` knows.
    pub const fn new(lookup: F) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// The value of a variable that may be missing.
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable that must be there.
    pub fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problems.push(format!("{name} is not set"));
            String::new()
        })
    }

    /// The value of a variable that must be there and mean something.
    pub fn parsed<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.optional(name);
        if value.is_none() {
            self.problems.push(format!("{name} is not set"));
        }
        match parse(&value?) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.problems.push(format!("{name}: {problem}"));
                None
            }
        }
    }

    /// The value of a variable that has a default.
    pub fn or_default<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(value) = self.optional(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.problems.push(format!("{name}: expected {expected}, found {value:?}"));
            default
        })
    }

    /// How much is logged: `LOG_LEVEL`, default `info`.
    pub fn log_level(&mut self) -> LevelFilter {
        self.or_default("LOG_LEVEL", LevelFilter::INFO, "off, error, warn, info, debug or trace")
    }

    /// What tokens are verified with: `JWT_ALGORITHM` and `JWT_KEY`; `JWT_ISSUER` and `JWT_AUDIENCE` if they are set.
    pub fn token_verifier(&mut self) -> Option<TokenVerifier> {
        let algorithm = self.parsed("JWT_ALGORITHM", Algorithm::from_str);
        // The key is looked at even where the algorithm is missing, so that both are reported.
        let mut verifier = self.parsed("JWT_KEY", |key| match algorithm {
            Some(algorithm) => TokenVerifier::new(algorithm, key).map(Some),
            None => Ok(None),
        })??;
        if let Some(issuer) = self.optional("JWT_ISSUER") {
            verifier = verifier.with_issuer(issuer);
        }
        if let Some(audience) = self.optional("JWT_AUDIENCE") {
            verifier = verifier.with_audience(audience);
        }
        Some(verifier)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All that was wrong.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }
}

/// An environment that a function cannot start in.
#[derive(Clone, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &'static [(&str, &str)]) -> Environment<impl Fn(&str) -> Option<String>> {
        Environment::new(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_bad_value_is_reported_at_once() {
        let mut environment =
            environment(&[("LOG_LEVEL", "loud"), ("JWT_ALGORITHM", "none"), ("CONNECTIONS_TABLE", "")]);
        assert_eq!(environment.required("CONNECTIONS_TABLE"), "");
        assert_eq!(environment.log_level(), LevelFilter::INFO);
        assert!(environment.token_verifier().is_none());
        insta::assert_snapshot!(environment.finish().unwrap_err());
    }

    #[test]
    fn a_key_that_does_not_fit_its_algorithm_is_reported() {
        let mut environment = environment(&[("JWT_ALGORITHM", "RS256"), ("JWT_KEY", "nonsense")]);
        assert!(environment.token_verifier().is_none());
        let error = environment.finish().unwrap_err().to_string();
        assert!(error.contains("JWT_KEY: is no public key in PEM for Rs256"), "{error}");
    }

    #[test]
    fn a_good_environment_is_read() {
        let mut environment = environment(&[
            ("LOG_LEVEL", "warn"),
            ("JWT_ALGORITHM", "HS256"),
            ("JWT_KEY", "0123456789abcdef0123456789abcdef"),
            ("JWT_ISSUER", "https://issuer.example"),
            ("JWT_AUDIENCE", "streamer"),
        ]);
        assert_eq!(environment.log_level(), LevelFilter::WARN);
        assert!(environment.token_verifier().is_some());
        assert_eq!(environment.finish(), Ok(()));
    }
}
