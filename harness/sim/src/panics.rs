//! Collects the panics of a world. Handlers panic on purpose, and thousands of worlds must not fill the
//! terminal with panic messages.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A panic that occurred in a world: its place in the source, and its message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Panicked {
    /// Source file of the panic, as the compiler names it.
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) message: String,
}

impl Panicked {
    /// Returns whether the code that panicked is Streamer's own: in `core`, or in a crate under `harness`.
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
    /// Panics of the world that runs on this thread; `None` while no world runs.
    static SEEN: RefCell<Option<Vec<Panicked>>> = const { RefCell::new(None) };
}

/// Runs a world on this thread, and keeps its panics off the terminal. Returns the world's result, or `None`
/// if the world itself panicked, and all panics that occurred.
pub(super) fn catch_panics<T>(world: impl FnOnce() -> T) -> (Option<T>, Vec<Panicked>) {
    install_hook();
    SEEN.set(Some(Vec::new()));
    let outcome = catch_unwind(AssertUnwindSafe(world));
    let seen = SEEN.take().unwrap_or_default();
    (outcome.ok(), seen)
}

/// Installs a panic hook, once. Panics of threads that run no world go to the previous hook.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !record_panic(info) {
                before(info);
            }
        }));
    });
}

/// Records a panic if a world runs on this thread. Returns whether the panic was recorded.
fn record_panic(info: &PanicHookInfo<'_>) -> bool {
    let (file, line) = info.location().map_or_else(Default::default, |at| (at.file().to_owned(), at.line()));
    let panicked = Panicked { file, line, message: message(info.payload()) };
    // A thread that is shutting down may have destroyed its thread-local values.
    let recorded = SEEN.try_with(|seen| match seen.try_borrow_mut().as_deref_mut() {
        Ok(Some(seen)) => {
            seen.push(panicked);
            true
        }
        Ok(None) | Err(_) => false,
    });
    recorded.unwrap_or(false)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}
