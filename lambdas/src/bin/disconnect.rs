//! Lambda function for `$disconnect` events: deletes the connection, and ends its subscriptions.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::disconnect()
}
