//! Holds the guide to the library: `cargo test` compiles each of its Rust blocks as a test of this package.

#[cfg(doctest)]
#[doc = include_str!("guide.md")]
pub struct Guide;

/// Stands for the application that the guide writes.
///
/// # Errors
/// Never.
pub fn app() -> Result<streamer::app::App, streamer::app::RegisterError> {
    Ok(streamer::app::App::new())
}
