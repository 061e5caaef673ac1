//! Selects the endpoint, region and credentials for a command's AWS calls. Without an `--endpoint`, they come
//! from the sources that the AWS CLI also reads.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials as _, Region, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use clap::Args;
use http::Uri;
use streamer_harness::tables::innermost;

/// Arguments that select the AWS endpoint and region of a command's calls.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct AwsArguments {
    /// URL of the AWS endpoint, such as http://127.0.0.1:4000 for the local stage [default: the AWS CLI's
    /// endpoint]
    #[arg(long, value_name = "URL", value_parser = parse_endpoint)]
    pub(super) endpoint: Option<Uri>,
    /// AWS region [default: the AWS CLI's region; for an endpoint on this machine, AWS_REGION or us-east-1]
    #[arg(long)]
    pub(super) region: Option<String>,
}

impl AwsArguments {
    /// Loads the SDK's configuration from the sources that the AWS CLI also reads, and returns it with the
    /// region.
    pub(super) async fn config(&self) -> Result<(SdkConfig, Region), Box<dyn Error>> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::standard())
            .timeout_config(timeouts());
        let mut config = match (&self.endpoint, &self.region) {
            (Some(endpoint), region) if is_loopback(endpoint) => {
                let region = region.clone().or_else(|| variable("AWS_REGION"));
                let config = config.region(Region::new(region.unwrap_or_else(|| "us-east-1".to_owned())));
                // The SDK sends no call without credentials, so these are placeholders. Local endpoints
                // rarely check credentials.
                match variable("AWS_ACCESS_KEY_ID") {
                    Some(_) => config,
                    None => {
                        config.credentials_provider(Credentials::new("local", "local", None, None, "local"))
                    }
                }
            }
            (_, Some(region)) => config.region(Region::new(region.clone())),
            (_, None) => config,
        };
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint.to_string());
        }
        let config = config.load().await;
        let Some(region) = config.region().cloned() else {
            return Err("no AWS region is set; pass --region, or set AWS_REGION".into());
        };
        Ok((config, region))
    }
}

/// Loads the credentials before the first call, because the error of a call does not say why the credentials
/// are missing.
pub(super) async fn expect_credentials(config: &SdkConfig) -> Result<(), Box<dyn Error>> {
    if let Some(credentials) = config.credentials_provider() {
        credentials.provide_credentials().await.map_err(|error| {
            let reason = innermost(&error);
            format!(
                "AWS credentials cannot be loaded: {reason}\n\
                 Sign in (for example with `aws sso login`), set AWS_PROFILE, or pass the --endpoint of a local stage"
            )
        })?;
    }
    Ok(())
}

/// HTTP client with rustls on ring, and with the root certificates that this machine trusts.
fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(20))
        .build()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_loopback(endpoint: &Uri) -> bool {
    let host = endpoint.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

pub(super) fn parse_endpoint(text: &str) -> Result<Uri, String> {
    let expected = || format!("expected a URL such as http://127.0.0.1:4000, found {text:?}");
    let uri: Uri = text.parse().map_err(|_| expected())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        (Some(_) | None, _) => Err(expected()),
    }
}

/// Accepts the characters that DynamoDB allows in table names.
pub(super) fn parse_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.len() > 100 || !text.chars().all(is_allowed) {
        return Err("expected 1 to 100 letters, digits, '_', '.' or '-'".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_localhost_count_as_this_machine() {
        for url in ["http://127.0.0.1:4000", "http://localhost:8000/", "https://[::1]:1", "http://127.9.9.9"]
        {
            assert!(is_loopback(&parse_endpoint(url).unwrap()), "{url}");
        }
        for url in
            ["https://dynamodb.eu-west-1.amazonaws.com", "http://10.0.0.1:8000", "http://localhost.example"]
        {
            assert!(!is_loopback(&parse_endpoint(url).unwrap()), "{url}");
        }
    }

    #[test]
    fn invalid_endpoints_and_prefixes_are_refused() {
        for invalid in ["", "127.0.0.1:4000", "ftp://127.0.0.1", "http://", "localhost"] {
            assert!(parse_endpoint(invalid).unwrap_err().contains("expected a URL"), "{invalid}");
        }
        for invalid in ["", "with space", "ünïcode", &"x".repeat(101)] {
            assert!(parse_prefix(invalid).is_err(), "{invalid}");
        }
        assert_eq!(parse_prefix("my.team_stage-2"), Ok("my.team_stage-2".to_owned()));
    }
}
