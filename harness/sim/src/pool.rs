//! Threads that worlds live on.

use std::sync::mpsc;
use std::thread::{self, Scope};

/// The embedded database parses expressions by recursion, and so do debug builds' futures poll each other.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Has a thread of this scope do the work, with room for a world.
pub(super) fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    work: impl FnOnce() + Send + 'scope,
) {
    let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
    thread.spawn_scoped(scope, work).expect("the machine has room for another thread");
}

/// Threads that each do one thing at a time, for as long as they are needed: what a thread makes once, it makes once.
pub(super) struct Pool<T, R>(Vec<(mpsc::Sender<T>, mpsc::Receiver<R>)>);

/// Has a pool of so many threads do `work`, for as long as `lead` lasts.
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
            spawn(scope, format!("pool {number}"), work_all);
            (give, results)
        });
        lead(&Pool(members.collect()))
    })
}

impl<T: Clone, R> Pool<T, R> {
    /// How many things are done at once.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Does the work for each item, of which there are no more than [threads](Self::len).
    pub(super) fn do_all(&self, items: &[T]) -> Vec<R> {
        for ((give, _), item) in self.0.iter().zip(items) {
            // A thread that has ended shows below.
            let _ = give.send(item.clone());
        }
        let done = self.0.iter().take(items.len());
        done.map(|(_, results)| results.recv().expect("a world's panics are caught")).collect()
    }
}
