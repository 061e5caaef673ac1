//! Threads on which worlds run.

use std::sync::mpsc;
use std::thread::{self, Scope};

/// Stack size of a thread. The embedded database parses expressions recursively, and in debug builds deeply
/// nested futures need much stack.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Starts a thread in `scope`, with a stack that is large enough for a world.
pub(super) fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    work: impl FnOnce() + Send + 'scope,
) {
    let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
    thread.spawn_scoped(scope, work).expect("the operating system can start another thread");
}

/// Threads that process one item at a time each. Each thread is reused for many items, because its one-time
/// initialization is slow.
pub(super) struct Pool<T, R>(Vec<(mpsc::Sender<T>, mpsc::Receiver<R>)>);

/// Runs `lead` with a pool of `threads` threads, each of which calls `work` for its items. The threads end
/// when `lead` returns.
pub(super) fn with_pool<T: Send, R: Send, O>(
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
    lead: impl FnOnce(&Pool<T, R>) -> O,
) -> O {
    let work = &work;
    thread::scope(|scope| {
        let members = (0..threads.max(1)).map(|number| {
            let (give, given) = mpsc::channel::<T>();
            let (send, results) = mpsc::channel();
            let work_all = move || {
                for item in given {
                    if send.send(work(&item)).is_err() {
                        break;
                    }
                }
            };
            spawn(scope, format!("world pool {number}"), work_all);
            (give, results)
        });
        lead(&Pool(members.collect()))
    })
}

impl<T: Clone, R> Pool<T, R> {
    /// Returns the number of threads.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Processes the items concurrently, and returns the results in the order of the items. There must be at
    /// most [`len`](Self::len) items.
    pub(super) fn do_all(&self, items: &[T]) -> Vec<R> {
        for ((give, _), item) in self.0.iter().zip(items) {
            // If the thread has ended, receiving its result fails below.
            let _ = give.send(item.clone());
        }
        let done = self.0.iter().take(items.len());
        done.map(|(_, results)| results.recv().expect("a pool thread catches the panics of its work"))
            .collect()
    }
}
