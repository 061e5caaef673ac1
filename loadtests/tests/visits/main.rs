//! Runs the real load test binary against endpoints that answer correctly or with mistakes.

#![expect(clippy::unwrap_used, reason = "a panic in a test helper fails the test")]

mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::task::spawn_blocking;

use endpoint::{Answers, Endpoint};

/// Outcome of one run of the load test binary.
struct Run {
    succeeded: bool,
    stderr: String,
    /// Goose's JSON report; null if goose has written no report.
    report: Value,
}

impl Run {
    async fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = format!("visits-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(run);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamer-loadtests"));
        command
            .args(["--no-telnet", "--quiet", "--report-file", "report.json"])
            .args(arguments)
            .env_remove("STREAMER_TOKEN")
            .env_remove("STREAMER_TOKENS")
            .envs(environment.iter().copied())
            .current_dir(&folder)
            .stdin(Stdio::null());
        // The binary runs on another thread, so that the endpoint can answer on this thread.
        let output: Output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let report = fs::read(folder.join("report.json")).unwrap_or_default();
        fs::remove_dir_all(&folder).unwrap();
        Self {
            succeeded: output.status.success(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        }
    }

    /// Runs one visit of one user, with this timeout in seconds for each wait.
    async fn one_visit(endpoint: &Endpoint, timeout: &str) -> Self {
        let arguments = ["--host", &endpoint.url, "--users", "1", "--iterations", "1", "--timeout", timeout];
        Self::with(&arguments, &[("STREAMER_TOKEN", "a.b.c")]).await
    }

    /// Returns the number of successes and failures of each metric.
    fn counts(&self) -> BTreeMap<&str, (u64, u64)> {
        let requests =
            self.report["raw_metrics"]["requests"].as_object().expect("the report lists the requests");
        let count = |request: &Value, key: &str| request[key].as_u64().unwrap();
        requests
            .iter()
            .map(|(name, of)| (name.as_str(), (count(of, "success_count"), count(of, "fail_count"))))
            .collect()
    }
}

#[tokio::test]
async fn visits_of_a_correct_endpoint_repeat_and_measure_every_round_trip() {
    let endpoint = Endpoint::start(Answers::Properly).await;
    let arguments = ["--host", &endpoint.url, "--users", "2", "--increase-rate", "10", "--iterations", "2"];
    let run = Run::with(&arguments, &[("STREAMER_TOKENS", "a.b.c, d.e.f")]).await;
    assert!(run.succeeded, "{}", run.stderr);
    let expected = [
        ("WS $connect", (4, 0)),
        ("WS acknowledgment", (4, 0)),
        ("WS complete", (4, 0)),
        ("WS echo", (40, 0)),
        ("WS first progress", (4, 0)),
    ];
    assert_eq!(run.counts(), BTreeMap::from(expected));

    let seen = endpoint.seen();
    let queries: BTreeSet<&str> = seen.queries.iter().map(String::as_str).collect();
    assert_eq!((seen.queries.len(), queries), (4, BTreeSet::from(["token=a.b.c", "token=d.e.f"])));
    let ids: BTreeSet<&str> = seen.messages.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!((seen.messages.len(), ids.len()), (44, 44), "each of the 44 messages has its own id");
    assert_eq!(seen.closed, 4);
}

#[tokio::test]
async fn each_wrong_answer_is_one_failure_of_the_awaited_metric() {
    let cases = [
        (Answers::Refusing, "$connect", "refused with HTTP 401: TOKEN_EXPIRED: The token has expired"),
        (Answers::Silently, "echo", "no frame before the timeout"),
        (Answers::WithAnotherEcho, "echo", "the response differs from the sent payload"),
        (Answers::ForAnotherRequest, "echo", "a response has the id of a different request"),
        (
            Answers::AsABrokenGateway,
            "echo",
            "API Gateway answered instead of the router: Internal server error",
        ),
        (Answers::WithAnError, "acknowledgment", "the request failed with RATE_LIMITED: Wait a second"),
        (Answers::WithAnotherResult, "complete", "the result does not match the request"),
        (Answers::ByClosing, "first progress", "connection closed by the server"),
        (Answers::WithoutProgress, "first progress", "no frame before the timeout"),
    ];
    for (answers, metric, text) in cases {
        let endpoint = Endpoint::start(answers).await;
        let never_answers = matches!(answers, Answers::Silently | Answers::WithoutProgress);
        let run = Run::one_visit(&endpoint, if never_answers { "1" } else { "60" }).await;
        assert!(!run.succeeded, "{answers:?}");
        assert!(run.stderr.contains(&format!("  1 × {metric}: {text}\n")), "{answers:?}: {}", run.stderr);
        let counts = run.counts();
        assert_eq!(counts[format!("WS {metric}").as_str()], (0, 1), "{answers:?}: {counts:?}");
        let failures: u64 = counts.values().map(|(_, failed)| failed).sum();
        assert_eq!(failures, 1, "the mistake is counted as exactly one failure; {answers:?}: {counts:?}");
        let errors = run.report["errors"].as_array().expect("the report has a table of errors");
        assert!(errors.iter().any(|error| error["error"] == text), "{answers:?}: {errors:?}");
    }
}

#[tokio::test]
async fn unreachable_endpoint_is_a_connect_failure() {
    // The listener is dropped immediately, so the port refuses connections.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}/prod");
    let arguments = ["--host", &url, "--users", "1", "--iterations", "1"];
    let run = Run::with(&arguments, &[("STREAMER_TOKEN", "a.b.c")]).await;
    assert!(!run.succeeded);
    assert!(run.stderr.contains("1 × $connect: could not connect:"), "{}", run.stderr);
}

#[tokio::test]
async fn unmet_threshold_fails_a_run_whose_requests_all_succeeded() {
    let endpoint = Endpoint::start(Answers::Properly).await;
    let arguments = ["--host", &endpoint.url, "--users", "1", "--iterations", "1"];
    let thresholds = ["--no-threshold-abort", "--threshold", "max<1us for WS echo"];
    let token = [("STREAMER_TOKEN", "a.b.c")];
    let run = Run::with(&[arguments.as_slice(), &thresholds].concat(), &token).await;
    assert!(!run.succeeded);
    assert!(run.stderr.contains("max<1us for WS echo"), "{}", run.stderr);
}

#[tokio::test]
async fn missing_token_or_invalid_host_is_refused_before_the_run() {
    let token = ("STREAMER_TOKEN", "a.b.c");
    let cases = [
        (
            vec!["--host", "ws://127.0.0.1:1"],
            vec![],
            "set STREAMER_TOKEN to a token that the endpoint accepts",
        ),
        (
            vec!["--host", "http://127.0.0.1:1"],
            vec![token],
            "--host must be a URL that begins with ws:// or wss://, not http://127.0.0.1:1",
        ),
        (vec![], vec![token], "A host must be defined via the --host option"),
    ];
    for (arguments, environment, text) in cases {
        let run = Run::with(&arguments, &environment).await;
        assert!(!run.succeeded, "{text}");
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
}

#[tokio::test]
async fn goose_list_option_succeeds_without_a_token_and_without_measurements() {
    let run = Run::with(&["--list"], &[]).await;
    assert!(run.succeeded, "{}", run.stderr);
}
