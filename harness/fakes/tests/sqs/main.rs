//! Tests of the SQS fake through the AWS SDK, in process and over HTTP. Tests without a socket run on a paused clock.
#![cfg(test)]

mod errors;
mod faults;
mod queues;
mod redrive;
mod stage;
mod visibility;
