use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::protocol::{ErrorCode, Frame};
use streamer_harness::client::Client;

use crate::{PATIENCE, ask, client, stage, until_terminal};

/// Asserts the protocol's guarantees for the frames of a queued request that completes, and returns the result.
fn completed_result(frames: &[Frame], id: &str) -> Value {
    let (Some(Frame::Acknowledgment { request_id, status, .. }), Some(last)) =
        (frames.first(), frames.last())
    else {
        panic!("the first frame is an acknowledgment: {frames:?}")
    };
    assert_eq!((request_id.as_str(), status.as_str()), (id, "queued"));
    let (mut percentage_before, mut seq_before) = (0.0, None);
    for frame in &frames[1..frames.len() - 1] {
        let Frame::Progress { request_id, percentage, seq, .. } = frame else { panic!("{frame:?}") };
        assert_eq!(request_id.as_str(), id);
        assert!(*percentage >= percentage_before, "progress percentage never decreases: {frames:?}");
        assert!(seq_before < Some(*seq), "sequence numbers strictly rise: {frames:?}");
        (percentage_before, seq_before) = (*percentage, Some(*seq));
    }
    let Frame::Complete { request_id, success, result, seq, .. } = last else { panic!("{last:?}") };
    assert_eq!((request_id.as_str(), *success), (id, true));
    assert!(seq_before < Some(*seq), "the complete frame has the highest sequence number: {frames:?}");
    assert_eq!(percentage_before, 100.0, "the last progress report is delivered before the complete frame");
    result.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_request_is_answered_with_a_single_response_frame() {
    let stage = stage().await;
    let mut client = client(&stage, "ann").await;
    let frames = ask(&mut client, "echo", "r1", json!({"message": "hi"})).await;
    let [Frame::Response { request_id, success: true, data: Some(data), error: None }] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!((request_id.as_str(), data), ("r1", &json!({"message": "hi"})));
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_request_is_acknowledged_reports_progress_and_completes() {
    let stage = stage().await;
    let mut client = client(&stage, "ann").await;
    let order = json!({"start_date": "2024-01-01", "end_date": "2024-03-31", "format": "pdf"});
    let frames = ask(&mut client, "generate_report", "r1", order.clone()).await;
    assert!(frames.len() >= 4, "at least two progress frames arrive: {frames:?}");
    let report = completed_result(&frames, "r1");
    assert_eq!(
        (&report["days"], &report["file_name"]),
        (&json!(91), &json!("sales-2024-01-01-2024-03-31.pdf"))
    );

    let job = json!({"dataset_id": "demo-dataset-123", "operation": "transform", "records": 5_000});
    let summary = completed_result(&ask(&mut client, "process_data", "r2", job).await, "r2");
    let counted = ["valid", "invalid", "duplicates"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counted.iter().sum::<u64>(), 5_000);

    let echo = json!({"message": "Testing async echo", "timestamp": "2024-01-01T00:00:00Z"});
    let echoed = completed_result(&ask(&mut client, "echo_async", "r3", echo).await, "r3");
    assert_eq!(echoed["message"], "Testing async echo");

    // A repeated id is acknowledged with the status of the first request, which is completed.
    client.request("generate_report", "r1", &order).await.unwrap();
    let again = client.next_frame().await.unwrap();
    assert!(matches!(again, Frame::Acknowledgment { status, .. } if status == "completed"));
    let status = ask(&mut client, "status", "s1", json!({"request_id": "r1"})).await;
    let [Frame::Response { data: Some(snapshot), .. }] = &status[..] else { panic!("{status:?}") };
    assert_eq!((&snapshot["status"], &snapshot["result"]), (&json!("completed"), &report));
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_message_is_answered_with_an_error_frame() {
    let stage = stage().await;
    let mut client = client(&stage, "ann").await;
    let mut answers = Vec::new();
    for message in [
        r#"{"action":"fly","id":"r1"}"#,
        r#"{"action":"generate_report","id":"r2","payload":{"start_date":"2024-13-01","end_date":"soon","format":"pdf"}}"#,
        r#"{"action":"generate_report","id":"r3","payload":{"start_date":"2024-02-01","end_date":"2024-01-01","format":"pdf"}}"#,
        r#"{"action":"generate_report","id":"r4","payload":{"start_date":"2023-01-01","end_date":"2024-01-02","format":"pdf"}}"#,
        r#"{"action":"generate_report","id":"r5","payload":{"start_date":"2024-01-01","end_date":"2024-01-02","format":"doc"}}"#,
        r#"{"action":"process_data","id":"r6","payload":{"dataset_id":"","records":0}}"#,
        r#"{"action":"echo_async","id":"r7","payload":{"message":"hi","rounds":0}}"#,
        r#"{"action":"echo_async","id":"r8"}"#,
        "not JSON",
    ] {
        client.send_text(message).await.unwrap();
        let text = client.next_text().await.unwrap();
        let mut frame: Value = serde_json::from_str(&text).unwrap();
        assert!(frame["timestamp"].take().as_u64() > Some(1_700_000_000));
        answers.push(frame.to_string());
    }
    assert_snapshot!(answers.join("\n"));
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_concurrent_clients_each_receive_only_frames_of_their_own_request() {
    let stage = stage().await;
    let (mut ann, mut bob) = (client(&stage, "ann").await, client(&stage, "bob").await);
    let message = |text: &str| json!({"message": text, "rounds": 10});
    ann.request("echo_async", "r1", &message("from ann")).await.unwrap();
    bob.request("echo_async", "r1", &message("from bob")).await.unwrap();
    let (anns, bobs) = tokio::join!(until_terminal(&mut ann), until_terminal(&mut bob));
    assert_eq!(completed_result(&anns, "r1")["message"], "from ann");
    assert_eq!(completed_result(&bobs, "r1")["message"], "from bob");
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_open_requests_of_one_client_all_complete() {
    let stage = stage().await;
    let mut client: Client = client(&stage, "ann").await;
    for n in 0..5 {
        client.request("echo_async", &format!("r{n}"), &json!({"message": "m", "rounds": 5})).await.unwrap();
    }
    let mut completed = std::collections::BTreeSet::new();
    while completed.len() < 5 {
        match client.next_frame().await.unwrap() {
            Frame::Complete { request_id, .. } => {
                assert!(completed.insert(request_id), "each request completes once");
            }
            Frame::Acknowledgment { .. } | Frame::Progress { .. } => {}
            other @ (Frame::Response { .. } | Frame::Error { .. }) => panic!("{other:?}"),
        }
    }
    stage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_completes_after_its_client_disconnects() {
    let stage = stage().await;
    let mut first = client(&stage, "ann").await;
    first.request("echo_async", "r1", &json!({"message": "m", "rounds": 5})).await.unwrap();
    assert!(matches!(first.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    first.close().await.unwrap();
    let mut second = client(&stage, "ann").await;
    let message = tokio::time::timeout(PATIENCE, async {
        loop {
            let frames = ask(&mut second, "status", "s", json!({"request_id": "r1"})).await;
            let [Frame::Response { data: Some(snapshot), .. }] = &frames[..] else { panic!("{frames:?}") };
            if snapshot["status"] == "completed" {
                return snapshot["result"]["message"].clone();
            }
        }
    });
    assert_eq!(message.await.unwrap(), "m");
    let unknown = ask(&mut second, "status", "s", json!({"request_id": "r2"})).await;
    assert!(
        matches!(&unknown[..], [Frame::Error { error, .. }] if error.code == ErrorCode::NotFound),
        "{unknown:?}"
    );
    stage.shutdown().await;
}
