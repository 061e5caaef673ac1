use std::time::Duration;

use serde_json::{Value, json};
use streamer::protocol::{Frame, Seq};

use crate::{builder, client, until_terminal};

/// Maximum wait for a frame: longer than the lease, the sweeper's interval and the work together.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn request_whose_processor_is_killed_is_rerun_by_the_worker_and_completes() {
    // The shortest lease that the settings allow, to keep the test short.
    let stage = builder(None).variable("LEASE_MS", "30000").start().await.unwrap();
    let mut ann = client(&stage, "ann").await;
    ann.set_patience(PATIENCE);
    let job = json!({"dataset_id": "d1", "records": 200_000});
    ann.request("process_data", "r1", &job).await.unwrap();
    let mut frames = Vec::new();
    while !matches!(frames.last(), Some(Frame::Progress { .. })) {
        frames.push(ann.next_frame().await.unwrap());
    }
    // Sends SIGKILL to the process that runs the request.
    assert!(stage.functions().kill("streamer-ProcessorFunction").unwrap() > 0);
    frames.extend(until_terminal(&mut ann).await);

    let Some(Frame::Complete { result, .. }) = frames.last() else { panic!("{frames:?}") };
    assert_eq!(result["records"], 200_000);
    let seqs: Vec<Seq> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
            Frame::Error { .. } | Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
        })
        .collect();
    assert!(
        seqs.is_sorted_by(|earlier, later| earlier < later),
        "sequence numbers strictly rise across both attempts: {seqs:?}"
    );
    let items = stage.items("RequestsTable").await.unwrap();
    let item = items.iter().find(|item| item["client_id"] == "r1").unwrap();
    assert_eq!((&item["status"], &item["attempt"]), (&json!("COMPLETED"), &json!(2)));
    assert_eq!(item["runner"], "worker");
    let history: Value = serde_json::from_str(item["history"].as_str().unwrap()).unwrap();
    assert_eq!((&history[0]["attempt"], &history[0]["outcome"]), (&json!(1), &json!("crashed")));
    stage.shutdown().await;
}
