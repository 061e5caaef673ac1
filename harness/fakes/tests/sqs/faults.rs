//! Tests of fault injection into SQS calls and into messages that Lambda sends to destination queues.

use std::time::Duration;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use streamer_fakes::destination::Destination;
use streamer_fakes::faults::{Call, Caller, Fault, Faults};
use tokio::time::{Instant, timeout};

use crate::stage::{client, queues};

#[tokio::test(start_paused = true)]
async fn sqs_faults_throttle_fail_and_delay_calls_lose_answers_and_kill_callers() {
    let faults = Faults::default();
    let queues = queues().with_faults(faults.clone());
    queues.create("q", []).unwrap();
    queues.create("other", []).unwrap();
    let caller = Caller::new("Processor");
    let client = client(Some(queues.http_client_for(caller.clone())), "http://sqs.localhost");
    let send = |queue: &str| client.send_message().queue_url(queue).message_body("m").send();
    let waiting = || queues.messages("q").unwrap().len();
    let call = || Call::send_message().on("q");

    let guard = faults.add(Fault::throttle(call()));
    assert_eq!(send("q").await.unwrap_err().into_service_error().code(), Some("RequestThrottled"));
    send("other").await.unwrap();
    drop(guard);
    let guard = faults.add(Fault::fail(call()));
    assert_eq!(send("q").await.unwrap_err().raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(waiting(), 0);
    drop(guard);
    let guard = faults.add(Fault::fail_after_apply(call()));
    assert_eq!(send("q").await.unwrap_err().raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(waiting(), 1);
    drop(guard);
    let guard = faults.add(Fault::lose_answer(call()));
    assert!(timeout(Duration::from_secs(3_600), send("q")).await.is_err());
    assert_eq!(waiting(), 2);
    drop(guard);
    let guard = faults.add(Fault::delay(call(), Duration::from_secs(7)));
    let begun = Instant::now();
    send("q").await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
    drop(guard);
    let _guard = faults.add(Fault::kill(call().by("Processor")));
    tokio::select! {
        biased;
        () = caller.killed() => {}
        _ = send("q") => panic!("a call of a killed function never returns"),
    }
    assert_eq!(waiting(), 3);
}

#[tokio::test(start_paused = true)]
async fn inapplicable_sqs_faults_are_skipped_and_faults_apply_to_destinations() {
    let faults = Faults::default();
    let queues = queues().with_faults(faults.clone());
    queues.create("q", []).unwrap();
    let call = || Call::send_message().on("q");
    let impossible = faults.add(Fault::conflict(call()));
    let throttle = faults.add(Fault::throttle(call()).times(1));
    let after = faults.add(Fault::fail_after_apply(call()).times(1));
    let send = || Destination::send(&queues, &queues.arn("q"), "m".to_owned());
    assert!(send().is_err());
    assert_eq!(queues.messages("q").unwrap().len(), 0);
    assert!(send().is_err());
    assert!(send().is_ok());
    assert_eq!(queues.messages("q").unwrap().len(), 2);
    assert_eq!((impossible.hits(), throttle.hits(), after.hits()), (0, 1, 1));
    queues.create("other", []).unwrap();
    let client = client(Some(queues.http_client()), "http://sqs.localhost");
    let _inapplicable = faults.add(Fault::kill(Call::send_message()));
    let fail = faults.add(Fault::fail(Call::send_message().on("other")));
    client.send_message().queue_url("other").message_body("m").send().await.unwrap_err();
    assert_eq!(fail.hits(), 1);
}

#[tokio::test]
async fn lost_sqs_answer_over_http_closes_the_connection() {
    let faults = Faults::default();
    let queues = queues().with_faults(faults.clone());
    queues.create("q", []).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = queues.router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let http = aws_smithy_http_client::Builder::new().build_http();
    let client = client(Some(http), &endpoint);
    let _lost = faults.add(Fault::lose_answer(Call::send_message()));
    let send = client.send_message().queue_url(format!("{endpoint}/000000000000/q")).message_body("m");
    let lost = timeout(Duration::from_secs(30), send.send()).await.unwrap().unwrap_err();
    assert!(lost.raw_response().is_none(), "{lost:?}");
    assert_eq!(queues.messages("q").unwrap().len(), 1);
    server.abort();
}
