//! Streamer.

pub mod ports;
