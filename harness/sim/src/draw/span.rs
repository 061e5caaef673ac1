//! How long faults may strike in a world.

use fastrand::Rng;

use super::random::ms_of_any_order;

/// How long faults may strike in a world, and what that leaves room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Span {
    /// Minutes, as almost all: time in which nothing happens costs as much as time in which something does.
    Minutes,
    /// Longer than a connection may be idle, and than one invocation lasts.
    Invocations,
    /// Longer than a connection lives.
    Connections,
}

impl Span {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.u32(0..100) {
            0 => Self::Connections,
            1..=4 => Self::Invocations,
            _ => Self::Minutes,
        }
    }

    pub(super) fn faults_until_ms(self, rng: &mut Rng) -> u64 {
        const MINUTE: u64 = 60_000;
        match self {
            Self::Minutes => ms_of_any_order(rng, 40_000, 480_000),
            Self::Invocations => rng.u64(13 * MINUTE..35 * MINUTE),
            Self::Connections => rng.u64(125 * MINUTE..150 * MINUTE),
        }
    }
}
