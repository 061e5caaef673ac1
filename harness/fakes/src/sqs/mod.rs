//! SQS: the standard queues of a stage, as far as dead letters need them, on the stage's clock.
//!
//! One [`Queues`] is reached in three ways, which give the same answers:
//!
//! * [`Queues::http_client`]: any AWS SDK client in process, without sockets;
//! * [`Queues::router`] and [`Queues::in_front_of`]: the JSON protocol over HTTP, for any AWS SDK and the AWS CLI;
//! * [`Queues::create`], [`Queues::send`], [`Queues::messages`] for a test, and [`Destination`](crate::destination::Destination) for what Lambda gives up on.
//!
//! There is a crate that emulates SQS and could be embedded, `fakecloud-sqs`; its licence (AGPL) is not one of ours.
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
