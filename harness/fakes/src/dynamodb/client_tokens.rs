//! Remembers the client request token and the answer of each transaction, so that a repeated transaction returns the
//! first answer.

use std::collections::BTreeMap;
use std::time::Duration;

use streamer::ports::Timestamp;

/// Time for which DynamoDB remembers a client request token after the transaction with this token completed.
const WINDOW: Duration = Duration::from_secs(600);

/// Answers of transactions that succeeded, by operation and client request token.
#[derive(Debug, Default)]
pub(super) struct ClientTokens(BTreeMap<Transaction, Remembered>);

#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Transaction {
    pub(super) operation: String,
    pub(super) token: String,
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) completed: Timestamp,
    /// The transaction's actions as canonical JSON. Different actions with the same token are an error.
    pub(super) payload: String,
    pub(super) answer: Vec<u8>,
}

impl ClientTokens {
    /// Returns the remembered answer of a transaction. First drops the answers that are at least ten minutes old.
    pub(super) fn find(&mut self, transaction: &Transaction, now: Timestamp) -> Option<&Remembered> {
        self.0.retain(|_, remembered| now.since(remembered.completed) < WINDOW);
        self.0.get(transaction)
    }

    pub(super) fn remember(&mut self, transaction: Transaction, remembered: Remembered) {
        self.0.insert(transaction, remembered);
    }
}
