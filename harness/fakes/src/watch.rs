//! A channel for the latest value, as tokio's `watch`, which wakes those who wait in the order in which they came: tokio's
//! leaves the order to chance, and with it what a simulated stage does next.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Sets the value; all clones set the same one.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value, and waits for another.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Which of its values it has seen.
    seen: u64,
}

/// There is no sender any more.
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

/// The value, which nobody can set meanwhile.
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

/// A channel with its first value, and one who watches it.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A channel with its first value, and nobody who watches it yet.
    #[must_use]
    pub fn new(value: T) -> Self {
        let state = RwLock::new(State { value, version: 0, senders: 1 });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// One who has seen the present value, and is told of those to come.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.0), seen: self.0.version() }
    }

    /// The present value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.state())
    }

    /// Sets the value, and returns the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|present| std::mem::swap(present, &mut before));
        before
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, which others are told of if `change` says that it has.
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
    /// The present value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.state())
    }

    /// The present value, which is seen now.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state();
        self.seen = state.version;
        Ref(state)
    }

    /// Has [`changed`](Self::changed) wait for what comes after the present value.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version();
    }

    /// Waits for a value that was not seen yet, which is seen then.
    ///
    /// # Errors
    /// When none can come any more.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Before the look, so that it misses nothing.
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

    /// Waits for a value that is as wanted.
    ///
    /// # Errors
    /// When none can come any more.
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
        f.write_str("there is nobody any more who could set the value")
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        for _ in 0..20 {
            let sender = Sender::new(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let waits = (0..16).map(|number| {
                let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.lock().unwrap().push(number);
                })
            });
            let waits: Vec<_> = waits.collect();
            tokio::task::yield_now().await;
            sender.send_replace(1);
            for wait in waits {
                wait.await.unwrap();
            }
            assert_eq!(*order.lock().unwrap(), (0..16).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_value_is_told_once_and_the_end_of_all_senders_always() {
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
