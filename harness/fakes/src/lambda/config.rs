//! What a function is: its code and the settings that its deployment gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::in_process::InProcess;

/// What a process needs of the machine it runs on; nothing else of the stage's own environment reaches a
/// function. `LLVM_PROFILE_FILE` lets a coverage run see its children.
const PASSED_THROUGH: [&str; 5] =
    ["PATH", "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TMPDIR", "LLVM_PROFILE_FILE"];

const MAX_TIMEOUT: Duration = Duration::from_mins(15);

const EVENT_AGES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(6);

/// What a function runs.
#[derive(Clone, Debug)]
pub enum Code {
    /// A program, in a process of its own for each environment.
    Program(PathBuf),
    /// Code of this process, which needs neither processes nor sockets and lives on tokio's time.
    InProcess(Arc<dyn InProcess>),
}

/// One function of the stage.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    /// The function's name, under which it is invoked.
    pub name: String,
    /// What it runs.
    pub code: Code,
    /// What the function sees as `_HANDLER` (default `bootstrap`).
    pub handler: String,
    /// The function's own environment variables. Those that Lambda reserves are overwritten by Lambda's; the
    /// credentials (`AWS_ACCESS_KEY_ID` and its kin) may be set here, and else are test values.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may take (default 3 s, at most 15 min).
    pub timeout: Duration,
    /// The function's memory in MiB (default 128, 128 to 10,240), which it sees but is not held to.
    pub memory_mib: u32,
    /// How many invocations may run at once; `None` shares the account's concurrency with the others.
    pub reserved_concurrency: Option<u32>,
    /// Whether the function may be invoked in one chain of requests without end (`RecursiveLoop: Allow`; default: not).
    pub recursive_loop: bool,
    /// What becomes of asynchronous invocations.
    pub asynchronous: AsyncSettings,
    /// The region in the function's ARN and environment (default `us-east-1`).
    pub region: String,
    /// The account in the function's ARN (default `000000000000`).
    pub account_id: String,
}

/// What becomes of asynchronous invocations of a function (`EventInvokeConfig`, and `DeadLetterQueue`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AsyncSettings {
    /// How often a function that failed is invoked again: 0 to 2 times (default 2).
    pub maximum_retry_attempts: u32,
    /// How long an event may stay in the queue: 60 s to 6 h (default 6 h).
    pub maximum_event_age: Duration,
    /// The ARN of the queue or function that gets a record of each invocation that succeeded.
    pub on_success: Option<String>,
    /// The ARN of the queue or function that gets a record of each event that was given up on.
    pub on_failure: Option<String>,
    /// The ARN of the queue that gets each event itself that was given up on. The attributes that AWS adds to its
    /// message (`RequestID`, `ErrorCode`, `ErrorMessage`) are left out here.
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
    /// The function of a program, with Lambda's default settings.
    #[must_use]
    pub fn new(name: impl Into<String>, executable: impl Into<PathBuf>) -> Self {
        Self::of(name.into(), Code::Program(executable.into()))
    }

    /// A function that runs in this process, with Lambda's default settings.
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

    /// The function's ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{}:function:{}", self.region, self.account_id, self.name)
    }

    /// Every variable of a process whose program lies in `task_root` and whose Runtime API listens at
    /// `runtime_api`.
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

    /// The function's variables and Lambda's, without those that only a process has a use for.
    pub(super) fn variables(&self, log_stream: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        // All three or none: a key of the user's with a token of ours would be refused by the real AWS.
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
            (self.name.is_empty(), "it has no name".to_owned()),
            (
                missing.is_some(),
                format!(
                    "there is no program at {}: build it, or mend the path",
                    missing.as_deref().unwrap_or_default()
                ),
            ),
            (
                self.timeout.is_zero() || self.timeout > MAX_TIMEOUT,
                format!("its timeout is {:?}: Lambda takes 1 s to 900 s", self.timeout),
            ),
            (
                !(128..=10_240).contains(&self.memory_mib),
                format!("its memory is {} MiB: Lambda takes 128 to 10,240", self.memory_mib),
            ),
            (
                self.asynchronous.maximum_retry_attempts > 2,
                format!(
                    "it is to be retried {} times: Lambda takes 0 to 2",
                    self.asynchronous.maximum_retry_attempts
                ),
            ),
            (
                !EVENT_AGES.contains(&self.asynchronous.maximum_event_age),
                format!(
                    "its events may be {:?} old: Lambda takes 60 s to 21,600 s",
                    self.asynchronous.maximum_event_age
                ),
            ),
        ];
        checks
            .into_iter()
            .filter(|(wrong, _)| *wrong)
            .map(|(_, problem)| format!("function «{}»: {problem}", self.name))
    }
}

/// The folder that a program lies in, which AWS calls the task root and makes the working directory.
pub(super) fn task_root(program: &Path) -> &Path {
    program.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is wrong with the functions as they were configured, all of it at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One sentence for each thing to mend.
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

/// What Lambda keeps for the functions that reserve nothing (Lambda's guide, «Configuring reserved concurrency»).
const UNRESERVED: u64 = 100;

/// Checks the functions of a stage together.
pub(super) fn check(configs: &[FunctionConfig], account_concurrency: u32) -> Result<(), ConfigError> {
    let mut problems: Vec<_> = configs.iter().flat_map(FunctionConfig::problems).collect();
    let mut names = BTreeSet::new();
    for config in configs {
        if !names.insert(&config.name) {
            problems.push(format!("function «{}»: there are two of this name", config.name));
        }
    }
    let reserved: u64 = configs.iter().filter_map(|config| config.reserved_concurrency).map(u64::from).sum();
    if reserved > 0 && reserved + UNRESERVED > u64::from(account_concurrency) {
        problems.push(format!(
            "the functions reserve a concurrency of {reserved} in all, and the account has {account_concurrency}, of \
             which {UNRESERVED} stay unreserved"
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
    fn environment_row_the_variables_are_those_that_aws_sets() {
        let mut config = config();
        config.environment = BTreeMap::from([
            ("TABLE".to_owned(), "requests".to_owned()),
            ("AWS_REGION".to_owned(), "reserved names lose".to_owned()),
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
            "the stage's own variables stay out"
        );
    }

    #[test]
    fn credentials_that_are_given_are_not_mixed_with_test_ones() {
        let mut config = config();
        config.environment.insert("AWS_ACCESS_KEY_ID".to_owned(), "AKIA".to_owned());
        let variables = config.variables("");
        assert_eq!(variables["AWS_ACCESS_KEY_ID"], "AKIA");
        assert!(!variables.contains_key("AWS_SESSION_TOKEN"));
    }

    #[test]
    fn a_program_named_without_a_folder_runs_where_it_lies() {
        assert_eq!(task_root(Path::new("bootstrap")), Path::new("."));
        assert_eq!(task_root(Path::new("/f/bootstrap")), Path::new("/f"));
        assert_eq!(config().arn(), "arn:aws:lambda:us-east-1:000000000000:function:router");
    }

    #[test]
    fn lifecycle_row_a_run_has_fifteen_minutes_at_most() {
        let with = |timeout| check(&[FunctionConfig { timeout, ..config() }], 10);
        assert_eq!(with(Duration::from_mins(15)), Ok(()));
        assert!(with(Duration::from_secs(901)).is_err() && with(Duration::ZERO).is_err());
    }

    #[test]
    fn every_bad_value_is_reported_at_once() {
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
            "function «worker»: there is no program at /nowhere/bootstrap: build it, or mend the path",
            "function «worker»: its timeout is 901s: Lambda takes 1 s to 900 s",
            "function «worker»: its memory is 64 MiB: Lambda takes 128 to 10,240",
            "function «worker»: it is to be retried 3 times: Lambda takes 0 to 2",
            "function «worker»: its events may be 59s old: Lambda takes 60 s to 21,600 s",
            "function «»: it has no name",
            "function «router»: there are two of this name",
            "the functions reserve a concurrency of 11 in all, and the account has 10, of which 100 stay unreserved",
        ];
        assert_eq!(error.problems(), expected);
        assert_eq!(error.to_string().lines().count(), expected.len());
        assert_eq!(check(&[config()], 10), Ok(()));
    }
}
