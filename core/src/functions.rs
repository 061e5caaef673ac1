//! The six functions: what each reads from its environment, and what it does with an event.
//!
//! [`lambda`](crate::lambda) runs them on AWS. A test runs the same [`Function`]s in its own process.

mod connect;
mod disconnect;
mod executor;
mod function;
mod processor;
mod reply;
mod router;
mod sweeper;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod tests;
mod worker;

pub use connect::{Connect, LambdaConnect};
pub use disconnect::{Disconnect, LambdaDisconnect};
pub use function::{Function, Host};
pub use processor::LambdaProcessor;
pub use router::LambdaRouter;
pub use sweeper::LambdaSweeper;
pub use worker::LambdaWorker;
