//! A fake of SQS: standard queues, with the features that a stage needs for its dead letters. The time comes from the
//! stage's clock.
//!
//! A [`Queues`] can be called in three ways, which return the same answers:
//!
//! * [`Queues::http_client`]: any AWS SDK client in process, without sockets;
//! * [`Queues::router`] and [`Queues::layered_over`]: the JSON protocol over HTTP, for any AWS SDK and the AWS CLI;
//! * [`Queues::create`], [`Queues::send`] and [`Queues::messages`]: direct calls in tests.
//!
//! The fake Lambda sends its failure records to a queue through [`Destination`](crate::destination::Destination).
//!
//! The crate `fakecloud-sqs` also emulates SQS in process. It is not used here because of its license (AGPL).
//!
//! ```
//! use std::sync::Arc;
//! use streamer::ports::{SystemClock, SystemEntropy};
//! use streamer_fakes::sqs::Queues;
//!
//! let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
//! let queues = Queues::in_memory(clock, entropy, "us-east-1", "000000000000")?;
//! queues.create("failures", [])?;
//! queues.send("failures", "a message")?;
//! assert_eq!(queues.messages("failures")?[0].body, "a message");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Differences from AWS
//!
//! * FIFO queues are refused. Operations on tags and permissions are refused with `UnknownOperationException`.
//! * Messages are received in the order in which they were sent. No message is received twice within its visibility
//!   timeout. The attributes with message counts are exact. AWS guarantees none of these.
//! * A message that moves to a dead-letter queue starts there with a receive count of zero. No source says whether AWS
//!   resets the count.
//! * A queue that was deleted can be created again immediately; AWS refuses this for 60 seconds.
//! * A message move task is finished when the call that starts the task returns. The requested rate has no effect.
//! * Signatures are not checked, and neither is the account in a queue URL. The older query protocol is not supported.

mod api;
mod attributes;
mod batch;
mod call;
mod direct;
mod error;
mod http;
mod message;
mod moves;
mod queue;
mod queues;
mod receipt;
mod receive;
mod request;
mod response;
mod send;
mod state;
mod store;

pub use queues::{Message, QueueError, Queues};
