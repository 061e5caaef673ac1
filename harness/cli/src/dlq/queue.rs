//! Reads the dead-letter queue without removing its messages, and deletes the messages of redriven letters.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry;
use streamer::dead_letters::DeadLetter;
use streamer_harness::tables::innermost;

use super::super::place::SelectedStage;

/// The SQS queue that holds the dead letters of a stage.
pub(super) struct DeadLetterQueue {
    client: Client,
    url: String,
}

/// The messages that were read from a dead-letter queue. SQS hides them from other consumers until they are
/// released, or until their visibility timeout ends.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Dead letters in the order of their failure times, oldest first. A letter that was sent twice appears
    /// once.
    pub(super) letters: Vec<ReceivedLetter>,
    /// Messages that cannot be parsed as dead letters.
    pub(super) unreadable: Vec<Unreadable>,
    /// True if the whole queue was read; false if reading stopped at the limit or because messages repeated.
    pub(super) is_complete: bool,
}

/// A dead letter, with the receipt handles of the messages that hold it.
#[derive(Debug)]
pub(super) struct ReceivedLetter {
    pub(super) letter: DeadLetter,
    pub(super) receipts: Vec<String>,
}

/// A message that cannot be parsed as a dead letter.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) message_id: String,
    pub(super) problem: String,
    receipt: String,
}

impl Reading {
    pub(super) fn letter(&self, id: &str) -> Option<&ReceivedLetter> {
        self.letters.iter().find(|received| received.letter.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.unreadable.is_empty()
    }

    /// Receipt handles of all messages that were read.
    pub(super) fn receipts(&self) -> Vec<&str> {
        let of_letters = self.letters.iter().flat_map(|received| &received.receipts);
        of_letters
            .chain(self.unreadable.iter().map(|unreadable| &unreadable.receipt))
            .map(String::as_str)
            .collect()
    }
}

impl DeadLetterQueue {
    const RESOURCE: &str = "DeadLetterQueue";
    /// Visibility timeout in seconds. A message that is not released reappears for other consumers after this
    /// time.
    const VISIBILITY_TIMEOUT_SECS: i32 = 120;
    /// Wait time of a receive in seconds. Must not be zero: a receive without a wait (short polling) asks only
    /// some of the SQS servers, and can miss messages.
    const WAIT_SECS: i32 = 1;
    /// Maximum number of receipt handles in one SQS call.
    const MAX_BATCH: usize = 10;
    /// Number of consecutive receives without a new message after which `read` returns an incomplete result.
    const MAX_REPEATS: u32 = 10;

    /// Opens the queue at `url`, or the stack's dead-letter queue if `url` is `None`.
    pub(super) async fn open(stage: &SelectedStage, url: Option<String>) -> Result<Self, Box<dyn Error>> {
        let client = Client::new(&stage.config);
        if let Some(url) = url {
            return Ok(Self { client, url });
        }
        let list = client.list_queues().queue_name_prefix(stage.queue_name_prefix(Self::RESOURCE)?);
        let urls = list.into_paginator().items().send().try_collect().await;
        let urls = urls.map_err(|error| {
            format!("the queues cannot be listed ({}); pass --queue-url URL", describe(&error))
        })?;
        let url = stage.find_resource("queue", Self::RESOURCE, urls, "--queue-url URL")?;
        Ok(Self { client, url })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Reads messages until the queue is empty or `limit` messages are read. The last batch may exceed the
    /// limit.
    pub(super) async fn read(&self, limit: u32) -> Result<Reading, Box<dyn Error>> {
        let mut reading = Reading::default();
        let mut letters: BTreeMap<String, ReceivedLetter> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut repeats = 0;
        while seen.len() < limit as usize {
            let receive = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(10)
                .visibility_timeout(Self::VISIBILITY_TIMEOUT_SECS)
                .wait_time_seconds(Self::WAIT_SECS);
            let received = match receive.send().await {
                Ok(received) => received.messages.unwrap_or_default(),
                Err(error) => {
                    reading.letters = letters.into_values().collect();
                    self.release(&reading.receipts()).await;
                    return Err(format!("{} cannot be read: {}", self.url, describe(&error)).into());
                }
            };
            if received.is_empty() {
                reading.is_complete = true;
                break;
            }
            let mut is_new = false;
            for message in received {
                let message_id = message.message_id.unwrap_or_default();
                is_new |= seen.insert(message_id.clone());
                let receipt = message.receipt_handle.unwrap_or_default();
                match serde_json::from_str::<DeadLetter>(message.body.as_deref().unwrap_or_default()) {
                    Ok(letter) => letters
                        .entry(letter.id.clone())
                        .or_insert_with(|| ReceivedLetter { letter, receipts: Vec::new() })
                        .receipts
                        .push(receipt),
                    Err(error) => {
                        let problem = error.to_string();
                        reading.unreadable.push(Unreadable { message_id, problem, receipt });
                    }
                }
            }
            // SQS may deliver a hidden message again, and does so after its visibility timeout. New messages
            // may still follow, so a single receive without a new message does not end the loop.
            repeats = if is_new { 0 } else { repeats + 1 };
            if repeats == Self::MAX_REPEATS {
                break;
            }
        }
        reading.letters = letters.into_values().collect();
        reading.letters.sort_by_key(|received| received.letter.failed_at);
        Ok(reading)
    }

    /// Makes messages visible to other consumers immediately. If a call fails, its messages reappear when their
    /// visibility timeout ends.
    pub(super) async fn release(&self, receipts: &[&str]) {
        for batch in receipts.chunks(Self::MAX_BATCH) {
            let entries = batch.iter().enumerate().filter_map(|(n, receipt)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(n.to_string())
                    .receipt_handle(*receipt)
                    .visibility_timeout(0)
                    .build()
                    .ok()
            });
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            let _ = change.set_entries(Some(entries.collect())).send().await;
        }
    }

    /// Deletes every message that holds this letter.
    pub(super) async fn delete(&self, received: &ReceivedLetter) -> Result<(), String> {
        for receipt in &received.receipts {
            let delete = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt);
            delete.send().await.map_err(|error| describe(&error))?;
        }
        Ok(())
    }
}

fn describe<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => innermost(error),
    }
}
