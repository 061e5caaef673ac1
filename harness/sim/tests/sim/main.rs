//! Tests of the simulator: determinism, reports, fixed seeds, plan files, and users' own apps.

#![expect(clippy::unwrap_used, reason = "test helpers fail by a panic, as tests do")]

mod determinism;
mod overload;
mod reports;
mod seeds;
mod users;
