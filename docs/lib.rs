//! Checks `docs/guide.md` against the library: `cargo test` compiles each Rust block of the guide as a doctest of this
//! package.

#[cfg(doctest)]
#[doc = include_str!("guide.md")]
pub struct Guide;

/// Returns an empty app, in place of the app that the guide's reader writes; the guide's `main` functions call it.
///
/// # Errors
/// Never returns an error.
pub fn app() -> Result<streamer::app::App, streamer::app::RegisterError> {
    Ok(streamer::app::App::new())
}
