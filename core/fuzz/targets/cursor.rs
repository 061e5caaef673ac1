//! Fuzzes the parser of list cursors, which callers pass back to continue a list. No text makes the parser panic, and
//! a valid cursor is unchanged after it is formatted and parsed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use streamer::store::Cursor;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
});
