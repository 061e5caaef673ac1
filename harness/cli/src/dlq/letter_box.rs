//! The dead-letter queue, looked into without taking anything out.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry;
use streamer::dead_letters::DeadLetter;
use streamer_harness::tables::innermost;

use super::super::place::At;

/// The dead-letter queue of a stage.
pub(super) struct LetterBox {
    client: Client,
    url: String,
}

/// What was read of a queue. Its messages are hidden from others until they are given back, or for a while.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The letters, the oldest failure first; one that was sent twice is one.
    pub(super) letters: Vec<Found>,
    /// Messages that are no letters.
    pub(super) unreadable: Vec<Unreadable>,
    /// Whether nothing was left to be read.
    pub(super) is_whole: bool,
}

/// A letter, and the messages that it came in.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) letter: DeadLetter,
    pub(super) receipts: Vec<String>,
}

/// A message that is no letter.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) message_id: String,
    pub(super) problem: String,
    receipt: String,
}

impl Reading {
    pub(super) fn letter(&self, id: &str) -> Option<&Found> {
        self.letters.iter().find(|found| found.letter.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.unreadable.is_empty()
    }

    /// The messages that were read, all of them.
    pub(super) fn receipts(&self) -> Vec<&str> {
        let of_letters = self.letters.iter().flat_map(|found| &found.receipts);
        of_letters
            .chain(self.unreadable.iter().map(|unreadable| &unreadable.receipt))
            .map(String::as_str)
            .collect()
    }
}

impl LetterBox {
    const RESOURCE: &str = "DeadLetterQueue";
    /// For how long what was read stays hidden from others, should it not be given back.
    const HIDDEN_SECS: i32 = 120;
    /// SQS asks all of its servers only where it may wait.
    const WAIT_SECS: i32 = 1;
    const MOST_AT_ONCE: usize = 10;
    /// After how many answers without anything new the reading ends, and does not count as whole.
    const MOST_REPEATS: u32 = 10;

    /// The queue of this URL, or else the stack's.
    pub(super) async fn open(at: &At, url: Option<String>) -> Result<Self, Box<dyn Error>> {
        let client = Client::new(&at.config);
        if let Some(url) = url {
            return Ok(Self { client, url });
        }
        let list = client.list_queues().queue_name_prefix(at.name_of(Self::RESOURCE)?);
        let urls = list.into_paginator().items().send().try_collect().await;
        let urls = urls.map_err(|error| {
            format!("the queues cannot be listed: {}; name yours by --queue-url", said(&error))
        })?;
        let url = at.the_one("queue", Self::RESOURCE, urls, "--queue-url URL")?;
        Ok(Self { client, url })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Reads as many messages as this, or all that there are.
    pub(super) async fn read(&self, limit: u32) -> Result<Reading, Box<dyn Error>> {
        let mut reading = Reading::default();
        let mut letters: BTreeMap<String, Found> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut repeats = 0;
        while seen.len() < limit as usize {
            let receive = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(10)
                .visibility_timeout(Self::HIDDEN_SECS)
                .wait_time_seconds(Self::WAIT_SECS);
            let received = match receive.send().await {
                Ok(received) => received.messages.unwrap_or_default(),
                Err(error) => {
                    reading.letters = letters.into_values().collect();
                    self.give_back(&reading.receipts()).await;
                    return Err(format!("{} cannot be read: {}", self.url, said(&error)).into());
                }
            };
            if received.is_empty() {
                reading.is_whole = true;
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
                        .or_insert_with(|| Found { letter, receipts: Vec::new() })
                        .receipts
                        .push(receipt),
                    Err(error) => {
                        let problem = error.to_string();
                        reading.unreadable.push(Unreadable { message_id, problem, receipt });
                    }
                }
            }
            // A queue may deliver again what is hidden, and does once that is over: others may still be behind it.
            repeats = if is_new { 0 } else { repeats + 1 };
            if repeats == Self::MOST_REPEATS {
                break;
            }
        }
        reading.letters = letters.into_values().collect();
        reading.letters.sort_by_key(|found| found.letter.failed_at);
        Ok(reading)
    }

    /// Lets others see messages again at once. Those that this does not reach come back by themselves.
    pub(super) async fn give_back(&self, receipts: &[&str]) {
        for some in receipts.chunks(Self::MOST_AT_ONCE) {
            let entries = some.iter().enumerate().filter_map(|(n, receipt)| {
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

    /// Deletes every message that a letter came in.
    pub(super) async fn delete(&self, found: &Found) -> Result<(), String> {
        for receipt in &found.receipts {
            let delete = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt);
            delete.send().await.map_err(|error| said(&error))?;
        }
        Ok(())
    }
}

fn said<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => innermost(error),
    }
}
