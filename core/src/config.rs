//! What a function is told by its environment: read once, with every bad value reported at once.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::auth::{Algorithm, TokenSettings, TokenVerifier};
use crate::aws::{AwsEnvironment, StoredValue};
use crate::executor::ExecutorSettings;
use crate::ids::TenantId;
use crate::lifecycle::Rules;
use crate::ports::Timestamp;
use crate::store::dynamodb::QueueSettings;
use crate::sweeper::SweeperSettings;
use crate::telemetry::Causes;

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

    /// A whole number, of `unit`, that has a default and bounds.
    fn number(&mut self, name: &str, unit: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let expected = format!("{unit} from {} to {}", bounds.start(), bounds.end());
        let number = self.or_default(name, default, &expected);
        if bounds.contains(&number) {
            return number;
        }
        self.problems.push(format!("{name}: expected {expected}, found {number}"));
        default
    }

    /// What is expected to take longer is queued: `ASYNC_THRESHOLD_MS`, in milliseconds, default 5,000, at most 25,000.
    ///
    /// With 0, everything is queued whose handler says that it takes any time.
    pub fn async_threshold(&mut self) -> Duration {
        Duration::from_millis(self.number("ASYNC_THRESHOLD_MS", "milliseconds", 5_000, 0..=25_000))
    }

    /// What is expected to take longer is run by the worker, alone, and not by the processor, beside others: `INLINE_LIMIT_MS`, in
    /// milliseconds, default 30,000, at most 870,000.
    ///
    /// It is also how much time an invocation of the processor must have left to start a request. With 0, the worker runs whatever
    /// is expected to take any time.
    pub fn inline_limit(&mut self) -> Duration {
        Duration::from_millis(self.number("INLINE_LIMIT_MS", "milliseconds", 30_000, 0..=870_000))
    }

    /// How requests are run; what has no variable is as by default.
    ///
    /// | variable | meaning | unit | default | bounds |
    /// |---|---|---|---|---|
    /// | `LEASE_MS` | how long a request stays with an invocation that gives no sign of life | ms | 60,000 | 30,000 to 900,000 |
    /// | `MAX_CONTINUATIONS` | how often a request may go on from a checkpoint in a fresh invocation | times | 100 (a day of invocations of 15 minutes) | 0 to 10,000 |
    pub fn executor_settings(&mut self) -> ExecutorSettings {
        let lease = self.number("LEASE_MS", "milliseconds", 60_000, 30_000..=900_000);
        ExecutorSettings {
            lease: Duration::from_millis(lease),
            max_continuations: self.max_continuations(),
            ..ExecutorSettings::default()
        }
    }

    fn max_continuations(&mut self) -> u32 {
        let default = Rules::default().max_continuations;
        let times = self.number("MAX_CONTINUATIONS", "times", default.into(), 0..=10_000);
        u32::try_from(times).unwrap_or(default)
    }

    /// How the sweeper works; what has no variable is as by default.
    ///
    /// | variable | meaning | unit | default | bounds |
    /// |---|---|---|---|---|
    /// | `SWEEPER_PACE_MS` | how often it looks for what falls due | ms | 5,000 | 1,000 to 60,000 |
    /// | `MAX_CONTINUATIONS` | as for [what runs requests](Self::executor_settings) | | | |
    pub fn sweeper_settings(&mut self) -> SweeperSettings {
        let pace = self.number("SWEEPER_PACE_MS", "milliseconds", 5_000, 1_000..=60_000);
        let rules = Rules { max_continuations: self.max_continuations(), ..Rules::default() };
        SweeperSettings { pace: Duration::from_millis(pace), rules, ..SweeperSettings::default() }
    }

    /// How many requests of a batch the processor runs at once: `CONCURRENCY`, default 10, from 1 to 100.
    pub fn concurrency(&mut self) -> usize {
        usize::try_from(self.number("CONCURRENCY", "requests", 10, 1..=100)).unwrap_or(usize::MAX)
    }

    /// How requests are kept; what has no variable is as by default.
    ///
    /// | variable | meaning | unit | default | bounds |
    /// |---|---|---|---|---|
    /// | `REQUEST_TTL_S` | how long an ended request is kept | s | 604,800 (7 days) | 3,600 to 31,536,000 (a year) |
    pub fn queue_settings(&mut self) -> QueueSettings {
        let ttl = self.number("REQUEST_TTL_S", "seconds", 604_800, 3_600..=31_536_000);
        QueueSettings { ttl: Duration::from_secs(ttl), ..QueueSettings::default() }
    }

    /// Whether a connection's end cancels its requests that nobody else listens to: `CANCEL_ON_DISCONNECT`, `true` or `false`,
    /// default `false`.
    pub fn cancel_on_disconnect(&mut self) -> bool {
        self.or_default("CANCEL_ON_DISCONNECT", false, "true or false")
    }

    /// How much is logged: `LOG_LEVEL`, default `info`.
    pub fn log_level(&mut self) -> LevelFilter {
        self.or_default("LOG_LEVEL", LevelFilter::INFO, "off, error, warn, info, debug or trace")
    }

    /// Whether every event and its reply goes to the log, for fixtures to be made of: `STREAMER_RECORD`,
    /// `true` or `false`, default `false`.
    ///
    /// Tokens and payloads are in them: it is for a while, and for a stage whose log may hold that.
    pub fn is_recording(&mut self) -> bool {
        self.or_default("STREAMER_RECORD", false, "true or false")
    }

    /// What tokens are verified with, or where it is kept.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `JWT_ALGORITHM` | what tokens may be signed with: `RS256`, `ES256`, `EdDSA`, `HS256`; for a key set, several, with commas |
    /// | `JWT_KEY` | a public key in PEM, a JSON Web Key Set, or with HS256 the secret itself |
    /// | `JWT_KEY_SSM_PARAMETER` | instead: the name of the SSM parameter that holds it |
    /// | `JWT_KEY_SECRET_ID` | instead: the name of the secret that holds it |
    /// | `JWT_ISSUER`, `JWT_AUDIENCE` | what a token must name as `iss` and `aud`; default anything |
    /// | `ALLOWED_TENANTS` | the tenants that may connect, with commas; default all |
    pub fn token_key(&mut self) -> Option<TokenKey> {
        let algorithms = self.parsed("JWT_ALGORITHM", |names| {
            names.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<Algorithm>, _>>()
        });
        let tenants = self.optional("ALLOWED_TENANTS").map(|names| list_of_tenants(&names));
        let settings = algorithms.map(|algorithms| TokenSettings {
            algorithms,
            issuer: self.optional("JWT_ISSUER"),
            audience: self.optional("JWT_AUDIENCE"),
            tenants,
        });
        let variables = ["JWT_KEY", "JWT_KEY_SSM_PARAMETER", "JWT_KEY_SECRET_ID"];
        let [given, parameter, secret] = variables.map(|name| self.optional(name));
        match (given, parameter, secret) {
            (Some(key), None, None) => match settings?.verifier(&key) {
                Ok(verifier) => Some(TokenKey::Given(verifier)),
                Err(problem) => {
                    self.problems.push(format!("JWT_KEY: {problem}"));
                    None
                }
            },
            (None, Some(name), None) => Some(TokenKey::Stored(StoredValue::SsmParameter(name), settings?)),
            (None, None, Some(id)) => Some(TokenKey::Stored(StoredValue::Secret(id), settings?)),
            (None, None, None) => {
                self.problems.push(format!("none of {} is set", variables.join(", ")));
                None
            }
            _ => {
                self.problems.push(format!("more than one of {} is set", variables.join(", ")));
                None
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All that was wrong.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Ends the reading with what was read, which is there unless there was a problem.
    pub(crate) fn finish_with<T>(self, read: Option<T>) -> Result<T, ConfigError> {
        let Self { problems, .. } = self;
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(ConfigError { problems }),
        }
    }
}

fn list_of_tenants(names: &str) -> BTreeSet<TenantId> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(TenantId::new).collect()
}

/// What tokens are verified with, or where it is kept: see [`Environment::token_key`].
#[derive(Debug)]
pub enum TokenKey {
    /// It stands in the environment.
    Given(TokenVerifier),
    /// It is to be read, and verifies under these settings.
    Stored(StoredValue, TokenSettings),
}

impl TokenKey {
    /// The verifier, with a key that is kept elsewhere read now.
    ///
    /// # Errors
    /// When it cannot be read, or is no key.
    pub async fn verifier(self, aws: &AwsEnvironment, now: Timestamp) -> Result<TokenVerifier, ConfigError> {
        let (place, settings) = match self {
            Self::Given(verifier) => return Ok(verifier),
            Self::Stored(place, settings) => (place, settings),
        };
        let problem = match place.read(aws, now).await {
            Ok(key) => match settings.verifier(&key) {
                Ok(verifier) => return Ok(verifier),
                Err(problem) => format!("{place} {problem}"),
            },
            Err(error) => Causes(&error).to_string(),
        };
        Err(ConfigError { problems: vec![problem] })
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
        assert!(environment.token_key().is_none());
        insta::assert_snapshot!(environment.finish().unwrap_err());
    }

    #[test]
    fn a_key_that_does_not_fit_its_algorithm_is_reported() {
        let mut environment = environment(&[("JWT_ALGORITHM", "RS256"), ("JWT_KEY", "nonsense")]);
        assert!(environment.token_key().is_none());
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
        assert!(environment.token_key().is_some());
        assert_eq!(environment.finish(), Ok(()));
    }

    #[test]
    fn what_is_not_set_is_as_by_default() {
        let mut environment = environment(&[]);
        assert_eq!(environment.async_threshold(), Duration::from_secs(5));
        assert_eq!(environment.inline_limit(), Duration::from_secs(30));
        assert_eq!(environment.concurrency(), 10);
        let (executor, sweeper) = (environment.executor_settings(), environment.sweeper_settings());
        let queue = environment.queue_settings();
        assert_eq!(format!("{executor:?}"), format!("{:?}", ExecutorSettings::default()));
        assert_eq!(format!("{sweeper:?}"), format!("{:?}", SweeperSettings::default()));
        assert_eq!(format!("{queue:?}"), format!("{:?}", QueueSettings::default()));
        assert!(!environment.cancel_on_disconnect() && !environment.is_recording());
        assert_eq!(environment.finish(), Ok(()));
    }

    #[test]
    fn a_setting_is_taken_within_its_bounds() {
        let mut within = environment(&[
            ("ASYNC_THRESHOLD_MS", "0"),
            ("INLINE_LIMIT_MS", "870000"),
            ("CONCURRENCY", "100"),
            ("LEASE_MS", "30000"),
            ("MAX_CONTINUATIONS", "0"),
            ("SWEEPER_PACE_MS", "60000"),
            ("REQUEST_TTL_S", "3600"),
            ("CANCEL_ON_DISCONNECT", "true"),
            ("STREAMER_RECORD", "true"),
        ]);
        assert_eq!(within.async_threshold(), Duration::ZERO);
        assert_eq!(within.inline_limit(), Duration::from_secs(870));
        assert_eq!(within.concurrency(), 100);
        let executor = within.executor_settings();
        assert_eq!((executor.lease, executor.max_continuations), (Duration::from_secs(30), 0));
        let sweeper = within.sweeper_settings();
        assert_eq!((sweeper.pace, sweeper.rules.max_continuations), (Duration::from_mins(1), 0));
        assert_eq!(within.queue_settings().ttl, Duration::from_hours(1));
        assert!(within.cancel_on_disconnect() && within.is_recording());
        assert_eq!(within.finish(), Ok(()));

        let mut without = environment(&[
            ("ASYNC_THRESHOLD_MS", "25001"),
            ("INLINE_LIMIT_MS", "870001"),
            ("CONCURRENCY", "-1"),
            ("LEASE_MS", "60s"),
            ("MAX_CONTINUATIONS", "10001"),
            ("SWEEPER_PACE_MS", "999"),
            ("REQUEST_TTL_S", "99999999999999999999"),
            ("CANCEL_ON_DISCONNECT", "yes"),
            ("STREAMER_RECORD", "1"),
        ]);
        without.async_threshold();
        without.inline_limit();
        without.concurrency();
        without.executor_settings();
        without.sweeper_settings();
        without.queue_settings();
        without.cancel_on_disconnect();
        without.is_recording();
        insta::assert_snapshot!(without.finish().unwrap_err().to_string().replace("; ", "\n"));
    }

    #[test]
    fn a_token_key_is_given_in_one_place() {
        let algorithm = ("JWT_ALGORITHM", "HS256");
        let mut stored = environment(&[("JWT_ALGORITHM", "RS256, ES256"), ("JWT_KEY_SECRET_ID", "jwks")]);
        let Some(TokenKey::Stored(place, settings)) = stored.token_key() else { panic!("it is stored") };
        assert_eq!(place, StoredValue::Secret("jwks".into()));
        assert_eq!(settings.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
        assert_eq!(stored.finish(), Ok(()));
        let parameter =
            environment(&[("JWT_ALGORITHM", "HS256"), ("JWT_KEY_SSM_PARAMETER", "/streamer/key")])
                .token_key();
        let Some(TokenKey::Stored(place, _)) = parameter else { panic!("it is stored") };
        assert_eq!(place.to_string(), "the SSM parameter \"/streamer/key\"");

        for (variables, problem) in [
            (vec![algorithm], "none of JWT_KEY, JWT_KEY_SSM_PARAMETER, JWT_KEY_SECRET_ID is set"),
            (
                vec![algorithm, ("JWT_KEY", "k"), ("JWT_KEY_SECRET_ID", "jwks")],
                "more than one of JWT_KEY, JWT_KEY_SSM_PARAMETER, JWT_KEY_SECRET_ID is set",
            ),
            (
                vec![("JWT_ALGORITHM", "RS256,HS256"), ("JWT_KEY", "0123456789abcdef0123456789abcdef")],
                "JWT_KEY: is one key, and must be a JSON Web Key Set for 2 algorithms",
            ),
            (vec![("JWT_ALGORITHM", "RS256,none"), ("JWT_KEY_SECRET_ID", "jwks")], "found \"none\""),
        ] {
            let mut environment = environment(variables.leak());
            assert!(environment.token_key().is_none());
            let error = environment.finish().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_list_of_tenants_has_no_empty_names() {
        assert_eq!(list_of_tenants(" acme, a/b ,,"), ["acme".into(), "a/b".into()].into());
    }
}
