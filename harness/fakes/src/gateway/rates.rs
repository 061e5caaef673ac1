//! How often an API may be called: API Gateway's token buckets.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::config::{ApiConfig, Route};
use super::throttle::Throttle;

/// The bucket of one throttle. Rather than to count tokens, it keeps when it will be full again.
#[derive(Debug)]
struct Bucket {
    throttle: Throttle,
    full_at: Mutex<Option<Instant>>,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Self { throttle, full_at: Mutex::new(None) }
    }

    /// Takes a token, if there is one.
    fn take(&self, now: Instant) -> bool {
        let Throttle { interval, burst } = self.throttle;
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.map_or(now, |full_at| full_at.max(now)).checked_add(interval);
        let Some(next) = next.filter(|next| *next - now <= interval.saturating_mul(burst)) else {
            return false;
        };
        *full_at = Some(next);
        burst > 0
    }
}

/// The throttles of one API, each with its bucket.
#[derive(Debug)]
pub(super) struct Rates {
    connections: Bucket,
    requests: Bucket,
    routes: BTreeMap<String, Bucket>,
}

impl Rates {
    pub(super) fn new(config: &ApiConfig) -> Self {
        let routes = config.routes.iter().filter_map(|route| {
            let throttle = route.throttle?;
            Some((route.key.clone(), Bucket::new(throttle)))
        });
        Self {
            connections: Bucket::new(config.limits.connections),
            requests: Bucket::new(config.limits.requests),
            routes: routes.collect(),
        }
    }

    /// Whether one more connection may be asked for now.
    pub(super) fn connection(&self, route: Option<&Route>) -> bool {
        self.request(route) && self.connections.take(Instant::now())
    }

    /// Whether one more request is let through now: a message for `route`, or a call of the management API.
    pub(super) fn request(&self, route: Option<&Route>) -> bool {
        let now = Instant::now();
        let bucket = route.and_then(|route| self.routes.get(&route.key));
        // What its route refuses does not use up what all share.
        bucket.is_none_or(|bucket| bucket.take(now)) && self.requests.take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let bucket = Bucket::new(Throttle::per_second(4.0, 3));
        let start = Instant::now();
        let taken = |millis| bucket.take(start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(taken), [true, true, true, false]);
        assert_eq!([249, 250, 251, 500].map(taken), [false, true, false, true]);
        assert_eq!([60_000; 4].map(taken), [true, true, true, false], "it is never more than full");
    }

    #[test]
    fn a_burst_or_a_rate_of_nothing_lets_nothing_or_no_more_through() {
        let now = Instant::now();
        assert!(!Bucket::new(Throttle::per_second(1_000.0, 0)).take(now));
        for rate in [0.0, -1.0, f64::NAN, 1e-300] {
            let bucket = Bucket::new(Throttle::per_second(rate, 1));
            assert_eq!(
                [bucket.take(now), bucket.take(now + Duration::from_secs(1))],
                [true, false],
                "{rate}"
            );
        }
        assert!(Bucket::new(Throttle::per_second(f64::INFINITY, 1)).take(now));
    }
}
