//! The whole stage on a laptop: DynamoDB with its streams, the WebSocket gateway, Lambda and its event source
//! mappings, made from the SAM template that deploys.
//!
//! In process, a stage starts in milliseconds, needs no sockets, and lives on tokio's clock, which a test may pause:
//!
//! ```
//! use serde_json::{Value, json};
//! use streamer::app::App;
//! use streamer::handler::HandlerError;
//! use streamer_harness::signing_key::TokenFor;
//! use streamer_harness::stage::Stage;
//!
//! async fn echo(message: Value) -> Result<Value, HandlerError> {
//!     Ok(message)
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut app = App::new();
//!     app.handle("echo", echo)?;
//!     let stage = Stage::builder().app(app).start().await?;
//!     let mut ann = stage.connect(&TokenFor::new("ann", "acme")).await?;
//!     ann.request("echo", "r1", json!({"message": "hi"})).await?;
//!     assert_eq!(ann.complete("r1").await?, json!({"message": "hi"}));
//!     Ok(())
//! }
//! ```
//!
//! In reading order: [`stage`] puts together what [`template`] describes, out of [`dynamodb`], [`gateway`],
//! [`lambda`], [`event_source`] and [`sqs`]; [`sim`] has all go wrong with it, from a seed; [`tables`] makes the template's tables anywhere; [`client`] and [`signing_key`] are for whoever talks to it.

mod aws_format;
mod caller;
pub mod client;
pub mod destination;
pub mod dynamodb;
pub mod event_source;
pub mod faults;
pub mod gateway;
pub mod lambda;
mod observe;
mod sdk;
pub mod signing_key;
pub mod sim;
pub mod sqs;
pub mod stage;
pub mod tables;
pub mod template;
pub mod watch;
