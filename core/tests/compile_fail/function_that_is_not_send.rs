use std::rc::Rc;

use streamer::app::App;
use streamer::handler::{Context, HandlerError, handler_fn};

async fn print(pages: u32, context: Context) -> Result<u32, HandlerError> {
    let pages = Rc::new(pages);
    std::future::ready(()).await;
    context.progress.report(100.0, "Printed")?;
    Ok(*pages)
}

fn main() {
    let handler = handler_fn(print);
    App::new().handle("print", handler).unwrap();
}
