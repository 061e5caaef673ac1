//! End-to-end tests of the whole stage: the real functions as processes, the deployed template, and clients on
//! real sockets.

#![expect(clippy::unwrap_used, reason = "a panic in a test helper fails the test")]

mod connections;
mod crashes;
mod failures;
mod hostile;
mod requests;
mod restart;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use streamer::protocol::Frame;
use streamer_harness::client::Client;
use streamer_harness::lambda::CapturedLog;
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::{Executables, Stage, StageBuilder};

/// Maximum wait in a test, with a margin for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn builder(data: Option<&Path>) -> StageBuilder {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("template.yaml");
    let builder = Stage::builder()
        .template(template)
        .executables(Executables::from_cargo_test())
        .log(Arc::new(CapturedLog::new()));
    match data {
        Some(folder) => builder.data(folder),
        None => builder,
    }
}

async fn stage() -> Stage {
    builder(None).start().await.unwrap()
}

fn token(stage: &Stage, user: &str) -> String {
    let ttl = Duration::from_hours(1);
    stage.token(&TokenFor { user: user.into(), tenant: "acme".into(), permissions: Vec::new(), ttl })
}

async fn client(stage: &Stage, user: &str) -> Client {
    Client::connect(&stage.ws_url(), &token(stage, user)).await.unwrap()
}

/// Sends a request, and returns the frames up to its terminal frame.
async fn ask(client: &mut Client, action: &str, id: &str, payload: Value) -> Vec<Frame> {
    client.request(action, id, &payload).await.unwrap();
    until_terminal(client).await
}

/// Returns the frames up to the next terminal frame.
async fn until_terminal(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !frames.last().is_some_and(Frame::is_terminal) {
        frames.push(client.next_frame().await.unwrap());
    }
    frames
}
