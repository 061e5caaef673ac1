//! The stage on a laptop.

pub mod dynamodb;
pub mod gateway;
pub mod lambda;
pub mod template;
