//! Streamer.

pub mod app;
pub mod auth;
pub mod aws;
pub mod config;
pub mod connections;
pub mod functions;
pub mod handler;
pub mod ids;
pub mod lambda;
pub mod ports;
pub mod processor;
pub mod progress;
pub mod protocol;
pub mod router;
pub mod store;
pub mod telemetry;
