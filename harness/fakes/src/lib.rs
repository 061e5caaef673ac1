//! Fakes of the AWS services that Streamer uses, for running on a laptop and in tests.
//!
//! Each fake follows the facts listed in `docs/fidelity.md`. The fakes do not depend on templates, stages or
//! simulations, which `streamer-harness` and `streamer-sim` build on top of the fakes. Tests depend on
//! `streamer-harness`, which re-exports these modules.
//!
//! 1. Services: [`dynamodb`] with its streams, [`sqs`], the WebSocket [`gateway`], and [`lambda`] with its
//!    [`event_source`] mappings.
//! 2. Faults: [`faults`] injects errors, delays and crashes into calls. A [`caller`] identifies the execution
//!    environment that makes a call.
//! 3. Observation: [`observe`] reports each action of the fakes to an observer.

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
