use std::fs;

use serde_json::{Value, json};

use crate::{PATIENCE, builder};

/// Writes the deployed template with one retry per stream record instead of ten, because ten retries take
/// minutes.
fn template_with_one_retry(folder: &std::path::Path) -> std::path::PathBuf {
    let template = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/template.yaml")).unwrap();
    let changed = template.replace("MaximumRetryAttempts: 10\n", "MaximumRetryAttempts: 1\n");
    assert_ne!(changed, template, "the template contains the number of retries");
    let path = folder.join("template.yaml");
    fs::write(&path, changed).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_stream_record_reaches_the_stream_failure_queue() {
    let folder = tempfile::tempdir().unwrap();
    let stage = builder(None).template(template_with_one_retry(folder.path())).start().await.unwrap();
    let item = json!({
        "request_id": {"S": "not a request key"}, "part": {"S": "request"}, "status": {"S": "PENDING"},
    });
    let put = json!({"TableName": "streamer-RequestsTable", "Item": item}).to_string();
    let put = stage.dynamodb().handle("DynamoDB_20120810.PutItem", put.as_bytes());
    assert_eq!(put.status, 200, "{put:?}");

    let arrived = stage.queues().first_message("streamer-StreamFailureQueue");
    let message = tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
    let record: Value = serde_json::from_str(&message.body).unwrap();
    let context = &record["requestContext"];
    assert_eq!(context["condition"], "RetryAttemptsExhausted");
    assert_eq!(context["approximateInvokeCount"], 2);
    assert!(context["functionArn"].as_str().unwrap().ends_with(":function:streamer-ProcessorFunction"));
    assert_eq!(record["DDBStreamBatchInfo"]["batchSize"], 1);
    assert_eq!(
        record["responseContext"]["functionError"],
        Value::Null,
        "the function reports the failed record in its reply, and returns no error"
    );
    stage.shutdown().await;
}
