//! The six Lambda functions: connect, disconnect, router, processor, worker and sweeper.
//!
//! Each Lambda function implements the trait [`Function`], which has methods to read settings from environment
//! variables and to handle events. [`lambda`](crate::lambda) runs the functions on AWS. Tests run the same functions
//! in the test's own process.

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
