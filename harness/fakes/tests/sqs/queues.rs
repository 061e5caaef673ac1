//! Tests of the SQS fake's operations on queues and messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use streamer::ports::{SystemClock, SystemEntropy};
use streamer_fakes::destination::Destination;
use streamer_fakes::sqs::Queues;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::stage::{START, advance, bodies, client, queue, queues, receive, send};

#[tokio::test(start_paused = true)]
async fn queue_message_is_sent_received_and_deleted() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    assert_eq!(url, "http://sqs.localhost/000000000000/q");
    let sent = client.send_message().queue_url(&url).message_body("hello").send().await.unwrap();
    assert_eq!(sent.md5_of_message_body.as_deref(), Some("5d41402abc4b2a76b9719d911017c592"));
    advance(2).await;
    let message = &receive(&client, &url).await[0];
    assert_eq!(message.message_id, sent.message_id);
    assert_eq!(message.md5_of_body.as_deref(), Some("5d41402abc4b2a76b9719d911017c592"));
    let system = message.attributes.as_ref().unwrap();
    let of = |name| system.get(&name).map(String::as_str);
    assert_eq!(of(MessageSystemAttributeName::SentTimestamp), Some(&*START.as_millis().to_string()));
    let first = (START + Duration::from_secs(2)).as_millis().to_string();
    assert_eq!(of(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp), Some(&*first));
    assert_eq!(of(MessageSystemAttributeName::ApproximateReceiveCount), Some("1"));
    assert_eq!(of(MessageSystemAttributeName::SenderId), Some("000000000000"));
    let handle = message.receipt_handle().unwrap();
    for _ in 0..2 {
        client.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    }
    assert_eq!(queues.messages("q").unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn received_message_attributes_have_the_md5_digest_that_sdks_verify() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    let text = MessageAttributeValue::builder().data_type("String").string_value("x").build().unwrap();
    let bytes = MessageAttributeValue::builder()
        .data_type("Binary")
        .binary_value(Blob::new([0, 255]))
        .build()
        .unwrap();
    let call = client.send_message().queue_url(&url).message_body("m");
    let call = call.message_attributes("a.text", text.clone()).message_attributes("bytes", bytes.clone());
    let sent = call.send().await.unwrap();
    // Computes the expected digest of both attributes by the algorithm in AWS's developer guide ("message metadata"),
    // which boto3 and the JavaScript SDK use.
    let mut digest = Vec::new();
    for (name, kind, mark, value) in
        [("a.text", "String", 1, b"x".as_slice()), ("bytes", "Binary", 2, &[0, 255])]
    {
        for part in [name.as_bytes(), kind.as_bytes()] {
            digest.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            digest.extend(part);
        }
        digest.push(mark);
        digest.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        digest.extend(value);
    }
    let digest = format!("{:x}", md5::compute(digest));
    assert_eq!(sent.md5_of_message_attributes.as_ref(), Some(&digest));
    let message = &receive(&client, &url).await[0];
    assert_eq!(message.md5_of_message_attributes.as_ref(), Some(&digest));
    let expected = HashMap::from([("a.text".to_owned(), text), ("bytes".to_owned(), bytes)]);
    assert_eq!(message.message_attributes.as_ref(), Some(&expected));
    advance(31).await;
    let some = client.receive_message().queue_url(&url).message_attribute_names("a.*").send().await.unwrap();
    assert_eq!(
        some.messages()[0].message_attributes.as_ref().unwrap().keys().collect::<Vec<_>>(),
        ["a.text"]
    );
    advance(31).await;
    let none = client.receive_message().queue_url(&url).send().await.unwrap();
    assert_eq!((&none.messages()[0].attributes, &none.messages()[0].message_attributes), (&None, &None));
}

#[tokio::test(start_paused = true)]
async fn batch_answer_reports_the_outcome_of_each_entry() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    let entry = |id: &str, body: &str| {
        SendMessageBatchRequestEntry::builder().id(id).message_body(body).build().unwrap()
    };
    let call = client.send_message_batch().queue_url(&url);
    let sent = call.entries(entry("1", "one")).entries(entry("2", "\u{1}")).entries(entry("3", "three"));
    let sent = sent.send().await.unwrap();
    assert_eq!(sent.successful.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["1", "3"]);
    let failed = &sent.failed[0];
    assert_eq!((&*failed.id, &*failed.code, failed.sender_fault), ("2", "InvalidMessageContents", true));
    let received = receive(&client, &url).await;
    let mut call = client.delete_message_batch().queue_url(&url);
    for (id, handle) in [("a", received[0].receipt_handle().unwrap()), ("b", "nonsense")] {
        let entry = DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle);
        call = call.entries(entry.build().unwrap());
    }
    let deleted = call.send().await.unwrap();
    assert_eq!((deleted.successful.len(), &*deleted.failed[0].code), (1, "ReceiptHandleIsInvalid"));
    assert_eq!(queues.messages("q").unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn queue_attributes_have_sqs_defaults_and_message_counts() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    for body in ["received", "waiting"] {
        send(&client, &url, body).await;
    }
    client.receive_message().queue_url(&url).send().await.unwrap();
    client.send_message().queue_url(&url).message_body("later").delay_seconds(9).send().await.unwrap();
    let call = client.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
    let attributes = call.send().await.unwrap().attributes.unwrap();
    let mut attributes: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    attributes.sort();
    let expected = [
        "ApproximateNumberOfMessages=1",
        "ApproximateNumberOfMessagesDelayed=1",
        "ApproximateNumberOfMessagesNotVisible=1",
        "CreatedTimestamp=1772323200",
        "DelaySeconds=0",
        "LastModifiedTimestamp=1772323200",
        "MaximumMessageSize=1048576",
        "MessageRetentionPeriod=345600",
        "QueueArn=arn:aws:sqs:us-east-1:000000000000:q",
        "ReceiveMessageWaitTimeSeconds=0",
        "SqsManagedSseEnabled=true",
        "VisibilityTimeout=30",
    ];
    assert_eq!(attributes, expected);
    let some = client.get_queue_attributes().queue_url(&url).send().await.unwrap();
    assert_eq!(some.attributes, None, "GetQueueAttributes returns only requested attributes");
}

#[tokio::test(start_paused = true)]
async fn queues_can_be_created_looked_up_listed_purged_and_deleted() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    for name in ["a1", "a2", "a3"] {
        client.create_queue().queue_name(name).send().await.unwrap();
    }
    let again = client.create_queue().queue_name("q").send().await.unwrap();
    assert_eq!(again.queue_url.as_ref(), Some(&url));
    let found = client.get_queue_url().queue_name("q").send().await.unwrap();
    assert_eq!(found.queue_url.as_ref(), Some(&url));
    let list = || client.list_queues().queue_name_prefix("a").max_results(2);
    let first = list().send().await.unwrap();
    let second = list().set_next_token(first.next_token.clone()).send().await.unwrap();
    let of = |name: &str| format!("http://sqs.localhost/000000000000/{name}");
    assert_eq!((first.queue_urls(), second.queue_urls()), (&[of("a1"), of("a2")][..], &[of("a3")][..]));
    assert_eq!(second.next_token, None);
    send(&client, &url, "m").await;
    client.purge_queue().queue_url(&url).send().await.unwrap();
    assert_eq!(queues.messages("q").unwrap(), []);
    client.delete_queue().queue_url(&url).send().await.unwrap();
    let left = client.list_queues().queue_name_prefix("q").send().await.unwrap();
    assert_eq!(left.queue_urls, None);
}

#[tokio::test(start_paused = true)]
async fn long_poll_ends_at_the_first_message_or_after_its_wait_time() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    let begun = Instant::now();
    let poll = || client.receive_message().queue_url(&url).wait_time_seconds(20).send();
    let later = async {
        sleep(Duration::from_secs(3)).await;
        send(&client, &url, "m").await;
    };
    let (polled, (), first) = tokio::join!(poll(), later, queues.first_message("q"));
    assert_eq!(first.unwrap().body, "m");
    assert_eq!((polled.unwrap().messages().len(), begun.elapsed().as_secs()), (1, 3));
    // The message was received at 3 s, so it becomes visible again 30 s later, at 33 s.
    assert_eq!((poll().await.unwrap().messages().len(), begun.elapsed().as_secs()), (0, 23));
    assert_eq!((poll().await.unwrap().messages().len(), begun.elapsed().as_secs()), (1, 33));
}

#[tokio::test(start_paused = true)]
async fn queue_messages_are_deleted_after_their_retention_period() {
    let queues = queues();
    let (client, url) = queue(&queues).await;
    let set = client.set_queue_attributes().queue_url(&url);
    set.attributes(QueueAttributeName::MessageRetentionPeriod, "60").send().await.unwrap();
    send(&client, &url, "old").await;
    advance(30).await;
    send(&client, &url, "young").await;
    advance(31).await;
    assert_eq!(bodies(&client, &url).await, ["young"]);
}

#[tokio::test]
async fn sqs_answers_over_http_at_the_root_and_at_the_queue_url() {
    let queues =
        Queues::in_memory(Arc::new(SystemClock), Arc::new(SystemEntropy::new()), "us-east-1", "000000000000");
    let queues = queues.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = queues.router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let http = aws_smithy_http_client::Builder::new().build_http();
    let at_root = client(Some(http.clone()), &format!("http://{address}"));
    let url = at_root.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
    assert_eq!(url, format!("http://{address}/000000000000/q"));
    send(&at_root, &url, "over HTTP").await;
    assert_eq!(bodies(&client(Some(http), &url), &url).await, ["over HTTP"]);
    let missing = at_root.get_queue_url().queue_name("none").send().await.unwrap_err();
    assert!(missing.into_service_error().is_queue_does_not_exist());
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn queues_in_a_folder_survive_a_restart_and_a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let (clock, entropy) = (crate::stage::clock(), Arc::new(SystemEntropy::new()));
        Queues::open(folder.path(), clock, entropy, "us-east-1", "000000000000")
    };
    let queues = open().unwrap();
    queues.create("q", [("VisibilityTimeout", "5")]).unwrap();
    queues.send("q", "kept").unwrap();
    drop(queues);
    let queues = open().unwrap();
    assert_eq!(queues.messages("q").unwrap()[0].body, "kept");
    assert!(queues.create("q", [("VisibilityTimeout", "5")]).is_ok());
    std::fs::write(folder.path().join("sqs.sqlite3"), "no database at all").unwrap();
    drop(queues);
    let error = open().unwrap_err().to_string();
    assert!(error.contains("sqs.sqlite3 cannot be used"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn destination_arn_selects_the_queue_that_receives_the_message() {
    let queues = queues();
    queues.create("q", []).unwrap();
    Destination::send(&queues, "arn:aws:sqs:us-east-1:000000000000:q", "m".to_owned()).unwrap();
    assert_eq!(queues.messages("q").unwrap()[0].body, "m");
    for arn in ["arn:aws:sqs:us-east-1:000000000000:r", "arn:aws:sqs:eu-west-1:000000000000:q", "q", ""] {
        let error = Destination::send(&queues, arn, "m".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot send to destination {arn}"));
    }
}
