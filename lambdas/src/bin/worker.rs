//! The `worker` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::worker(streamer_lambdas::app()?)
}
