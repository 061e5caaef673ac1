//! What clients ask of a user's own app, in place of the simulator's jobs.

use std::fmt;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::Value;

use super::chance::Chance;
use super::draw::Asked;

/// What may be asked for.
#[derive(Clone, Default)]
pub(super) struct Asks(Vec<Ask>);

#[derive(Clone)]
struct Ask {
    action: String,
    payload: Arc<dyn Fn(&mut Chance) -> Value + Send + Sync>,
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|ask| &ask.action)).finish()
    }
}

impl Asks {
    pub(super) fn add(
        &mut self,
        action: impl Into<String>,
        payload: impl Fn(&mut Chance) -> Value + Send + Sync + 'static,
    ) {
        self.0.push(Ask { action: action.into(), payload: Arc::new(payload) });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them, with a payload.
    ///
    /// # Panics
    /// When there are none.
    pub(super) fn ask(&self, rng: &mut Rng) -> Asked {
        let mut chance = Chance::of(rng.fork());
        let ask = chance.one_of(&self.0);
        Asked { action: ask.action.clone(), payload: (ask.payload)(&mut chance) }
    }
}
