//! The tokens of transactions, with the answers to repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use streamer::ports::Timestamp;

/// How long DynamoDB remembers a token after the request that used it ended.
const WINDOW: Duration = Duration::from_secs(600);

/// Transactions that succeeded.
#[derive(Debug, Default)]
pub(super) struct ClientTokens(BTreeMap<Transaction, Remembered>);

#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Transaction {
    pub(super) operation: String,
    pub(super) token: String,
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) ended: Timestamp,
    /// The canonical JSON of what was asked, since another payload under the same token is an error.
    pub(super) payload: String,
    pub(super) answer: Vec<u8>,
}

impl ClientTokens {
    /// Forgets what is older than ten minutes, and looks a transaction up.
    pub(super) fn find(&mut self, transaction: &Transaction, now: Timestamp) -> Option<&Remembered> {
        self.0.retain(|_, remembered| now.since(remembered.ended) < WINDOW);
        self.0.get(transaction)
    }

    pub(super) fn remember(&mut self, transaction: Transaction, remembered: Remembered) {
        self.0.insert(transaction, remembered);
    }
}
