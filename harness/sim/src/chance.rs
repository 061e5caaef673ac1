//! Chance, from a seed: the same numbers on every machine.

use std::hash::Hasher as _;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use fastrand::Rng;
use fnv::FnvHasher;
use streamer::ports::Entropy;

/// A generator for one purpose. Purposes of one seed do not disturb each other: what one of them draws more of
/// changes nothing for the others.
pub(super) fn rng(seed: u64, purpose: &str) -> Rng {
    let mut hasher = FnvHasher::default();
    hasher.write(&seed.to_le_bytes());
    hasher.write(purpose.as_bytes());
    Rng::with_seed(hasher.finish())
}

/// The source of ids of a stage that is simulated.
#[derive(Debug)]
pub(super) struct Seeded(Mutex<Rng>);

impl Seeded {
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(Mutex::new(rng(seed, purpose)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

/// What is left to chance in a payload, from the world's seed: see [`Sim::requests`](super::Sim::requests).
#[derive(Debug)]
pub struct Chance(Rng);

impl Chance {
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(rng(seed, purpose))
    }

    /// A number of the range.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.u64(range)
    }

    /// True once in so many times; with 0, never.
    pub fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.0.u64(0..times) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// When there are none.
    pub fn one_of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.0.usize(0..these.len())]
    }
}
