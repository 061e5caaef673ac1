use streamer::app::App;
use streamer::middleware::{BoxError, Call, Reply, from_fn};

async fn queue_all(_: Call) -> Result<Reply, BoxError> {
    Ok(Reply::BuiltIn)
}

fn main() {
    let layer = from_fn(queue_all);
    App::new().layer(layer);
}
