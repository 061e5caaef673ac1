//! Panics in a world: handlers panic on purpose, and ten thousand worlds are not to fill a terminal with that.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A panic that has happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Panicked {
    /// The source file.
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) message: String,
}

impl Panicked {
    /// Whether it is Streamer's own code that has panicked: the crates that lie where this one does.
    pub(super) fn is_of_streamer(&self) -> bool {
        let ours = file!().strip_suffix("harness/sim/src/panics.rs").unwrap_or_default();
        let within = self.file.strip_prefix(ours).unwrap_or_default();
        within.starts_with("harness/") || within.starts_with("core/")
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

thread_local! {
    /// The panics of the world that lives on this thread; none where no world does.
    static SEEN: RefCell<Option<Vec<Panicked>>> = const { RefCell::new(None) };
}

/// Runs a world on this thread: what it returns, unless it unwinds, and what has panicked meanwhile without a word on the
/// terminal.
pub(super) fn watched<T>(world: impl FnOnce() -> T) -> (Option<T>, Vec<Panicked>) {
    watch();
    SEEN.set(Some(Vec::new()));
    let outcome = catch_unwind(AssertUnwindSafe(world));
    let seen = SEEN.take().unwrap_or_default();
    (outcome.ok(), seen)
}

/// Panics of other threads are told as before.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !note(info) {
                before(info);
            }
        }));
    });
}

/// Whether a world lives on this thread, whose panics are kept.
fn note(info: &PanicHookInfo<'_>) -> bool {
    let (file, line) = info.location().map_or_else(Default::default, |at| (at.file().to_owned(), at.line()));
    let panicked = Panicked { file, line, message: message(info.payload()) };
    // A thread that ends has no world any more.
    let noted = SEEN.try_with(|seen| match seen.try_borrow_mut().as_deref_mut() {
        Ok(Some(seen)) => {
            seen.push(panicked);
            true
        }
        Ok(None) | Err(_) => false,
    });
    noted.unwrap_or(false)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}
