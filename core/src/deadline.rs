//! The end of an invocation, and what has to be over before it.

use std::time::Duration;

/// How long before its invocation's end a function stops waiting and answers.
pub(crate) const LAST_MOMENT: Duration = Duration::from_millis(500);
