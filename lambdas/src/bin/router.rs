//! The `router` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::router(streamer_lambdas::app()?)
}
