//! The whole stage on a laptop: DynamoDB with its streams, the WebSocket gateway, Lambda and its event source
//! mappings, made from the SAM template that deploys.
//!
//! ```no_run
//! use std::time::Duration;
//! use serde_json::json;
//! use streamer_harness::client::Client;
//! use streamer_harness::signing_key::{SigningKey, TokenFor};
//! use streamer_harness::stage::{Executables, Stage, StageConfig, listen};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let programs: Executables = [("connect", "target/debug/connect")].into_iter().collect();
//! let config = StageConfig::new("lambdas/template.yaml", programs, SigningKey::generate()?, listen(0)?);
//! let stage = Stage::start(config).await?;
//! let whom = TokenFor {
//!     user: "ann".into(), tenant: "acme".into(), permissions: vec![], ttl: Duration::from_secs(60),
//! };
//! let mut client = Client::connect(&stage.ws_url(), &stage.token(&whom)).await?;
//! client.request("echo", "r1", &json!({"message": "hi"})).await?;
//! println!("{:?}", client.next_frame(Duration::from_secs(5)).await?);
//! stage.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: [`stage`] puts together what [`template`] describes, out of [`dynamodb`], [`gateway`],
//! [`lambda`], [`event_source`] and [`sqs`]; [`tables`] makes the template's tables anywhere; [`client`] and [`signing_key`] are for whoever talks to it.

mod aws_forms;
pub mod client;
pub mod destination;
pub mod dynamodb;
pub mod event_source;
pub mod faults;
pub mod gateway;
pub mod lambda;
pub mod signing_key;
pub mod sqs;
pub mod stage;
pub mod tables;
pub mod template;
