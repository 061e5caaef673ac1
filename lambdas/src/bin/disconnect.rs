//! The `disconnect` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::disconnect()
}
