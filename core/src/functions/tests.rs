use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;

use super::disconnect::cancel_on_disconnect;
use super::*;
use crate::app::App;
use crate::auth::TokenKey;
use crate::aws::http_client;
use crate::config::{ConfigError, Environment};
use crate::executor::ExecutorSettings;
use crate::processor::ProcessorSettings;
use crate::router::RouterSettings;
use crate::store::dynamodb::QueueSettings;
use crate::sweeper::SweeperSettings;
use crate::telemetry::log_level;
use crate::telemetry::record::is_recording;

/// Starts a function with these environment variables. Returns the function and the number of its handler threads.
async fn start<F: Function>(variables: &[(&str, &str)]) -> Result<(F, usize), ConfigError> {
    let mut environment = Environment::of_variables(variables);
    let setup = F::read(&mut environment, http_client());
    let setup = environment.finish_with(setup)?;
    let handler_threads = F::handler_threads(&setup);
    let host = Host::system(Handle::current());
    Ok((F::start(setup, &host, || Arc::new(App::new())).await?, handler_threads))
}

#[test]
fn invalid_environment_variables_are_reported_together() {
    let mut environment = Environment::of_variables(&[
        ("LOG_LEVEL", "loud"),
        ("JWT_ALGORITHM", "none"),
        ("CONNECTIONS_TABLE", ""),
    ]);
    assert_eq!(environment.required("CONNECTIONS_TABLE"), "");
    assert_eq!(log_level(&mut environment), LevelFilter::INFO);
    assert!(TokenKey::from_env(&mut environment).is_none());
    insta::assert_snapshot!(environment.finish().unwrap_err(), @r#"the configuration of this function is invalid: CONNECTIONS_TABLE is not set; LOG_LEVEL: expected off, error, warn, info, debug or trace, found "loud"; JWT_ALGORITHM: expected RS256, ES256, EdDSA or HS256, found "none"; none of JWT_KEY, JWT_KEY_SSM_PARAMETER, JWT_KEY_SECRET_ID is set"#);
}

#[test]
fn settings_have_their_defaults_if_environment_variables_are_unset() {
    let mut environment = Environment::of_variables(&[]);
    let router = RouterSettings::from_env(&mut environment);
    assert_eq!(router.async_threshold, Duration::from_secs(5));
    assert_eq!(router.inline_limit, Duration::from_secs(30));
    let processor = ProcessorSettings::from_env(&mut environment);
    assert_eq!((processor.concurrency, processor.inline_limit), (10, router.inline_limit));
    let executor = ExecutorSettings::from_env(&mut environment);
    let sweeper = SweeperSettings::from_env(&mut environment);
    let queue = QueueSettings::from_env(&mut environment);
    assert_eq!(format!("{executor:?}"), format!("{:?}", ExecutorSettings::default()));
    assert_eq!(format!("{sweeper:?}"), format!("{:?}", SweeperSettings::default()));
    assert_eq!(format!("{queue:?}"), format!("{:?}", QueueSettings::default()));
    assert!(!cancel_on_disconnect(&mut environment) && !is_recording(&mut environment));
    assert_eq!(log_level(&mut environment), LevelFilter::INFO);
    assert_eq!(environment.finish(), Ok(()));
}

#[test]
fn environment_variables_are_accepted_only_within_their_bounds() {
    let mut in_bounds = Environment::of_variables(&[
        ("ASYNC_THRESHOLD_MS", "0"),
        ("INLINE_LIMIT_MS", "870000"),
        ("CONCURRENCY", "100"),
        ("LEASE_MS", "30000"),
        ("MAX_CONTINUATIONS", "0"),
        ("SWEEPER_PACE_MS", "60000"),
        ("REQUEST_TTL_S", "3600"),
        ("CANCEL_ON_DISCONNECT", "true"),
        ("STREAMER_RECORD", "true"),
        ("LOG_LEVEL", "warn"),
    ]);
    let router = RouterSettings::from_env(&mut in_bounds);
    assert_eq!((router.async_threshold, router.inline_limit), (Duration::ZERO, Duration::from_secs(870)));
    let processor = ProcessorSettings::from_env(&mut in_bounds);
    assert_eq!((processor.concurrency, processor.inline_limit), (100, Duration::from_secs(870)));
    let executor = ExecutorSettings::from_env(&mut in_bounds);
    assert_eq!((executor.lease, executor.rules.max_continuations), (Duration::from_secs(30), 0));
    let sweeper = SweeperSettings::from_env(&mut in_bounds);
    assert_eq!((sweeper.pace, sweeper.rules.max_continuations), (Duration::from_mins(1), 0));
    assert_eq!(QueueSettings::from_env(&mut in_bounds).ttl, Duration::from_hours(1));
    assert!(cancel_on_disconnect(&mut in_bounds) && is_recording(&mut in_bounds));
    assert_eq!(log_level(&mut in_bounds), LevelFilter::WARN);
    assert_eq!(in_bounds.finish(), Ok(()));

    let mut out_of_bounds = Environment::of_variables(&[
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
    let _ = RouterSettings::from_env(&mut out_of_bounds);
    let _ = ProcessorSettings::from_env(&mut out_of_bounds);
    let _ = ExecutorSettings::from_env(&mut out_of_bounds);
    let _ = SweeperSettings::from_env(&mut out_of_bounds);
    let _ = QueueSettings::from_env(&mut out_of_bounds);
    cancel_on_disconnect(&mut out_of_bounds);
    is_recording(&mut out_of_bounds);
    insta::assert_snapshot!(out_of_bounds.finish().unwrap_err().to_string().replace("; ", "\n"));
}

#[tokio::test]
async fn each_function_lists_its_missing_variables_and_starts_if_all_variables_are_set() {
    let errors = [
        start::<LambdaConnect>(&[]).await.err(),
        start::<LambdaDisconnect>(&[]).await.err(),
        start::<LambdaRouter>(&[]).await.err(),
        start::<LambdaProcessor>(&[]).await.err(),
        start::<LambdaWorker>(&[]).await.err(),
        start::<LambdaSweeper>(&[]).await.err(),
    ];
    let management = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
    let missing_names: [&[&str]; 6] = [
        &["CONNECTIONS_TABLE", "JWT_ALGORITHM"],
        &["CONNECTIONS_TABLE", "REQUESTS_TABLE"],
        &["CONNECTIONS_TABLE", "REQUESTS_TABLE", management],
        &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", "WORKER_FUNCTION", management],
        &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", management],
        &["REQUESTS_TABLE", "DEAD_LETTER_QUEUE_URL", management],
    ];
    for (error, names) in errors.map(|error| error.unwrap().to_string()).into_iter().zip(missing_names) {
        for name in names.iter().copied().chain(["AWS_REGION"]) {
            assert!(error.contains(&format!("{name} is not set")), "{error}");
        }
    }

    let full = [
        ("JWT_ALGORITHM", "HS256"),
        ("JWT_KEY", "0123456789abcdef0123456789abcdef"),
        ("CONCURRENCY", "3"),
        ("SWEEPER_PACE_MS", "1000"),
        ("WORKER_FUNCTION", "worker"),
        ("DEAD_LETTER_QUEUE_URL", "http://localhost/000000000000/dead-letters"),
        ("AWS_REGION", "test"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("CONNECTIONS_TABLE", "table"),
        ("REQUESTS_TABLE", "table"),
        ("RATE_LIMITS_TABLE", "table"),
        ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", "http://localhost/prod"),
    ];
    assert_eq!(start::<LambdaConnect>(&full).await.unwrap().1, 0);
    assert_eq!(start::<LambdaDisconnect>(&full).await.unwrap().1, 0);
    assert_eq!(start::<LambdaRouter>(&full).await.unwrap().1, 1);
    assert_eq!(start::<LambdaProcessor>(&full).await.unwrap().1, 3);
    assert_eq!(start::<LambdaWorker>(&full).await.unwrap().1, 1);
    let (sweeper, handler_threads) = start::<LambdaSweeper>(&full).await.unwrap();
    assert_eq!((sweeper.settings.pace, handler_threads), (Duration::from_secs(1), 0));
}
