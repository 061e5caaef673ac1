use streamer::handler::{Context, Handler, HandlerError};

struct Print;

impl Handler for Print {
    type Output = u32;

    async fn process(&self, pages: u32, _: Context) -> Result<u32, HandlerError> {
        Ok(pages)
    }
}

fn main() {}
