use streamer::app::App;
use streamer::handler::{Context, handler_fn};

async fn print(pages: u32, _: Context) -> Result<u32, String> {
    Err(format!("out of paper after {pages} pages"))
}

fn main() {
    let handler = handler_fn(print);
    App::new().handle("print", handler).unwrap();
}
