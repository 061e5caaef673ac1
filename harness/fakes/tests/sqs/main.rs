//! The queues, by way of the AWS SDK in process and over HTTP, in paused time where no socket is involved.
#![cfg(test)]

mod errors;
mod faults;
mod queues;
mod redrive;
mod stage;
mod visibility;
