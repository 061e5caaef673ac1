use std::convert::Infallible;

use streamer::app::App;
use streamer::middleware::{Call, Layer, Next};
use tower::util::service_fn;

struct Shortcut;

impl Layer<Next> for Shortcut {
    type Service = tower::util::ServiceFn<fn(Call) -> std::future::Ready<Result<String, Infallible>>>;

    fn layer(&self, _: Next) -> Self::Service {
        service_fn(|call: Call| std::future::ready(Ok(call.context.action)))
    }
}

fn main() {
    App::new().layer(Shortcut);
}
