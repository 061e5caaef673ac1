//! AWS on a laptop, one fake per service: what a Streamer stage is built from.
//!
//! Each fake follows the facts in `docs/fidelity.md`. It knows nothing of templates, stages or simulations; those are
//! built on top, by `streamer-harness` and `streamer-sim`. Tests depend on `streamer-harness`, which re-exports these modules.
//!
//! 1. [`dynamodb`] with its streams, [`sqs`], the WebSocket [`gateway`], and [`lambda`] with its [`event_source`] mappings.
//! 2. [`faults`] injects errors, delays and crashes into the calls of a [`caller`], a function's environment.
//! 3. [`observe`] tells an observer what the fakes do.

pub mod aws_format;
pub mod caller;
pub mod destination;
pub mod dynamodb;
pub mod event_source;
pub mod faults;
pub mod gateway;
pub mod lambda;
pub mod observe;
mod sdk;
pub mod sqs;
pub mod watch;
