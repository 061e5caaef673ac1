//! Command-line arguments that several commands share.

use std::time::Duration;

use clap::Args;
use streamer_harness::signing_key::TokenFor;

/// Arguments that set the claims of a token.
#[derive(Args, Clone, Debug)]
pub(super) struct TokenArguments {
    /// User id in the token (claim `sub`)
    #[arg(long, default_value = "demo-user", value_parser = non_empty)]
    user: String,
    /// Tenant id in the token (claim `tenant_id`)
    #[arg(long, default_value = "demo-tenant", value_parser = non_empty)]
    tenant: String,
    /// Permissions in the token, separated by commas
    #[arg(long, value_delimiter = ',')]
    permissions: Vec<String>,
    /// Lifetime of the token, such as 90s, 15m, 1h or 7d
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

impl From<TokenArguments> for TokenFor {
    fn from(TokenArguments { user, tenant, permissions, ttl }: TokenArguments) -> Self {
        Self { user, tenant, permissions, ttl }
    }
}

/// Accepts any text except the empty one.
pub(super) fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

const MIN_DURATION: Duration = Duration::from_secs(1);
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Parses a duration from one second to 365 days, such as `90s`, `15m`, `1h`, `7d` or `1h 30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration such as 90s, 15m, 1h or 7d ({error})"))?;
    if (MIN_DURATION..=MAX_DURATION).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("expected a duration from 1s to 365d, found {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_durations_are_parsed_and_invalid_durations_are_refused() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for invalid in ["", "h", "1", "1y", "-1h", "0s", "999ms", "366d", "99999999999999999999d", "1ä"] {
            assert!(parse_duration(invalid).is_err(), "{invalid}");
        }
    }
}
