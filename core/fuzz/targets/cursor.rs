//! Fuzzes the parser of list cursors. A caller passes a cursor back to request the next page of a list. No text makes
//! the parser panic, and a valid cursor is unchanged after it is formatted and parsed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use streamer::store::Cursor;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
});
