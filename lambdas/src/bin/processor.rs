//! The `processor` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::processor(streamer_lambdas::app()?)
}
