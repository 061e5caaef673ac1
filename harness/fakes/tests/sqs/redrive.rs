//! Tests of dead letters, and of message move tasks, which move dead letters back to their source queue.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use serde_json::json;
use streamer_fakes::sqs::Queues;

use crate::stage::{advance, bodies, queue, queues, receive, send};

/// Creates the queue `q`, and the queue `dead` for messages of `q` that were received twice. Returns a client, and the
/// URLs of `q` and `dead`.
async fn with_dead_letters(queues: &Queues) -> (Client, String, String) {
    let (client, url) = queue(queues).await;
    let dead = client.create_queue().queue_name("dead").send().await.unwrap().queue_url.unwrap();
    // AWS accepts `maxReceiveCount` as a JSON string, as in this policy, or as a number, as in other tests.
    let policy = json!({ "deadLetterTargetArn": queues.arn("dead"), "maxReceiveCount": "2" });
    let set = client.set_queue_attributes().queue_url(&url);
    set.attributes(QueueAttributeName::RedrivePolicy, policy.to_string()).send().await.unwrap();
    (client, url, dead)
}

/// Sends a message, and receives the message until it becomes a dead letter.
async fn fail(client: &Client, url: &str, body: &str) {
    send(client, url, body).await;
    for expected in [1, 1, 0] {
        assert_eq!(bodies(client, url).await.len(), expected);
        advance(30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn message_received_too_often_moves_to_the_dead_letter_queue() {
    let queues = queues();
    let (client, url, dead) = with_dead_letters(&queues).await;
    fail(&client, &url, "poison").await;
    let message = &receive(&client, &dead).await[0];
    assert_eq!(message.body.as_deref(), Some("poison"));
    let system = message.attributes.as_ref().unwrap();
    assert_eq!(system[&MessageSystemAttributeName::DeadLetterQueueSourceArn], queues.arn("q"));
    let sources = client.list_dead_letter_source_queues().queue_url(&dead).send().await.unwrap();
    assert_eq!(sources.queue_urls, [url]);
}

#[tokio::test(start_paused = true)]
async fn move_task_returns_dead_letters_to_their_source_queue() {
    let queues = queues();
    let (client, url, dead) = with_dead_letters(&queues).await;
    fail(&client, &url, "poison").await;
    let started = client.start_message_move_task().source_arn(queues.arn("dead")).send().await.unwrap();
    let listed = client.list_message_move_tasks().source_arn(queues.arn("dead")).send().await.unwrap();
    let task = &listed.results()[0];
    assert_eq!((task.status(), task.approximate_number_of_messages_moved), (Some("COMPLETED"), 1));
    assert_eq!(bodies(&client, &dead).await.len(), 0);
    assert_eq!(bodies(&client, &url).await, ["poison"]);
    let handle = started.task_handle.unwrap();
    let error = client.cancel_message_move_task().task_handle(handle).send().await.unwrap_err();
    assert!(
        error.into_service_error().is_unsupported_operation(),
        "a finished move task cannot be cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn move_task_moves_dead_letters_to_the_given_destination_queue() {
    let queues = queues();
    let (client, _, dead) = with_dead_letters(&queues).await;
    queues.create("other", []).unwrap();
    send(&client, &dead, "sent by hand").await;
    let start = || client.start_message_move_task().source_arn(queues.arn("dead"));
    start().send().await.unwrap();
    let listed = client.list_message_move_tasks().source_arn(queues.arn("dead")).send().await.unwrap();
    let reason = listed.results()[0].failure_reason();
    assert_eq!(
        reason,
        Some("CouldNotDetermineMessageSource"),
        "a message without a known source queue cannot be moved back"
    );
    start().destination_arn(queues.arn("other")).send().await.unwrap();
    assert_eq!(queues.messages("other").unwrap()[0].body, "sent by hand");
    let error = client.start_message_move_task().source_arn(queues.arn("none")).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    let error = client.start_message_move_task().source_arn(queues.arn("other")).send().await.unwrap_err();
    assert!(format!("{error:?}").contains("must be configured as a Dead Letter Queue"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn moved_dead_letter_has_a_new_id_and_a_new_retention_period() {
    let day = 24 * 3_600;
    let queues = queues();
    let (client, url, dead) = with_dead_letters(&queues).await;
    for (url, retention) in [(&url, 4 * day), (&dead, 6 * day)] {
        let set = client.set_queue_attributes().queue_url(url);
        let retention = retention.to_string();
        set.attributes(QueueAttributeName::MessageRetentionPeriod, retention).send().await.unwrap();
    }
    fail(&client, &url, "poison").await;
    let before = queues.messages("dead").unwrap().remove(0);
    advance(5 * day).await;
    client.start_message_move_task().source_arn(queues.arn("dead")).send().await.unwrap();
    let message = queues.messages("q").unwrap().remove(0);
    assert_ne!(message.id, before.id);
    assert_eq!(message.sent.since(before.sent).as_secs(), 5 * day + 90);
    assert_eq!((message.receive_count, message.dead_letter_source), (0, None));
    assert_eq!(bodies(&client, &url).await, ["poison"]);
    assert_eq!(queues.messages("dead").unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn message_past_its_retention_period_is_neither_moved_nor_listed() {
    let queues = queues();
    let (client, url, _) = with_dead_letters(&queues).await;
    for _ in 0..2 {
        fail(&client, &url, "poison").await;
        // Both queues have the default retention of four days. The age of a dead letter counts from the time at which
        // the message was sent to the source queue.
        advance(4 * 24 * 3_600).await;
        client.start_message_move_task().source_arn(queues.arn("dead")).send().await.unwrap();
        let listed = client.list_message_move_tasks().source_arn(queues.arn("dead")).send().await.unwrap();
        assert_eq!(listed.results()[0].approximate_number_of_messages_moved, 0);
    }
    queues.send("q", "forgotten").unwrap();
    advance(4 * 24 * 3_600 + 1).await;
    assert_eq!(queues.messages("q").unwrap(), []);
}
