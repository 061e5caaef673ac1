use streamer::app::App;
use streamer::handler::{Context, HandlerError, handler_fn};

struct Order {
    pages: u32,
}

async fn print(order: Order, _: Context) -> Result<u32, HandlerError> {
    Ok(order.pages)
}

fn main() {
    let handler = handler_fn(print);
    App::new().handle("print", handler).unwrap();
}
