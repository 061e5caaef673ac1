//! Tests of injected faults: posts to clients and `$disconnect` events that fail or are delayed.

use std::time::Duration;

use aws_sdk_apigatewaymanagement::primitives::Blob;
use streamer_fakes::faults::{Call, Caller, Fault, Faults};
use tokio::time::{Instant, timeout};

use crate::in_process::management;
use crate::stage::{Stage, config, echo_body};

fn stage(faults: &Faults) -> Stage {
    let mut stage = Stage::in_memory(config(), echo_body);
    stage.gateway = stage.gateway.with_faults(faults.clone());
    stage
}

#[tokio::test(start_paused = true)]
async fn post_with_a_fault_returns_an_error_and_reaches_the_client_only_if_applied() {
    let faults = Faults::default();
    let mut stage = stage(&faults);
    let mut client = stage.client().await;
    for (fault, expected) in [
        (Fault::throttle(Call::post()), (429, "LimitExceededException")),
        (Fault::fail(Call::post()), (500, "InternalServerErrorException")),
        (Fault::gone(Call::post().on(&client.id)), (410, "GoneException")),
        (Fault::deny(Call::post()), (403, "AccessDeniedException")),
        (Fault::fail_after_apply(Call::post()), (500, "InternalServerErrorException")),
        (Fault::gone(Call::post().on("another")), (200, "")),
    ] {
        let guard = faults.add(fault.clone());
        let answer = stage.post(&client.id, expected.1.as_bytes()).await;
        assert_eq!((answer.status, answer.error_type(), answer.body.as_str()), (expected.0, expected.1, ""));
        assert_eq!(guard.hits(), u32::from(expected.0 != 200), "{fault:?}");
    }
    assert_eq!(
        client.text().await,
        "InternalServerErrorException",
        "only the post with the fault fail_after_apply reaches the client"
    );
    assert_eq!(client.text().await, "");
    assert_eq!(stage.post(&client.id, b"without a fault").await.status, 200);
    assert_eq!(client.text().await, "without a fault");
}

#[tokio::test(start_paused = true)]
async fn disconnect_event_is_late_under_a_delay_fault_and_is_lost_under_a_fail_fault() {
    let faults = Faults::default();
    let mut stage = stage(&faults);
    let client = stage.client().await;
    let late = faults.add(Fault::delay(Call::disconnect(), Duration::from_secs(60)));
    drop(client);
    let started = Instant::now();
    stage.event_of("disconnect").await;
    assert_eq!((late.hits(), started.elapsed()), (1, Duration::from_secs(60)));

    let client = stage.client().await;
    let never = faults.add(Fault::fail(Call::disconnect().on(&client.id)));
    let id = client.id.clone();
    drop(client);
    tokio::time::sleep(Duration::from_secs(9_000)).await;
    stage.no_event().await;
    assert_eq!(never.hits(), 1);
    assert_eq!(stage.post(&id, b"late").await.status, 410, "a post to the closed connection is 410");
}

#[tokio::test(start_paused = true)]
async fn delayed_post_arrives_late_and_a_post_with_a_lost_answer_never_returns() {
    let faults = Faults::default();
    let mut stage = stage(&faults);
    let mut client = stage.client().await;
    let started = Instant::now();
    let slow = faults.add(Fault::delay(Call::post(), Duration::from_secs(5)));
    assert_eq!(stage.post(&client.id, b"late").await.status, 200);
    assert_eq!((client.text().await.as_str(), started.elapsed()), ("late", Duration::from_secs(5)));
    drop(slow);

    let _lost = faults.add(Fault::lose_answer(Call::post()));
    let sdk = management(stage.gateway.http_client());
    let post = sdk.post_to_connection().connection_id(&client.id).data(Blob::new("unanswered")).send();
    assert!(timeout(Duration::from_secs(9_000), post).await.is_err());
    assert_eq!(client.text().await, "unanswered");
}

#[tokio::test(start_paused = true)]
async fn post_whose_caller_is_killed_by_a_fault_does_not_reach_the_client() {
    let faults = Faults::default();
    let mut stage = stage(&faults);
    let mut client = stage.client().await;
    let guard = faults.add(Fault::kill(Call::post().by("Processor")));
    let post = async |caller: &Caller| {
        let sdk = management(stage.gateway.http_client_for(caller.clone()));
        let post = sdk.post_to_connection().connection_id(&client.id).data(Blob::new(caller.function()));
        tokio::select! {
            biased;
            () = caller.killed() => None,
            sent = post.send() => Some(sent.is_ok()),
        }
    };
    assert_eq!(post(&Caller::new("Processor")).await, None);
    assert_eq!(post(&Caller::new("Router")).await, Some(true));
    assert_eq!(client.text().await, "Router");
    assert_eq!(guard.hits(), 1);
}
