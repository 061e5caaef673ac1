use std::time::Duration;

use serde_json::Value;
use streamer::app::App;
use streamer::handler::{Context, HandlerError};

async fn echo(message: Value, _: Context) -> Result<Value, HandlerError> {
    Ok(message)
}

fn main() {
    App::new().handle("echo", echo.estimated(Duration::from_secs(20))).unwrap();
}
