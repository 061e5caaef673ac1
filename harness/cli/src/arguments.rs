//! Arguments that several commands take.

use std::time::Duration;

use clap::Args;
use streamer_harness::signing_key::TokenFor;

/// Whom a token is for.
#[derive(Args, Clone, Debug)]
pub(super) struct Whom {
    /// The user that the token names
    #[arg(long, default_value = "demo-user", value_parser = name)]
    user: String,
    /// The tenant that the user belongs to
    #[arg(long, default_value = "demo-tenant", value_parser = name)]
    tenant: String,
    /// What the token permits, separated by commas
    #[arg(long, value_delimiter = ',')]
    permissions: Vec<String>,
    /// How long the token is valid: 90s, 15m, 1h or 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
}

impl From<Whom> for TokenFor {
    fn from(Whom { user, tenant, permissions, ttl }: Whom) -> Self {
        Self { user, tenant, permissions, ttl }
    }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Reads such as `90s`, `15m`, `1h`, `7d` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration such as 90s, 15m, 1h or 7d: {error}"))?;
    if (SHORTEST..=LONGEST).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be from 1s to 365d, and is {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "h", "1", "1y", "-1h", "0s", "999ms", "366d", "99999999999999999999d", "1ä"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
