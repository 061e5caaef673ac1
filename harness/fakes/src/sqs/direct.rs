//! What a test does with queues without an SDK.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::queues::{Message, QueueError, Queues};

impl Queues {
    /// Makes a queue with these attributes, unless there is one that has them.
    ///
    /// # Errors
    /// When SQS would refuse, with its error.
    pub fn create<const N: usize>(
        &self,
        name: &str,
        attributes: [(&str, &str); N],
    ) -> Result<(), QueueError> {
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(self.create_queue(name, &BTreeMap::from(attributes))?)
    }

    /// Sets a queue to exactly these attributes, as when a stack is deployed again.
    ///
    /// # Errors
    /// When SQS would refuse, with its error.
    #[doc(hidden)]
    pub fn deploy(&self, name: &str, attributes: &BTreeMap<String, String>) -> Result<(), QueueError> {
        Ok(self.deploy_queue(name, attributes)?)
    }

    /// Sends a message to a queue, named by its name, its URL or its ARN.
    ///
    /// # Errors
    /// When SQS would refuse, with its error.
    pub fn send(&self, queue: &str, body: impl Into<String>) -> Result<(), QueueError> {
        Ok(self.send_text(queue, body.into()).map(drop)?)
    }

    /// All messages of a queue in the order in which they were sent, without receiving them.
    ///
    /// # Errors
    /// When there is no such queue.
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

    /// Waits until a queue has a message, and returns its oldest, without receiving it.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn first_message(&self, queue: &str) -> Result<Message, QueueError> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            if let Some(message) = self.messages(queue)?.into_iter().next() {
                return Ok(message);
            }
            // The sender lives as long as we do.
            let _ = changes.changed().await;
        }
    }
}
