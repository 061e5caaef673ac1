use serde_json::json;
use streamer::protocol::Frame;

use crate::{ask, builder, client};

#[tokio::test(flavor = "multi_thread")]
async fn restarted_stage_with_a_data_folder_still_has_its_requests() {
    let folder = tempfile::tempdir().unwrap();
    let stage = builder(Some(folder.path())).start().await.unwrap();
    let mut ann = client(&stage, "ann").await;
    let done = ask(&mut ann, "echo_async", "r1", json!({"message": "kept", "rounds": 2})).await;
    assert!(matches!(done.last(), Some(Frame::Complete { .. })), "{done:?}");
    // The stage shuts down after the acknowledgment, before the stream is polled or while the request runs.
    ann.request(
        "generate_report",
        "r2",
        &json!({"start_date": "2024-01-01", "end_date": "2024-01-31", "format": "csv"}),
    )
    .await
    .unwrap();
    assert!(matches!(ann.next_frame().await.unwrap(), Frame::Acknowledgment { .. }));
    stage.shutdown().await;

    let stage = builder(Some(folder.path())).start().await.unwrap();
    let mut ann = client(&stage, "ann").await;
    let frames = ask(&mut ann, "status", "s1", json!({"request_id": "r1"})).await;
    let [Frame::Response { data: Some(snapshot), .. }] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(snapshot["result"]["message"], "kept");
    let frames = ask(&mut ann, "status", "s2", json!({"request_id": "r2"})).await;
    assert!(
        matches!(&frames[..], [Frame::Response { success: true, .. }]),
        "the acknowledged request is still stored: {frames:?}"
    );
    stage.shutdown().await;
}
