//! The `processor` Lambda function: receives the batches of the requests table's stream, runs short requests,
//! and dispatches long requests to the worker.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::processor(streamer_lambdas::app()?)
}
