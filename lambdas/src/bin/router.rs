//! Lambda function for the messages of clients: answers quick requests, and queues slow requests.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::router(streamer_lambdas::app()?)
}
