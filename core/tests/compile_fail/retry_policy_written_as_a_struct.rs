use std::time::Duration;

use serde_json::Value;
use streamer::app::App;
use streamer::handler::{HandlerError, RetryPolicy, handler_fn};

fn main() {
    let echo = handler_fn(|message: Value, _| async move { Ok::<_, HandlerError>(message) });
    let policy = RetryPolicy { max_attempts: 5, base: Duration::from_secs(10), ..RetryPolicy::default() };
    App::new().handle("echo", echo.retry(policy)).unwrap();
}
