//! Generates data for the demo actions. The same name gives the same data on every machine.

use std::time::Duration;

/// The pseudorandom number generator `SplitMix64`.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Makes a generator whose numbers depend on every byte of `name`.
    pub(crate) fn named(name: &str) -> Self {
        let seed = name.bytes().fold(0, |seed: u64, byte| Self(seed ^ u64::from(byte)).next());
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `bound` - 1. Panics if `bound` is zero.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Waits 40 ms, the simulated time that a data source takes to return one page.
pub(crate) async fn page_latency() {
    tokio::time::sleep(Duration::from_millis(40)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_generate_equal_numbers_and_different_names_do_not() {
        let three = |name: &str| {
            let mut numbers = Numbers::named(name);
            [numbers.next(), numbers.next(), numbers.next()]
        };
        assert_eq!(three("d-1"), three("d-1"));
        assert_ne!(three("d-1"), three("d-2"));
        // The reference implementation of SplitMix64 returns this number first for the seed 0.
        assert_eq!(Numbers(0).next(), 0xe220_a839_7b1d_cdaf);
    }
}
