use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, RetryPolicy, handler_fn};
use streamer::protocol::{ErrorCode, Frame};
use streamer::store::{Runner, Status};

use crate::world::{CONNECTIONS, REQUESTS, World, message};

/// Handler whose payload is a number of seconds, which is both its estimated duration and the time it sleeps.
struct Sleeper;

impl Handler for Sleeper {
    type Input = u64;
    type Output = u64;

    fn estimated_duration(&self, seconds: &u64) -> Duration {
        Duration::from_secs(*seconds)
    }

    async fn process(&self, seconds: u64, _: Context) -> Result<u64, HandlerError> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(seconds)
    }
}

/// Returns an app with seven actions. Each handler succeeds, fails, panics, hangs, or sleeps for the number of
/// seconds in its payload.
pub(crate) fn app() -> App {
    let mut app = App::new();
    let declined = |_: Value, _: Context| async {
        Err::<(), _>(
            HandlerError::failure("CARD_DECLINED", "The card was declined").with_detail("retry", false),
        )
    };
    app.handle("echo", handler_fn(|message: Value, _| async move { Ok(message) }))
        .unwrap()
        .handle("takes", Sleeper)
        .unwrap()
        .handle("decline", handler_fn(declined))
        .unwrap()
        .handle("double", handler_fn(|text: String, _| async move { Ok(text.repeat(2)) }))
        .unwrap()
        .handle(
            "whoami",
            handler_fn(|(): (), context: Context| async move {
                Ok(json!([context.user, context.tenant, context.metadata, context.attempt]))
            }),
        )
        .unwrap()
        .handle("panic", handler_fn(|(): (), _| async { panic!("a bug in the handler") as Result<(), _> }))
        .unwrap()
        .handle("hang", handler_fn(|(): (), _| async { std::future::pending::<Result<(), _>>().await }))
        .unwrap();
    app
}

#[tokio::test(start_paused = true)]
async fn router_answers_each_kind_of_message() {
    let world = World::new(app()).await;
    let mut answers = Vec::new();
    for body in [
        r#"{"action":"echo","id":"r1","payload":{"message":"hi"}}"#,
        r#"{"action":"echo","payload":[1,2.5,null]}"#,
        r#"{"action":"echo","id":"r2"}"#,
        r#"{"action":"whoami","id":"r3","metadata":{"client_version":"1.0.0","demo_client":true}}"#,
        r#"{"action":"decline","id":"r4"}"#,
        r#"{"action":"takes","id":"r5","payload":"soon"}"#,
        r#"{"action":"takes","id":"r6","payload":5}"#,
        r#"{"action":"takes","id":"r7","payload":6}"#,
        r#"{"action":"fly","id":"r8"}"#,
        r#"{"action":"panic","id":"r12"}"#,
        r#"{"action":"ping","id":"r9"}"#,
        r#"{"action":"subscribe","id":"r10"}"#,
        r#"{"id":"r11"}"#,
        "hello",
        "",
    ] {
        answers.push(format!("→ {body}\n← {}", world.say("c-ann", body).await));
    }
    assert_snapshot!(answers.join("\n\n"));
}

#[tokio::test(start_paused = true)]
async fn slow_request_is_acknowledged_and_queued_with_its_connection_as_subscriber() {
    let world = World::new(app()).await;
    let ack = world.ask("takes", "r1", json!(60)).await;
    assert!(matches!(ack, Frame::Acknowledgment { status, .. } if status == "queued"));
    let request = world.request("r1").await;
    assert_eq!((request.status, request.attempt, request.epoch), (Status::Pending, 0, 0));
    assert_eq!(request.subscribers, ["c-ann".into()]);
    assert_eq!(request.payload, json!(60));
    let item = world.item("r1").await;
    assert!(
        item.contains_key("timer_at") && !item.contains_key("ttl"),
        "an open request has a timer and does not expire"
    );
    assert_eq!(world.pending().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_id_refers_to_the_same_request_and_conflicts_if_the_payload_differs() {
    let world = World::new(app()).await;
    world.ask("takes", "r1", json!(60)).await;
    let again = world.ask("takes", "r1", json!(60)).await;
    assert!(matches!(again, Frame::Acknowledgment { status, .. } if status == "queued"));
    let mut answers = Vec::new();
    for body in
        [r#"{"action":"takes","id":"r1","payload":61}"#, r#"{"action":"takes","id":"r1","payload":60}"#]
    {
        answers.push(world.say("c-ann", body).await);
    }
    world.process().await;
    answers.push(world.say("c-ann", r#"{"action":"takes","id":"r1","payload":60}"#).await);
    assert_snapshot!(answers.join("\n"), @r#"
    {"type":"error","request_id":"r1","error":{"code":"CONFLICT","message":"The id is already used by a request with a different action or payload"},"timestamp":1700000000}
    {"type":"acknowledgment","request_id":"r1","status":"queued","message":"Request queued for async processing"}
    {"type":"acknowledgment","request_id":"r1","status":"completed","message":"Request has completed"}
    "#);
    assert_eq!(world.pending().len(), 1, "the request is queued only once");
}

#[tokio::test(start_paused = true)]
async fn requests_of_two_users_with_the_same_id_are_separate() {
    let world = World::new(app()).await;
    world.ask("takes", "r1", json!(60)).await;
    let body = json!({"action": "takes", "id": "r1", "payload": 70});
    assert!(world.say("c-bob", body).await.contains("\"queued\""));
    assert_eq!(world.pending().len(), 2);

    let status = |id: &str| json!({"action": "status", "id": "s1", "payload": {"request_id": id}});
    let own = world.say("c-bob", status("r1")).await;
    assert!(own.contains("\"status\":\"queued\""), "{own}");
    world.ask("takes", "r2", json!(60)).await;
    let anns = world.say("c-bob", status("r2")).await;
    let missing = world.say("c-bob", status("r3")).await;
    assert_eq!(
        anns.replace("r2", "r3"),
        missing,
        "the answer about another user's request equals the answer about a missing request"
    );
    assert!(missing.contains("\"NOT_FOUND\""), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn status_action_returns_the_snapshot_of_a_request() {
    let world = World::new(app()).await;
    world.ask("takes", "r1", json!(60)).await;
    let status = json!({"action": "status", "id": "s1", "payload": {"request_id": "r1"}});
    let mut answers = vec![world.say("c-ann", &status).await];
    world.process().await;
    answers.push(world.say("c-ann", &status).await);
    answers.push(world.say("c-ann", r#"{"action":"status","id":"s2","payload":"r1"}"#).await);
    assert_snapshot!(answers.join("\n"), @r#"
    {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"queued","percentage":0.0,"message":"","seq":0,"attempt":0,"max_attempts":3,"created_at":1700000000}}
    {"type":"response","request_id":"s1","success":true,"data":{"request_id":"r1","status":"completed","percentage":0.0,"message":"","seq":1048577,"attempt":1,"max_attempts":3,"created_at":1700000000,"started_at":1700000000,"finished_at":1700000060,"result":60}}
    {"type":"error","request_id":"s2","error":{"code":"VALIDATION_ERROR","message":"request_id: must be a string, the id of the request","details":{"fields":[{"path":"request_id","message":"must be a string, the id of the request"}]}},"timestamp":1700000060}
    "#);
}

#[tokio::test(start_paused = true)]
async fn message_from_an_unknown_connection_or_with_an_expired_token_is_unauthorized() {
    let world = World::new(app()).await;
    let echo = r#"{"action":"echo","id":"r1","payload":1}"#;
    let stranger = world.say("c-eve", echo).await;
    tokio::time::advance(Duration::from_mins(61)).await;
    let expired = world.say("c-ann", echo).await;
    assert_snapshot!(format!("{stranger}\n{expired}"), @r#"
    {"type":"error","request_id":"r1","error":{"code":"UNAUTHORIZED","message":"The connection is unknown; connect again"},"timestamp":1700000000}
    {"type":"error","request_id":"r1","error":{"code":"UNAUTHORIZED","message":"The token has expired; connect again with a new token"},"timestamp":1700003660}
    "#);
}

#[tokio::test(start_paused = true)]
async fn router_caches_the_identity_of_a_connection_for_five_minutes() {
    let world = World::new(app()).await;
    let echo = r#"{"action":"echo","id":"r1","payload":1}"#;
    assert!(world.say("c-ann", echo).await.contains("\"success\":true"));
    world.disconnect("c-ann").await;
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(
        world.say("c-ann", echo).await.contains("\"success\":true"),
        "the router uses the cached identity of the deleted connection"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(
        world.say("c-ann", echo).await.contains("\"UNAUTHORIZED\""),
        "after five minutes, the router reads the connection again and does not find the deleted item"
    );
}

#[tokio::test(start_paused = true)]
async fn hanging_quick_handler_times_out_after_25_seconds_before_the_gateway_does() {
    let world = World::new(app()).await;
    let sent = tokio::time::Instant::now();
    let answer = world.say("c-ann", r#"{"action":"hang","id":"r1"}"#).await;
    assert_eq!(sent.elapsed(), Duration::from_secs(25));
    assert_snapshot!(answer, @r#"{"type":"error","request_id":"r1","error":{"code":"TIMEOUT","message":"The request took longer than 25 s"},"timestamp":1700000025}"#);
}

#[tokio::test(start_paused = true)]
async fn response_above_the_frame_limit_becomes_an_error_with_the_request_id() {
    let world = World::new(app()).await;
    let body = json!({"action": "double", "id": "r1", "payload": "x".repeat(70_000)});
    assert_snapshot!(world.say("c-ann", body).await, @r#"{"type":"error","request_id":"r1","error":{"code":"PAYLOAD_TOO_LARGE","message":"The response has 140062 bytes; the gateway carries at most 131072"},"timestamp":1700000000}"#);
}

#[tokio::test(start_paused = true)]
async fn large_invalid_payload_is_refused_with_a_short_validation_error() {
    let world = World::new(app()).await;
    let body = json!({"action": "takes", "id": "r1", "payload": "x".repeat(100_000)});
    let answer = world.say("c-ann", body).await;
    assert!(answer.len() < 2_000, "the answer has less than 2,000 bytes, not {}", answer.len());
    let Frame::Error { request_id, error, .. } = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}")
    };
    assert_eq!((request_id, error.code), (Some("r1".into()), ErrorCode::ValidationError));
    let status = json!({"action": "status", "id": "s1", "payload": {"request_id": "x".repeat(5_000)}});
    assert_snapshot!(world.say("c-ann", status).await, @r#"{"type":"error","request_id":"s1","error":{"code":"VALIDATION_ERROR","message":"request_id: has 5000 characters; at most 128 are allowed","details":{"fields":[{"path":"request_id","message":"has 5000 characters; at most 128 are allowed"}]}},"timestamp":1700000000}"#);
}

#[tokio::test(start_paused = true)]
async fn transit_time_of_a_message_shortens_the_time_limit_of_its_handler() {
    let world = World::new(app()).await;
    // The gateway's timestamp in the test's event is one second after the start of the virtual clock. The message
    // therefore arrives four seconds late, and the handler has 21 s of the usual 25 s.
    tokio::time::advance(Duration::from_secs(5)).await;
    let sent = tokio::time::Instant::now();
    assert!(world.say("c-ann", r#"{"action":"hang","id":"r1"}"#).await.contains("\"TIMEOUT\""));
    assert_eq!(sent.elapsed(), Duration::from_secs(21));
}

#[tokio::test(start_paused = true)]
async fn binary_message_is_refused_with_a_validation_error() {
    let world = World::new(app()).await;
    let answer = world.router.route(&message("c-ann", json!("aGk="), true)).await;
    assert_snapshot!(answer, @r#"{"type":"error","error":{"code":"VALIDATION_ERROR","message":"The message must be text, not binary"},"timestamp":1700000000}"#);
}

#[tokio::test(start_paused = true)]
async fn request_estimated_above_the_async_threshold_is_queued() {
    let mut world = World::new(app()).await;
    world.router.set_async_threshold(Duration::from_secs(1));
    assert!(matches!(world.ask("takes", "r1", json!(1)).await, Frame::Response { .. }));
    assert!(matches!(world.ask("takes", "r2", json!(2)).await, Frame::Acknowledgment { .. }));
}

#[tokio::test(start_paused = true)]
async fn store_failure_becomes_an_internal_error_with_the_request_id_and_no_details() {
    let world = World::new(app()).await;
    let mut answers = Vec::new();
    for (connections, requests) in [("no-such-table", REQUESTS), (CONNECTIONS, "no-such-table")] {
        let router = world.router_on(connections, requests);
        let slow = json!({"action": "takes", "id": "r1", "payload": 60}).to_string();
        answers.push(router.route(&message("c-ann", json!(slow), false)).await);
    }
    assert_snapshot!(answers.join("\n"), @r#"
    {"type":"error","request_id":"r1","error":{"code":"INTERNAL_ERROR","message":"Internal server error; try again"},"timestamp":1700000000}
    {"type":"error","request_id":"r1","error":{"code":"INTERNAL_ERROR","message":"Internal server error; try again"},"timestamp":1700000000}
    "#);
}

#[tokio::test(start_paused = true)]
async fn quick_handler_is_stopped_at_its_own_timeout_and_can_read_its_remaining_time() {
    let mut app = App::new();
    let hang = |(): (), _: Context| async { std::future::pending::<Result<(), HandlerError>>().await };
    let remaining = |(): (), context: Context| async move { Ok(context.progress.remaining()) };
    app.handle("hang", handler_fn(hang).timeout(Duration::from_millis(1_500)))
        .unwrap()
        .handle("remaining", handler_fn(remaining).timeout(Duration::from_secs(40)))
        .unwrap()
        .handle("yields", handler_fn(|(): (), _| async { Err::<(), _>(HandlerError::continue_later()) }))
        .unwrap();
    let world = World::new(app).await;
    let sent = tokio::time::Instant::now();
    let timed_out = world.say("c-ann", r#"{"action":"hang","id":"r1"}"#).await;
    assert_eq!(
        sent.elapsed(),
        Duration::from_secs(2),
        "the handler has 500 ms to clean up after its timeout"
    );
    let left = world.say("c-ann", r#"{"action":"remaining","id":"r2"}"#).await;
    let yielded = world.say("c-ann", r#"{"action":"yields","id":"r3"}"#).await;
    assert_snapshot!(format!("{timed_out}\n{left}\n{yielded}"), @r#"
    {"type":"error","request_id":"r1","error":{"code":"TIMEOUT","message":"The request took longer than 1500 ms"},"timestamp":1700000002}
    {"type":"response","request_id":"r2","success":true,"data":{"secs":24,"nanos":0}}
    {"type":"response","request_id":"r3","success":false,"error":{"code":"PROCESSING_FAILED","message":"The request could not be processed"}}
    "#);
}

#[tokio::test(start_paused = true)]
async fn estimated_duration_decides_whether_the_processor_or_the_worker_runs_a_request() {
    let mut app = App::new();
    for (action, seconds) in [("short", 30), ("long", 31)] {
        let policy = RetryPolicy::attempts(7);
        let work = handler_fn(|(): (), _| async { Ok(()) });
        app.handle(action, work.estimated(Duration::from_secs(seconds)).retry(policy)).unwrap();
    }
    let world = World::new(app).await;
    for (action, runner) in [("short", Runner::Processor), ("long", Runner::Worker)] {
        assert!(matches!(world.ask(action, action, json!(null)).await, Frame::Acknowledgment { .. }));
        let request = world.request(action).await;
        assert_eq!((request.runner, request.max_attempts), (runner, 7), "{action}");
    }
}
