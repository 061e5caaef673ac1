//! A channel for the latest value, like tokio's `watch`, that wakes waiting receivers in the order in which they
//! began to wait.
//!
//! Tokio's `watch` wakes receivers in a random order. With a random order, two simulated runs of one seed would
//! differ.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Sending half of a channel, which sets the channel's value. All clones set the same value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Receiving half of a channel, which reads the channel's value and waits for changes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Version of the last value that this receiver has seen.
    seen: u64,
}

/// Error of waiting on a channel whose senders were all dropped: the value can no longer change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Closed;

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    senders: usize,
}

/// Read guard of a channel's value. Senders wait until the guard is dropped.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Shared<T> {
    fn state(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State<T>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self) -> u64 {
        self.state().version
    }
}

/// Creates a channel with an initial value, and returns its two halves. The receiver has seen the initial value.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Creates a channel with an initial value and without receivers.
    #[must_use]
    pub fn new(value: T) -> Self {
        let state = RwLock::new(State { value, version: 0, senders: 1 });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// Creates a receiver that has seen the current value. [`Receiver::changed`] waits for the next value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.0), seen: self.0.version() }
    }

    /// Returns a read guard of the current value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.state())
    }

    /// Sets the value, notifies the receivers, and returns the previous value.
    pub fn send_replace(&self, value: T) -> T {
        let mut previous = value;
        self.send_modify(|current| std::mem::swap(current, &mut previous));
        previous
    }

    /// Modifies the value in place and notifies the receivers.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Modifies the value in place, and notifies the receivers only if `change` returns `true`. Returns the result
    /// of `change`.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.state_mut();
        let modified = change(&mut state.value);
        if modified {
            state.version += 1;
            drop(state);
            self.0.changed.notify_waiters();
        }
        modified
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state_mut().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state_mut();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.changed.notify_waiters();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0.state().value).finish()
    }
}

impl<T> Receiver<T> {
    /// Returns a read guard of the current value, without marking the value as seen.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.state())
    }

    /// Returns a read guard of the current value, and marks the value as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state();
        self.seen = state.version;
        Ref(state)
    }

    /// Marks the current value as seen, so that [`changed`](Self::changed) waits for the next value.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version();
    }

    /// Waits until the channel has a value that this receiver has not seen, and marks the value as seen.
    ///
    /// # Errors
    /// [`Closed`] if the current value is seen and all senders were dropped.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Register for the notification before the check: a change right after the check is then not missed.
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.senders == 0 {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Waits until `is_wanted` returns `true` for the channel's value, and returns a read guard of this value. The
    /// current value is checked first.
    ///
    /// # Errors
    /// [`Closed`] if `is_wanted` returns `false` for the last value and all senders were dropped.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                self.seen = state.version;
                if is_wanted(&state.value) {
                    return Ok(Ref(state));
                }
                if state.senders == 0 {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.shared.state().value).finish()
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("channel closed: all senders were dropped")
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn watch_receivers_are_woken_in_the_order_in_which_they_began_to_wait() {
        for _ in 0..20 {
            let sender = Sender::new(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks = (0..16).map(|number| {
                let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.lock().unwrap().push(number);
                })
            });
            let tasks: Vec<_> = tasks.collect();
            tokio::task::yield_now().await;
            sender.send_replace(1);
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.lock().unwrap(), (0..16).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn watch_receiver_reports_each_change_once_until_the_last_sender_is_dropped() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!(sender.send_replace(2), 1);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.changed().now_or_never(), None);
        sender.send_modify(|value| *value += 1);
        receiver.mark_unchanged();
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!((*receiver.borrow(), *sender.borrow()), (3, 3));
        assert!(receiver.wait_for(|value| *value == 4).now_or_never().is_none());

        let other = sender.clone();
        drop(sender);
        let waiting = tokio::spawn(async move {
            let found = receiver.wait_for(|value| *value == 4).await.map(|value| *value);
            (found, receiver)
        });
        tokio::task::yield_now().await;
        other.send_replace(4);
        let (found, mut receiver) = waiting.await.unwrap();
        assert_eq!(found, Ok(4));
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
    }
}
