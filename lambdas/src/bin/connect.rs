//! The `connect` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::connect()
}
