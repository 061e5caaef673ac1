//! Tests of the visibility timeouts, delays and receive counts of messages.

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};

use crate::stage::{advance, bodies, queue, queues, receive, send};

#[tokio::test(start_paused = true)]
async fn received_message_is_hidden_for_its_visibility_timeout_and_its_receives_are_counted() {
    let (client, url) = queue(&queues()).await;
    send(&client, &url, "m").await;
    for (wait, expected) in [(0, 1), (29, 0), (1, 1), (30, 1)] {
        advance(wait).await;
        assert_eq!(
            receive(&client, &url).await.len(),
            expected,
            "{expected} messages are visible after {wait} more seconds"
        );
    }
    advance(30).await;
    let message = &receive(&client, &url).await[0];
    let count = &message.attributes.as_ref().unwrap()[&MessageSystemAttributeName::ApproximateReceiveCount];
    assert_eq!(count, "4");
}

#[tokio::test(start_paused = true)]
async fn receive_call_overrides_the_visibility_timeout_of_its_queue() {
    let (client, url) = queue(&queues()).await;
    let set = client.set_queue_attributes().queue_url(&url);
    set.attributes(QueueAttributeName::VisibilityTimeout, "5").send().await.unwrap();
    send(&client, &url, "m").await;
    let received = || client.receive_message().queue_url(&url);
    assert_eq!(received().send().await.unwrap().messages().len(), 1);
    advance(5).await;
    assert_eq!(received().visibility_timeout(100).send().await.unwrap().messages().len(), 1);
    advance(99).await;
    assert_eq!(received().send().await.unwrap().messages().len(), 0);
    advance(1).await;
    assert_eq!(received().visibility_timeout(0).send().await.unwrap().messages().len(), 1);
    assert_eq!(
        received().send().await.unwrap().messages().len(),
        1,
        "a visibility timeout of 0 does not hide the message"
    );
}

#[tokio::test(start_paused = true)]
async fn visibility_timeout_can_be_changed_while_the_message_is_in_flight() {
    let (client, url) = queue(&queues()).await;
    send(&client, &url, "m").await;
    let handle = receive(&client, &url).await[0].receipt_handle.clone().unwrap();
    let change = |secs| {
        client.change_message_visibility().queue_url(&url).receipt_handle(&handle).visibility_timeout(secs)
    };
    change(100).send().await.unwrap();
    advance(99).await;
    assert_eq!(bodies(&client, &url).await.len(), 0);
    change(0).send().await.unwrap();
    let error = change(10).send().await.unwrap_err().into_service_error();
    assert!(error.is_message_not_inflight(), "{error}");
    assert_eq!(bodies(&client, &url).await, ["m"]);
}

#[tokio::test(start_paused = true)]
async fn receipt_handle_of_an_earlier_receive_deletes_nothing() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    send(&client, &url, "m").await;
    let old = receive(&client, &url).await[0].receipt_handle.clone().unwrap();
    advance(30).await;
    let new = receive(&client, &url).await[0].receipt_handle.clone().unwrap();
    client.delete_message().queue_url(&url).receipt_handle(&old).send().await.unwrap();
    assert_eq!(queues.messages("q").unwrap().len(), 1);
    // The latest handle deletes the message even after the visibility timeout, because no later receive happened.
    advance(30).await;
    client.delete_message().queue_url(&url).receipt_handle(&new).send().await.unwrap();
    assert_eq!(queues.messages("q").unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn delayed_message_becomes_visible_after_its_delay() {
    let (client, url) = queue(&queues()).await;
    let set = client.set_queue_attributes().queue_url(&url);
    set.attributes(QueueAttributeName::DelaySeconds, "10").send().await.unwrap();
    send(&client, &url, "by the queue").await;
    client.send_message().queue_url(&url).message_body("by itself").delay_seconds(0).send().await.unwrap();
    assert_eq!(bodies(&client, &url).await, ["by itself"]);
    advance(10).await;
    assert_eq!(bodies(&client, &url).await, ["by the queue"]);
}
