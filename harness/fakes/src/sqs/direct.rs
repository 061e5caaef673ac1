//! Direct access to queues without an SDK, for tests.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::queues::{Message, QueueError, Queues};

impl Queues {
    /// Creates a queue with these attributes. Does nothing if a queue with the same name and attributes exists.
    ///
    /// # Errors
    /// [`QueueError`] if SQS would refuse the call, for example because the queue exists with different attributes.
    pub fn create<const N: usize>(
        &self,
        name: &str,
        attributes: [(&str, &str); N],
    ) -> Result<(), QueueError> {
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(self.create_queue(name, &BTreeMap::from(attributes))?)
    }

    /// Sets a queue's attributes to `attributes`, and all other attributes to their defaults, as a deployment of a
    /// stack does.
    ///
    /// # Errors
    /// [`QueueError`] if SQS would refuse the call, for example because the queue does not exist.
    #[doc(hidden)]
    pub fn deploy(&self, name: &str, attributes: &BTreeMap<String, String>) -> Result<(), QueueError> {
        Ok(self.deploy_queue(name, attributes)?)
    }

    /// Sends a message to a queue, which is given by name, URL or ARN.
    ///
    /// # Errors
    /// [`QueueError`] if SQS would refuse the call, for example because the queue does not exist.
    pub fn send(&self, queue: &str, body: impl Into<String>) -> Result<(), QueueError> {
        Ok(self.send_text(queue, body.into()).map(drop)?)
    }

    /// Returns all messages of a queue in the order in which they were sent, without receiving them.
    ///
    /// # Errors
    /// [`QueueError`] if the queue does not exist.
    pub fn messages(&self, queue: &str) -> Result<Vec<Message>, QueueError> {
        let state = self.lock();
        let queue = state.queue(queue)?;
        self.expire(&state, &queue, self.now())?;
        let messages = state.store.messages(&queue.name).map_err(ApiError::from)?.into_iter();
        Ok(messages
            .map(|message| Message {
                id: message.id,
                body: message.body,
                sent: message.sent,
                receive_count: message.received,
                dead_letter_source: message.source,
            })
            .collect())
    }

    /// Waits until a queue contains a message, and returns the oldest message without receiving it.
    ///
    /// # Errors
    /// [`QueueError`] if the queue does not exist.
    pub async fn first_message(&self, queue: &str) -> Result<Message, QueueError> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            if let Some(message) = self.messages(queue)?.into_iter().next() {
                return Ok(message);
            }
            // `changed` cannot fail, because `self` owns a sender of the channel.
            let _ = changes.changed().await;
        }
    }
}
