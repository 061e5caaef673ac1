//! What happened, as text.

use std::fmt::Write as _;

use super::event::Event;

/// A line for each event.
pub(super) fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let _ = writeln!(text, "{} {:?}", event.at.as_millis(), event.kind);
    }
    text
}
