use streamer::app::App;
use streamer::handler::{Context, HandlerError, handler_fn};

struct Printed {
    pages: u32,
}

async fn print(pages: u32, _: Context) -> Result<Printed, HandlerError> {
    Ok(Printed { pages })
}

fn main() {
    let handler = handler_fn(print);
    App::new().handle("print", handler).unwrap();
}
