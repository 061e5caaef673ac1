//! The `disconnect` Lambda function: handles `$disconnect`: deletes the connection, and ends its subscriptions.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::disconnect()
}
