//! The `sweeper` Lambda function: runs once a minute, and handles the due requests, such as retries and expired
//! leases.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::sweeper()
}
