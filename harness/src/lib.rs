//! The stage on a laptop.

pub mod dynamodb;
pub mod event_source;
pub mod gateway;
pub mod lambda;
pub mod template;
