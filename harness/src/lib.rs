//! Runs a whole stage on a laptop: DynamoDB with its streams, the WebSocket gateway, Lambda with its event
//! source mappings, and SQS.
//!
//! A stage is one complete installation of Streamer: its tables, queues, functions and WebSocket gateway. The
//! harness makes a local stage from the SAM template that also deploys to AWS, and replaces each AWS service
//! with a fake. If a stage has an app and no [`.template(…)`](stage::StageBuilder::template), the built-in
//! template is used, which describes the same stage as `lambdas/template.yaml`. There are two kinds of local
//! stage:
//!
//! - An in-process stage is for tests. It starts in milliseconds, opens no socket, and follows tokio's clock,
//!   which a test may pause.
//! - A stage of executables runs each function as a process and serves on a port, as the command `streamer
//!   local` does. It follows the machine's clock.
//!
//! # A test in process
//!
//! This program starts a stage with one handler, connects a client as the user `ann`, sends a request and
//! waits for its result:
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
//! # The modules, in reading order
//!
//! 1. [`stage`] builds and runs a stage. Start with [`Stage::builder`](stage::Stage::builder).
//! 2. [`client`] is the WebSocket client of tests, and [`signing_key`] signs the tokens that clients connect
//!    with.
//! 3. [`faults`] injects faults: calls that fail, hang or arrive late, and killed functions.
//! 4. [`template`] reads the SAM template.
//! 5. [`tables`] creates, compares and deletes DynamoDB tables, on a local stage or on AWS.
//! 6. [`dynamodb`], [`gateway`], [`lambda`], [`event_source`] and [`sqs`] are the fakes. The fakes
//!    send records of finished invocations to a [`destination`], a queue or a function, and announce their
//!    state through [`watch`], a channel that wakes its receivers in a deterministic order.
//!
//! The crate `streamer-sim` runs the same stage under a seeded simulator.

pub mod client;
pub mod signing_key;
pub mod stage;
pub mod tables;
pub mod template;

pub use streamer_fakes::{destination, dynamodb, event_source, faults, gateway, lambda, sqs, watch};
