//! Lambda function that runs one long request per invocation.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::worker(streamer_lambdas::app()?)
}
