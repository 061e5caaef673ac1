//! A place in a list, which comes back from whoever was given it: none makes its reader panic, and one that is taken
//! is the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use streamer::store::Cursor;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
});
