//! The `sweeper` function.

fn main() -> Result<(), streamer::lambda::Error> {
    streamer::lambda::sweeper()
}
