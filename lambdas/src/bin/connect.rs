//! The `connect` Lambda function: handles `$connect`: verifies the token, and stores the connection.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::connect()
}
