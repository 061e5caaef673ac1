//! Lambda function for the stream of the requests table: runs short requests, and dispatches long requests to the
//! worker.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::processor(streamer_lambdas::app()?)
}
