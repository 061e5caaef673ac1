//! Lambda function that runs once a minute, and handles due requests, such as retries and expired leases.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::sweeper()
}
