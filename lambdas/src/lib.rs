//! The demo application: its handlers, which the router, the processor and the worker share.

pub mod charge_card;
pub mod echo_async;
mod generated;
pub mod index_archive;
pub mod process_data;
pub mod report;

use serde_json::Value;
use streamer::app::{App, RegisterError};
use streamer::handler::HandlerError;

use crate::charge_card::ChargeCard;
use crate::echo_async::EchoAsync;
use crate::index_archive::IndexArchive;
use crate::process_data::ProcessData;
use crate::report::GenerateReport;

/// Returns the demo application with its six actions. `echo` is quick, and all other actions are queued:
/// `generate_report`, `process_data`, `echo_async`, `index_archive` (continues from checkpoints) and
/// `charge_card` (is retried).
///
/// # Errors
/// [`RegisterError`] if two handlers have the same action. A unit test of this crate checks that no action
/// has two handlers.
pub fn app() -> Result<App, RegisterError> {
    let mut app = App::new();
    app.handle("echo", echo)?
        .handle("generate_report", GenerateReport)?
        .handle("process_data", ProcessData)?
        .handle("echo_async", EchoAsync)?
        .handle("index_archive", IndexArchive)?
        .handle("charge_card", ChargeCard)?;
    Ok(app)
}

/// Handles `echo`: returns the payload of the request.
async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

#[cfg(test)]
mod tests {
    #[test]
    fn demo_app_registers_six_actions() {
        assert_eq!(
            super::app().unwrap().actions(),
            ["charge_card", "echo", "echo_async", "generate_report", "index_archive", "process_data"]
        );
    }
}
