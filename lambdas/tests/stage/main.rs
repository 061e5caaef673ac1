//! The whole stage: the real functions as processes, the template that deploys, and clients on real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod connections;
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
use streamer_harness::signing_key::{SigningKey, TokenFor};
use streamer_harness::stage::{Executables, Stage, StageConfig, listen};

/// Longer than any frame takes on a busy machine; what comes in time is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(data: Option<&Path>) -> StageConfig {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("template.yaml");
    let key = SigningKey::generate().unwrap();
    let mut config = StageConfig::new(template, Executables::of_this_test(), key, listen(0).unwrap());
    config.data = data.map(Path::to_owned);
    config.log = Arc::new(CapturedLog::new());
    config
}

async fn stage() -> Stage {
    Stage::start(config(None)).await.unwrap()
}

fn token(stage: &Stage, user: &str) -> String {
    let ttl = Duration::from_hours(1);
    stage.token(&TokenFor { user: user.into(), tenant: "acme".into(), permissions: Vec::new(), ttl })
}

async fn client(stage: &Stage, user: &str) -> Client {
    Client::connect(&stage.ws_url(), &token(stage, user)).await.unwrap()
}

/// Asks, and returns every frame until the request has ended.
async fn ask(client: &mut Client, action: &str, id: &str, payload: Value) -> Vec<Frame> {
    client.request(action, id, &payload).await.unwrap();
    until_the_end(client).await
}

async fn until_the_end(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !frames.last().is_some_and(Frame::is_terminal) {
        frames.push(client.next_frame(PATIENCE).await.unwrap());
    }
    frames
}
