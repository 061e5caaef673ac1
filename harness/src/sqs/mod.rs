//! SQS: the standard queues of a stage, as far as dead letters need them, on the stage's clock.
//!
//! One [`Queues`] is reached in three ways, which give the same answers:
//!
//! * [`Queues::http_client`]: any AWS SDK client in process, without sockets;
//! * [`Queues::router`] and [`Queues::in_front_of`]: the JSON protocol over HTTP, for any AWS SDK and the AWS CLI;
//! * [`Queues::create`], [`Queues::send`], [`Queues::messages`] for a test, and [`Destination`] for what Lambda gives up on.
//!
//! There is a crate that emulates SQS and could be embedded, `fakecloud-sqs`; its licence (AGPL) is not one of ours.
//!
//! ```
//! use std::sync::Arc;
//! use streamer::ports::{SystemClock, SystemEntropy};
//! use streamer_harness::sqs::Queues;
//!
//! let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
//! let queues = Queues::in_memory(clock, entropy, "us-east-1", "000000000000")?;
//! queues.create("failures", [])?;
//! queues.send("failures", "a message")?;
//! assert_eq!(queues.messages("failures")?[0].body, "a message");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where it departs from AWS
//!
//! * FIFO queues are refused, and so are tags and permissions (`UnknownOperationException`).
//! * Messages are received in the order in which they were sent, each once until its visibility timeout ends, and
//!   the numbers of messages are exact: AWS promises none of that.
//! * A message that goes to a dead-letter queue has its receive count begin anew; no source settles this.
//! * A queue that was deleted can be made again at once; AWS refuses for 60 seconds.
//! * A message move task has ended when the call that starts it returns, at whatever rate it was to move.
//! * Signatures are not checked, and neither is whose account a queue URL names. The older query protocol is not spoken.

mod api;
mod attributes;
mod connector;
mod error;
mod http;
mod message;
mod moves;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::Connection;
use streamer::ports::{Clock, Entropy, Timestamp};

use crate::destination::{Destination, NoDestination};
use crate::faults::{CallContext, Caller, Effect, Effects, Faults, Service};
use crate::watch;
use error::ApiError;
use store::Store;

const DATABASE_FILE: &str = "sqs.sqlite3";
const TARGET: &str = "AmazonSQS.";

/// The queues of one account in one region; cheap to clone, and all clones are the same queues.
#[derive(Clone)]
pub struct Queues {
    inner: Arc<Inner>,
    faults: Faults,
}

struct Inner {
    state: Mutex<State>,
    /// Told whenever a message may have become receivable.
    changes: watch::Sender<()>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    region: String,
    account_id: String,
}

#[derive(Debug)]
struct State {
    store: Store,
    tasks: Vec<moves::Task>,
}

/// What SQS answers to one call.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Response {
    status: u16,
    body: Bytes,
    /// The header `x-amzn-query-error`: an error's code in the older query protocol, and who is to blame.
    query_error: Option<String>,
}

/// A message in a queue, whether it can be received now or not.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its id.
    pub id: String,
    /// What it says.
    pub body: String,
    /// When it was sent.
    pub sent: Timestamp,
    /// How often it has been received.
    pub receive_count: u32,
    /// The ARN of the queue whose dead letter it is.
    pub dead_letter_source: Option<String>,
}

impl Queues {
    /// Queues that are gone when the last clone is dropped.
    ///
    /// # Errors
    /// When SQLite cannot be set up, for lack of memory.
    pub fn in_memory(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        Self::on(Connection::open_in_memory(), clock, entropy, region, account_id)
    }

    /// The queues in a folder, made if there are none: they go on where they were left.
    ///
    /// The folder is guarded by whoever has the tables in it open.
    ///
    /// # Errors
    /// When the folder, or the database file in it, cannot be used.
    pub fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        let file = folder.join(DATABASE_FILE);
        let conn = Connection::open(&file).and_then(|conn| {
            // As of the tables: nothing is lost when the process dies, and no call waits for the disk.
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "NORMAL")?;
            Ok(conn)
        });
        Self::on(conn, clock, entropy, region, account_id).map_err(|error| {
            QueueError(format!("the queues in {} cannot be used: {}", file.display(), error.0))
        })
    }

    fn on(
        conn: rusqlite::Result<Connection>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: &str,
        account_id: &str,
    ) -> Result<Self, QueueError> {
        let store = conn.and_then(Store::new).map_err(|error| QueueError(error.to_string()))?;
        let state = Mutex::new(State { store, tasks: Vec::new() });
        let (region, account_id) = (region.to_owned(), account_id.to_owned());
        let changes = watch::Sender::new(());
        let inner = Arc::new(Inner { state, changes, clock, entropy, region, account_id });
        Ok(Self { inner, faults: Faults::default() })
    }

    /// The same queues, whose calls go wrong as `faults` says, and what Lambda sends to them. What a test sends by itself
    /// does not.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

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

    /// Has a queue be set to exactly these attributes, as when a stack is deployed again.
    pub(crate) fn deploy(&self, name: &str, attributes: &BTreeMap<String, String>) -> Result<(), QueueError> {
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

    /// The ARN of a queue of this name.
    #[must_use]
    pub fn arn(&self, name: &str) -> String {
        let Inner { region, account_id, .. } = &*self.inner;
        let partition = match region.split('-').take(2).collect::<Vec<_>>().as_slice() {
            ["cn", ..] => "aws-cn",
            ["us", "gov"] => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:sqs:{region}:{account_id}:{name}")
    }

    fn url(&self, origin: &str, name: &str) -> String {
        format!("{origin}/{}/{name}", self.inner.account_id)
    }

    /// Answers one call, unless a fault says otherwise: `target` is the header `x-amz-target`. `None` when the answer is
    /// lost.
    async fn call(
        &self,
        target: &str,
        body: &[u8],
        origin: &str,
        caller: Option<&Caller>,
    ) -> Option<Response> {
        let Some(operation) = target.strip_prefix(TARGET) else {
            return Some(ApiError::unknown_operation().into_response());
        };
        let queue = api::queue_of(body);
        let queue = queue.as_deref();
        let possible = |effect: Effect| effect.applies_to_any_call(caller);
        let effects = self.inject(operation, queue, caller.map(Caller::function), possible);
        if !effects.delay.is_zero() {
            tokio::time::sleep(effects.delay).await;
        }
        let answer = match effects.effect {
            Some(Effect::Throttle) => Err(ApiError::throttled()),
            Some(Effect::Fail) => Err(on_purpose()),
            Some(Effect::FailAfterApply) => {
                self.answer(operation, body, origin).await.and_then(|_| Err(on_purpose()))
            }
            Some(Effect::LoseAnswer) => {
                // Whatever it would have been.
                let _ = self.answer(operation, body, origin).await;
                return None;
            }
            Some(Effect::Kill) => {
                caller.into_iter().for_each(Caller::kill);
                pending().await
            }
            Some(_) | None => self.answer(operation, body, origin).await,
        };
        Some(match answer {
            Ok(body) => Response { status: 200, body: body.to_string().into(), query_error: None },
            Err(error) => error.into_response(),
        })
    }

    fn inject(
        &self,
        operation: &str,
        queue: Option<&str>,
        caller: Option<&str>,
        possible: impl Fn(Effect) -> bool,
    ) -> Effects {
        let resources = queue.as_slice();
        let context = CallContext { service: Service::Sqs, operation, resources, index: None, caller };
        self.faults.inject(&context, possible)
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn changed(&self) {
        self.inner.changes.send_replace(());
    }

    /// Never held across an `await`. Each statement is whole by itself, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn on_purpose() -> ApiError {
    ApiError::internal("The request processing has failed because of a fault on purpose.")
}

impl Destination for Queues {
    fn send(&self, arn: &str, message: String) -> Result<(), NoDestination> {
        let none = || NoDestination(arn.to_owned());
        if arn.split(':').nth(2) != Some("sqs") || self.arn(api::name_in(arn)) != arn {
            return Err(none());
        }
        // Lambda does not wait for its destinations, so none of what takes time can happen here.
        let possible = |effect| matches!(effect, Effect::Throttle | Effect::Fail | Effect::FailAfterApply);
        let effect = self.inject("SendMessage", Some(api::name_in(arn)), None, possible).effect;
        let sent = match effect {
            Some(Effect::Throttle) => Err(ApiError::throttled()),
            Some(Effect::Fail) => Err(on_purpose()),
            Some(_) => self.send_text(arn, message).and_then(|_| Err(on_purpose())),
            None => self.send_text(arn, message),
        };
        sent.map(drop).map_err(|error| {
            tracing::warn!(arn, %error, "a message cannot be sent to its destination");
            none()
        })
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

/// Why a queue cannot be made or used: SQS's own error, or what SQLite says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueError(String);

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueueError {}

impl From<ApiError> for QueueError {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}
