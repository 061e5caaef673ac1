//! Tests that the SDK reads each error of the SQS fake as the error that SQS would return.

use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use serde_json::{Value, json};
use streamer_fakes::sqs::Queues;

use crate::stage::{client, queue, queues, send};

#[tokio::test(start_paused = true)]
async fn sdk_reads_each_sqs_error_as_its_modeled_type() {
    let (client, url) = queue(&queues()).await;
    let none = "http://sqs.localhost/000000000000/none";
    let error = client.send_message().queue_url(none).message_body("m").send().await.unwrap_err();
    let error = error.into_service_error();
    assert_eq!(
        error.code(),
        Some("AWS.SimpleQueueService.NonExistentQueue"),
        "the SDK reports the code of the query protocol"
    );
    assert!(error.is_queue_does_not_exist());
    let error = client.delete_message().queue_url(&url).receipt_handle("x").send().await.unwrap_err();
    assert!(error.into_service_error().is_receipt_handle_is_invalid());
    let create = client.create_queue().queue_name("q").attributes(QueueAttributeName::DelaySeconds, "1");
    let error = create.send().await.unwrap_err().into_service_error();
    assert!(error.is_queue_name_exists(), "{error:?}");
    let attributes = client.get_queue_attributes().queue_url(&url).attribute_names("Nonsense".into());
    assert!(attributes.send().await.unwrap_err().into_service_error().is_invalid_attribute_name());
    let set = client.set_queue_attributes().queue_url(&url);
    let set = set.attributes(QueueAttributeName::VisibilityTimeout, "43201").send().await;
    assert!(set.unwrap_err().into_service_error().is_invalid_attribute_value());
    let send = client.send_message().queue_url(&url).message_body("\u{fffe}").send().await;
    assert!(send.unwrap_err().into_service_error().is_invalid_message_contents());
    let purge = || client.purge_queue().queue_url(&url).send();
    purge().await.unwrap();
    assert!(purge().await.unwrap_err().into_service_error().is_purge_queue_in_progress());
}

#[tokio::test(start_paused = true)]
async fn sdk_reads_each_sqs_batch_error_as_its_modeled_type() {
    let (client, url) = queue(&queues()).await;
    let batch = async |ids: &[&str], body: &str| {
        let entry =
            |id: &&str| SendMessageBatchRequestEntry::builder().id(*id).message_body(body).build().unwrap();
        let entries = ids.iter().map(entry).collect();
        let call = client.send_message_batch().queue_url(&url).set_entries(Some(entries));
        call.send().await.map_err(aws_sdk_sqs::error::SdkError::into_service_error)
    };
    assert!(batch(&[], "m").await.unwrap_err().is_empty_batch_request());
    assert!(batch(&["a", "a"], "m").await.unwrap_err().is_batch_entry_ids_not_distinct());
    assert!(batch(&["a b"], "m").await.unwrap_err().is_invalid_batch_entry_id());
    let many: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(batch(&many, "m").await.unwrap_err().is_too_many_entries_in_batch_request());
    let half = "x".repeat(512 * 1024 + 1);
    assert!(batch(&["a", "b"], &half).await.unwrap_err().is_batch_request_too_long());
    assert_eq!(batch(&["a"], &half).await.unwrap().successful.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sqs_message_above_1_mib_is_refused() {
    let (client, url) = queue(&queues()).await;
    send(&client, &url, &"x".repeat(1024 * 1024)).await;
    let larger = client.send_message().queue_url(&url).message_body("x".repeat(1024 * 1024 + 1));
    let error = larger.send().await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("InvalidParameterValue"));
    let reason = "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.";
    assert_eq!(error.message(), Some(reason));
}

#[tokio::test(start_paused = true)]
async fn creating_a_fifo_queue_is_refused_as_not_emulated() {
    let queues = queues();
    let client = client(Some(queues.http_client()), "http://sqs.localhost");
    let by_name = client.create_queue().queue_name("q.fifo");
    let by_attribute =
        client.create_queue().queue_name("q").attributes(QueueAttributeName::FifoQueue, "true");
    for call in [by_name, by_attribute] {
        let error = call.send().await.unwrap_err().into_service_error();
        assert_eq!(error.code(), Some("AWS.SimpleQueueService.UnsupportedOperation"));
        assert!(error.message().unwrap().contains("FIFO queues are not emulated"));
    }
}

#[tokio::test(start_paused = true)]
async fn redrive_policy_needs_an_existing_queue_and_a_valid_receive_count() {
    let queues = Arc::new(queues());
    let (client, url) = queue(&queues).await;
    let set = async |client: &Client, policy: Value| {
        let call = client.set_queue_attributes().queue_url(&url);
        let call = call.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
        call.send().await.map_err(aws_sdk_sqs::error::SdkError::into_service_error)
    };
    let policy = |name: &str, count: Value| json!({"deadLetterTargetArn": Queues::arn(&queues, name), "maxReceiveCount": count});
    let error = set(&client, policy("none", json!(1))).await.unwrap_err();
    assert!(error.message().unwrap().ends_with("Reason: Dead letter target does not exist."), "{error:?}");
    for wrong in
        [json!({}), json!([]), policy("q", json!(0)), policy("q", json!("x")), policy("q", json!(1_001))]
    {
        assert!(set(&client, wrong).await.unwrap_err().is_invalid_attribute_value());
    }
    for right in [policy("q", json!(1)), policy("q", json!("1000"))] {
        set(&client, right).await.unwrap();
    }
}
