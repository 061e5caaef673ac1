//! Lambda function for `$connect` events: verifies the token, and stores the connection.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::connect()
}
