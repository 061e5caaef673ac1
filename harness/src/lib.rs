//! The stage on a laptop.

pub mod client;
pub mod dynamodb;
pub mod event_source;
pub mod gateway;
pub mod lambda;
pub mod signing_key;
pub mod stage;
pub mod template;
