//! Draws by which plans are made.

use fastrand::Rng;

/// Whether something happens whose probability is this.
pub(super) fn happens(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}

/// One of these.
pub(super) fn one_of<T: Clone>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.usize(..these.len())].clone()
}

/// A number between these, small ones as likely as large ones of the same order.
pub(super) fn of_any_order(rng: &mut Rng, least: f64, most: f64) -> f64 {
    let (least, most) = (least.ln(), most.ln());
    (least + rng.f64() * (most - least)).exp()
}

/// As [`of_any_order`], in whole milliseconds.
pub(super) fn ms_of_any_order(rng: &mut Rng, least: u32, most: u32) -> u64 {
    let ms = of_any_order(rng, least.into(), most.into());
    // What is between two numbers of 32 bits is one.
    std::time::Duration::from_secs_f64(ms / 1_000.0).as_millis().try_into().unwrap_or(u64::from(most))
}
