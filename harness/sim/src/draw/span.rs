//! Length of the time in which faults may be injected in a world.

use fastrand::Rng;

use super::random::ms_of_any_order;

/// Length of the time in which faults may be injected, chosen so that some worlds reach the longer time
/// limits of AWS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Span {
    /// 40 s to 8 min. Most worlds use this span, because idle virtual time costs as much to simulate as busy
    /// time.
    Minutes,
    /// 13 to 35 min: longer than the gateway's idle limit of a connection, and mostly longer than an
    /// invocation may last.
    Invocations,
    /// More than two hours: longer than the gateway keeps any connection open.
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
