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
//! [`lambda`], [`event_source`] and [`sqs`]; [`faults`] injects errors into their calls; [`tables`] creates the template's
//! tables at any endpoint; [`client`] and [`signing_key`] are for tests that talk to a stage. The crate `streamer-sim`
//! runs the same stage under a seeded simulator.

pub mod client;
pub mod signing_key;
pub mod stage;
pub mod tables;
pub mod template;

pub use streamer_fakes::{destination, dynamodb, event_source, faults, gateway, lambda, sqs, watch};
