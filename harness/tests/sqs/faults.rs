//! What goes wrong on purpose.

use std::time::Duration;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use streamer_harness::faults::{Call, Caller, Fault, Faults};
use tokio::time::{Instant, timeout};

use crate::stage::{client, queues};

#[tokio::test(start_paused = true)]
async fn faults_make_calls_go_wrong_in_the_way_they_say() {
    let faults = Faults::default();
    let queues = queues().with_faults(faults.clone());
    queues.create("q", []).unwrap();
    queues.create("other", []).unwrap();
    let caller = Caller::new("Processor");
    let client = client(Some(queues.http_client_of(caller.clone())), "http://sqs.localhost");
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
        () = caller.killed() => {}
        _ = send("q") => panic!("the caller is dead"),
    }
    assert_eq!(waiting(), 3);
}
