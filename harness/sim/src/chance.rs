//! Seeded random generators, which return the same numbers on every machine.

use std::hash::Hasher as _;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use fastrand::Rng;
use fnv::FnvHasher;
use streamer::ports::Entropy;

/// Returns a generator for one purpose, derived from the seed. Generators of different purposes are
/// independent: drawing more from one does not change the numbers of another.
pub(super) fn rng(seed: u64, purpose: &str) -> Rng {
    let mut hasher = FnvHasher::default();
    hasher.write(&seed.to_le_bytes());
    hasher.write(purpose.as_bytes());
    Rng::with_seed(hasher.finish())
}

/// Source of a simulated stage's ids, seeded so that each run of a plan draws the same ids.
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

/// Seeded random generator for payloads. [`Sim::requests`](super::Sim::requests) passes the generator to the
/// closure that makes a payload.
#[derive(Debug)]
pub struct Chance(Rng);

impl Chance {
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(rng(seed, purpose))
    }

    /// Returns a uniformly distributed number in `range`.
    ///
    /// # Panics
    /// If `range` is empty.
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.u64(range)
    }

    /// Returns true with probability 1/`times`. If `times` is 0, always returns false.
    pub fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.0.u64(0..times) == 0
    }

    /// Returns a random element of `choices`.
    ///
    /// # Panics
    /// If `choices` is empty.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.0.usize(0..choices.len())]
    }
}
