//! The demo application: its handlers, registered once, for the router and the processor alike.

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

/// The demo's actions: `echo` answers at once; `generate_report`, `process_data` and `echo_async` are queued; `index_archive`
/// goes on from checkpoints, and `charge_card` is tried again.
///
/// # Errors
/// When an action is registered twice, which the test below rules out.
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

/// Answers with what it was sent.
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
