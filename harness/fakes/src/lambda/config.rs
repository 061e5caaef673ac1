//! Configuration of functions: code, and the settings of a deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::in_process::InProcess;

/// Environment variables that a function's process inherits from the stage's process. The function's process
/// inherits no other variable. `LLVM_PROFILE_FILE` lets a coverage run measure child processes.
const PASSED_THROUGH: [&str; 5] =
    ["PATH", "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TMPDIR", "LLVM_PROFILE_FILE"];

const MAX_TIMEOUT: Duration = Duration::from_mins(15);

const EVENT_AGES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(6);

/// Code that a function runs.
#[derive(Clone, Debug)]
pub enum Code {
    /// Executable at this path, which runs as a separate process for each execution environment.
    Program(PathBuf),
    /// Code that runs in this process, on tokio's clock, without child processes or sockets.
    InProcess(Arc<dyn InProcess>),
}

/// Configuration of one function of the stage.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    /// Name under which the function is invoked.
    pub name: String,
    /// Code that the function runs.
    pub code: Code,
    /// Value of the function's environment variable `_HANDLER`; default `bootstrap`.
    pub handler: String,
    /// Environment variables of the function. Lambda overwrites the names that it reserves. Without an
    /// `AWS_ACCESS_KEY_ID`, the function receives test credentials.
    pub environment: BTreeMap<String, String>,
    /// Maximum duration of one invocation; default 3 s, at most 15 min.
    pub timeout: Duration,
    /// Memory size in MiB that the function's environment variables report; default 128, allowed 128 to
    /// 10,240. The fake does not enforce the size.
    pub memory_mib: u32,
    /// Maximum number of concurrent invocations, reserved for this function; `None` (default) shares the
    /// unreserved concurrency of the account with other functions.
    pub reserved_concurrency: Option<u32>,
    /// Whether the function may be part of a loop of invocations (`RecursiveLoop: Allow` on AWS); default
    /// `false`. With `false`, the fake stops a chain of requests that invokes the function more than 16
    /// times.
    pub recursive_loop: bool,
    /// Settings of the function's asynchronous invocations.
    pub asynchronous: AsyncSettings,
    /// AWS region in the function's ARN and environment variables; default `us-east-1`.
    pub region: String,
    /// AWS account id in the function's ARN; default `000000000000`.
    pub account_id: String,
}

/// Settings of a function's asynchronous invocations (`EventInvokeConfig` and `DeadLetterQueue` in AWS SAM).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AsyncSettings {
    /// Maximum number of retries of a failed invocation; default 2, allowed 0 to 2.
    pub maximum_retry_attempts: u32,
    /// Maximum time that an event may stay in the queue; default 6 h, allowed 60 s to 6 h.
    pub maximum_event_age: Duration,
    /// ARN of the queue or function that receives a record of each successful invocation; default `None`.
    pub on_success: Option<String>,
    /// ARN of the queue or function that receives a record of each event that failed for good; default `None`.
    pub on_failure: Option<String>,
    /// ARN of the queue that receives each event that failed for good; default `None`. The fake omits the
    /// message attributes that AWS adds (`RequestID`, `ErrorCode`, `ErrorMessage`).
    pub dead_letter: Option<String>,
}

impl Default for AsyncSettings {
    fn default() -> Self {
        Self {
            maximum_retry_attempts: 2,
            maximum_event_age: Duration::from_hours(6),
            on_success: None,
            on_failure: None,
            dead_letter: None,
        }
    }
}

impl FunctionConfig {
    /// Returns the configuration of a function that runs the program `executable`, with Lambda's default
    /// settings.
    #[must_use]
    pub fn new(name: impl Into<String>, executable: impl Into<PathBuf>) -> Self {
        Self::of(name.into(), Code::Program(executable.into()))
    }

    /// Returns the configuration of a function that runs `code` in this process, with Lambda's default
    /// settings.
    #[must_use]
    pub fn in_process(name: impl Into<String>, code: Arc<dyn InProcess>) -> Self {
        Self::of(name.into(), Code::InProcess(code))
    }

    fn of(name: String, code: Code) -> Self {
        Self {
            name,
            code,
            handler: "bootstrap".to_owned(),
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(3),
            memory_mib: 128,
            reserved_concurrency: None,
            recursive_loop: false,
            asynchronous: AsyncSettings::default(),
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
        }
    }

    /// Returns the function's ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{}:function:{}", self.region, self.account_id, self.name)
    }

    /// Returns all environment variables of a process whose program is in the folder `task_root` and whose
    /// Runtime API listens at the address `runtime_api`.
    pub(super) fn process_variables(
        &self,
        task_root: &Path,
        runtime_api: &str,
        log_stream: &str,
    ) -> BTreeMap<OsString, OsString> {
        let mut variables = BTreeMap::new();
        for name in PASSED_THROUGH {
            if let Some(value) = std::env::var_os(name) {
                variables.insert(name.into(), value);
            }
        }
        let own = self.variables(log_stream).into_iter();
        variables.extend(own.map(|(name, value)| (name.into(), value.into())));
        variables.insert("AWS_LAMBDA_RUNTIME_API".into(), runtime_api.into());
        variables.insert("LAMBDA_TASK_ROOT".into(), task_root.into());
        variables
    }

    /// Returns the environment variables that the configuration and Lambda set, without those that only a
    /// process needs.
    pub(super) fn variables(&self, log_stream: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        // Set all three test values or none: AWS would reject a user's access key with a test session token.
        if !self.environment.contains_key("AWS_ACCESS_KEY_ID") {
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
                variables.insert(name.to_owned(), "test".to_owned());
            }
        }
        variables.extend(self.environment.clone());
        variables.extend(
            [
                ("AWS_DEFAULT_REGION", self.region.clone()),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", self.memory_mib.to_string()),
                ("AWS_LAMBDA_FUNCTION_NAME", self.name.clone()),
                ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
                ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", self.name)),
                ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream.to_owned()),
                ("AWS_REGION", self.region.clone()),
                ("TZ", ":UTC".to_owned()),
                ("_HANDLER", self.handler.clone()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        variables.insert("LAMBDA_TASK_ROOT".to_owned(), "/var/task".to_owned());
        variables
    }

    fn problems(&self) -> impl Iterator<Item = String> {
        let missing = match &self.code {
            Code::Program(program) if !program.is_file() => Some(program.display().to_string()),
            Code::Program(_) | Code::InProcess(_) => None,
        };
        let checks = [
            (self.name.is_empty(), "the name must not be empty".to_owned()),
            (
                missing.is_some(),
                format!(
                    "no program found at {}; build the program or fix the path",
                    missing.as_deref().unwrap_or_default()
                ),
            ),
            (
                self.timeout.is_zero() || self.timeout > MAX_TIMEOUT,
                format!("the timeout must be from 1 s to 900 s, not {:?}", self.timeout),
            ),
            (
                !(128..=10_240).contains(&self.memory_mib),
                format!("the memory size must be from 128 to 10,240 MiB, not {} MiB", self.memory_mib),
            ),
            (
                self.asynchronous.maximum_retry_attempts > 2,
                format!(
                    "the maximum number of asynchronous retries must be from 0 to 2, not {}",
                    self.asynchronous.maximum_retry_attempts
                ),
            ),
            (
                !EVENT_AGES.contains(&self.asynchronous.maximum_event_age),
                format!(
                    "the maximum age of asynchronous events must be from 60 s to 21,600 s, not {:?}",
                    self.asynchronous.maximum_event_age
                ),
            ),
        ];
        checks
            .into_iter()
            .filter(|(wrong, _)| *wrong)
            .map(|(_, problem)| format!("function {:?}: {problem}", self.name))
    }
}

/// Returns the folder that contains `program`: the working directory of the process, which AWS calls the task
/// root.
pub(super) fn task_root(program: &Path) -> &Path {
    program.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Error that lists all problems in the configuration of a stage's functions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Returns one sentence about each problem in the functions' configuration.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Part of the account's concurrency that must stay unreserved, for functions without a reservation (Lambda
/// guide, "Configuring reserved concurrency").
const UNRESERVED: u64 = 100;

/// Checks all functions of a stage, including the sum of their reserved concurrency.
pub(super) fn check(configs: &[FunctionConfig], account_concurrency: u32) -> Result<(), ConfigError> {
    let mut problems: Vec<_> = configs.iter().flat_map(FunctionConfig::problems).collect();
    let mut names = BTreeSet::new();
    for config in configs {
        if !names.insert(&config.name) {
            problems.push(format!("function {:?}: another function has the same name", config.name));
        }
    }
    let reserved: u64 = configs.iter().filter_map(|config| config.reserved_concurrency).map(u64::from).sum();
    if reserved > 0 && reserved + UNRESERVED > u64::from(account_concurrency) {
        problems.push(format!(
            "the functions reserve a concurrency of {reserved} in total; the account has {account_concurrency}, of \
             which {UNRESERVED} must stay unreserved"
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FunctionConfig {
        FunctionConfig::new("router", std::env::current_exe().unwrap())
    }

    #[test]
    fn environment_of_a_function_process_has_the_variables_that_aws_sets() {
        let mut config = config();
        config.environment = BTreeMap::from([
            ("TABLE".to_owned(), "requests".to_owned()),
            ("AWS_REGION".to_owned(), "overwritten, because the name is reserved".to_owned()),
        ]);
        let root = Path::new("/functions/router");
        let variables = config.process_variables(root, "127.0.0.1:9", "stream");
        let value = |name: &str| variables.get(&OsString::from(name)).unwrap().to_str().unwrap();
        for (name, expected) in [
            ("AWS_LAMBDA_FUNCTION_NAME", "router"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("_HANDLER", "bootstrap"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/router"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "stream"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SESSION_TOKEN", "test"),
            ("TABLE", "requests"),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert_eq!(Path::new(value("LAMBDA_TASK_ROOT")), root);
        assert!(
            !variables.contains_key(&OsString::from("CARGO_PKG_NAME")),
            "a function's process does not inherit CARGO_PKG_NAME from the stage"
        );
    }

    #[test]
    fn configured_credentials_are_not_mixed_with_test_credentials() {
        let mut config = config();
        config.environment.insert("AWS_ACCESS_KEY_ID".to_owned(), "AKIA".to_owned());
        let variables = config.variables("");
        assert_eq!(variables["AWS_ACCESS_KEY_ID"], "AKIA");
        assert!(!variables.contains_key("AWS_SESSION_TOKEN"));
    }

    #[test]
    fn task_root_of_a_program_without_a_folder_is_the_current_folder() {
        assert_eq!(task_root(Path::new("bootstrap")), Path::new("."));
        assert_eq!(task_root(Path::new("/f/bootstrap")), Path::new("/f"));
        assert_eq!(config().arn(), "arn:aws:lambda:us-east-1:000000000000:function:router");
    }

    #[test]
    fn function_timeout_is_at_most_fifteen_minutes() {
        let with = |timeout| check(&[FunctionConfig { timeout, ..config() }], 10);
        assert_eq!(with(Duration::from_mins(15)), Ok(()));
        assert!(with(Duration::from_secs(901)).is_err() && with(Duration::ZERO).is_err());
    }

    #[test]
    fn every_invalid_function_setting_is_reported_in_one_error() {
        let mut bad = FunctionConfig::new("worker", "/nowhere/bootstrap");
        bad.timeout = Duration::from_secs(901);
        bad.memory_mib = 64;
        bad.reserved_concurrency = Some(11);
        bad.asynchronous.maximum_retry_attempts = 3;
        bad.asynchronous.maximum_event_age = Duration::from_secs(59);
        let error =
            check(&[config(), bad, config(), FunctionConfig::new("", std::env::current_exe().unwrap())], 10)
                .unwrap_err();
        let expected = [
            "function \"worker\": no program found at /nowhere/bootstrap; build the program or fix the path",
            "function \"worker\": the timeout must be from 1 s to 900 s, not 901s",
            "function \"worker\": the memory size must be from 128 to 10,240 MiB, not 64 MiB",
            "function \"worker\": the maximum number of asynchronous retries must be from 0 to 2, not 3",
            "function \"worker\": the maximum age of asynchronous events must be from 60 s to 21,600 s, not 59s",
            "function \"\": the name must not be empty",
            "function \"router\": another function has the same name",
            "the functions reserve a concurrency of 11 in total; the account has 10, of which 100 must stay unreserved",
        ];
        assert_eq!(error.problems(), expected);
        assert_eq!(error.to_string().lines().count(), expected.len());
        assert_eq!(check(&[config()], 10), Ok(()));
    }
}
