//! Random draws from which plans are made.

use fastrand::Rng;

/// Returns true with the given probability, from 0 to 1.
pub(super) fn happens(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}

/// Returns a random element of `choices`.
pub(super) fn one_of<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// Returns a number between `least` and `most` whose logarithm is uniformly distributed, so that each order
/// of magnitude is equally likely.
pub(super) fn of_any_order(rng: &mut Rng, least: f64, most: f64) -> f64 {
    let (least, most) = (least.ln(), most.ln());
    (least + rng.f64() * (most - least)).exp()
}

/// Returns a number of whole milliseconds between `least` and `most`, distributed as by [`of_any_order`].
pub(super) fn ms_of_any_order(rng: &mut Rng, least: u32, most: u32) -> u64 {
    let ms = of_any_order(rng, least.into(), most.into());
    // The result lies between two `u32` values, so the conversion cannot fail.
    std::time::Duration::from_secs_f64(ms / 1_000.0).as_millis().try_into().unwrap_or(u64::from(most))
}
