//! Rate limits of an API, as token buckets like those of API Gateway.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::config::{ApiConfig, Route};
use super::throttle::Throttle;

/// Token bucket of one throttle. Instead of a token count, the bucket stores the time at which it will be
/// full.
#[derive(Debug)]
struct Bucket {
    throttle: Throttle,
    full_at: Mutex<Option<Instant>>,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Self { throttle, full_at: Mutex::new(None) }
    }

    /// Takes a token. Returns `false` if the bucket is empty.
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

/// Token buckets of one API: for new connections, for all requests, and for each route with its own throttle.
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

    /// Returns whether a handshake is allowed now, and takes a token from each bucket that applies.
    pub(super) fn connection(&self, route: Option<&Route>) -> bool {
        self.request(route) && self.connections.take(Instant::now())
    }

    /// Returns whether a request is allowed now, and takes a token from each bucket that applies.
    ///
    /// `route` is `None` for calls of the management API.
    pub(super) fn request(&self, route: Option<&Route>) -> bool {
        let now = Instant::now();
        let bucket = route.and_then(|route| self.routes.get(&route.key));
        // A request that is rejected by its route's bucket takes no token from the bucket for all requests.
        bucket.is_none_or(|bucket| bucket.take(now)) && self.requests.take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn token_bucket_allows_a_burst_immediately_and_then_the_steady_rate() {
        let bucket = Bucket::new(Throttle::per_second(4.0, 3));
        let start = Instant::now();
        let taken = |millis| bucket.take(start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(taken), [true, true, true, false]);
        assert_eq!([249, 250, 251, 500].map(taken), [false, true, false, true]);
        assert_eq!(
            [60_000; 4].map(taken),
            [true, true, true, false],
            "a bucket never holds more tokens than its burst"
        );
    }

    #[test]
    fn zero_burst_rejects_every_request_and_zero_rate_allows_only_the_burst() {
        let now = Instant::now();
        assert!(!Bucket::new(Throttle::per_second(1_000.0, 0)).take(now));
        for rate in [0.0, -1.0, f64::NAN, 1e-300] {
            let bucket = Bucket::new(Throttle::per_second(rate, 1));
            assert_eq!(
                [bucket.take(now), bucket.take(now + Duration::from_secs(1))],
                [true, false],
                "rate {rate}"
            );
        }
        assert!(Bucket::new(Throttle::per_second(f64::INFINITY, 1)).take(now));
    }
}
