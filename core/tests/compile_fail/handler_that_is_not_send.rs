use std::cell::RefCell;
use std::rc::Rc;

use streamer::handler::{Context, Handler, HandlerError};

struct Print {
    printed: RefCell<u32>,
}

impl Handler for Print {
    type Input = u32;
    type Output = u32;

    async fn process(&self, pages: u32, _: Context) -> Result<u32, HandlerError> {
        let pages = Rc::new(pages);
        std::future::ready(()).await;
        *self.printed.borrow_mut() += *pages;
        Ok(*pages)
    }
}

fn main() {}
