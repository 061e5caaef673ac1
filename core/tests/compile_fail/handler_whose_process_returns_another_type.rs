use streamer::handler::{Context, Handler, HandlerError};

struct Print;

impl Handler for Print {
    type Input = u32;
    type Output = u32;

    async fn process(&self, pages: u32, _: Context) -> Result<String, HandlerError> {
        Ok(format!("{pages} pages"))
    }
}

fn main() {}
