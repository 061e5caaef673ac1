//! Test fixtures: queues whose clock is tokio's paused time, and SDK clients of these queues.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::StalledStreamProtectionConfig;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use streamer::ports::{Clock, SystemEntropy, Timestamp, TokioClock};
use streamer_fakes::sqs::Queues;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_772_323_200);

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock::starting_at(START))
}

pub(crate) fn queues() -> Queues {
    Queues::in_memory(clock(), Arc::new(SystemEntropy::new()), "us-east-1", "000000000000").unwrap()
}

pub(crate) fn client(http: Option<SharedHttpClient>, endpoint: &str) -> Client {
    let mut config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        // The protection is disabled, because it would fail a call when paused time advances by an hour within a few
        // seconds of real time.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    config.set_http_client(http);
    Client::from_conf(config.build())
}

/// Creates the queue `q`. Returns a client, and the queue's URL.
pub(crate) async fn queue(queues: &Queues) -> (Client, String) {
    let client = client(Some(queues.http_client()), "http://sqs.localhost");
    let made = client.create_queue().queue_name("q").send().await.unwrap();
    (client, made.queue_url.unwrap())
}

pub(crate) async fn send(client: &Client, url: &str, body: &str) {
    client.send_message().queue_url(url).message_body(body).send().await.unwrap();
}

/// Receives up to ten messages that are visible now, with all their attributes.
pub(crate) async fn receive(client: &Client, url: &str) -> Vec<Message> {
    let call = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(10)
        .message_system_attribute_names(MessageSystemAttributeName::All)
        .message_attribute_names("All");
    call.send().await.unwrap().messages.unwrap_or_default()
}

pub(crate) async fn bodies(client: &Client, url: &str) -> Vec<String> {
    receive(client, url).await.into_iter().map(|message| message.body.unwrap()).collect()
}

pub(crate) async fn advance(secs: u64) {
    tokio::time::advance(Duration::from_secs(secs)).await;
}
