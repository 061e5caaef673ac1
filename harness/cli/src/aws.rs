//! Where a command's calls go, and with what: a stage of this machine, or AWS as the AWS CLI would find it.

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

/// Where calls go.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Whereto {
    /// The endpoint, such as http://127.0.0.1:4000 of the local stage [default: as the AWS CLI finds it]
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub(super) endpoint: Option<Uri>,
    /// The AWS region [default: as the AWS CLI finds it; us-east-1 at an endpoint of this machine]
    #[arg(long)]
    pub(super) region: Option<String>,
}

impl Whereto {
    /// What the AWS CLI would go by too, and the region that it says.
    pub(super) async fn config(&self) -> Result<(SdkConfig, Region), Box<dyn Error>> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::standard())
            .timeout_config(timeouts());
        let mut config = match (&self.endpoint, &self.region) {
            (Some(endpoint), region) if is_this_machine(endpoint) => {
                let region = region.clone().or_else(|| variable("AWS_REGION"));
                let config = config.region(Region::new(region.unwrap_or_else(|| "us-east-1".to_owned())));
                // It will hardly look at them, and who has none must not be kept from trying.
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
            return Err("no AWS region is set: name one with --region, or set AWS_REGION".into());
        };
        Ok((config, region))
    }
}

/// Sees to it that there are credentials, before a call is made: what the chain says of its failure is lost in that of a
/// call.
pub(super) async fn expect_credentials(config: &SdkConfig) -> Result<(), Box<dyn Error>> {
    if let Some(credentials) = config.credentials_provider() {
        credentials.provide_credentials().await.map_err(|error| {
            let reason = innermost(&error);
            format!(
                "there are no credentials: {reason}; sign in (as with aws sso login), set \
                 AWS_PROFILE, or name an endpoint of this machine with --endpoint"
            )
        })?;
    }
    Ok(())
}

/// TLS on ring, with the roots that this machine trusts.
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

fn is_this_machine(endpoint: &Uri) -> bool {
    let host = endpoint.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

fn endpoint(text: &str) -> Result<Uri, String> {
    let expected = || format!("expected a URL such as http://127.0.0.1:4000, found {text:?}");
    let uri: Uri = text.parse().map_err(|_| expected())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        (Some(_) | None, _) => Err(expected()),
    }
}

/// As DynamoDB allows in names of tables.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.len() > 100 || !text.chars().all(is_allowed) {
        return Err("must be 1 to 100 letters, digits, '_', '.' or '-'".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_this_machine() {
        for url in ["http://127.0.0.1:4000", "http://localhost:8000/", "https://[::1]:1", "http://127.9.9.9"]
        {
            assert!(is_this_machine(&endpoint(url).unwrap()), "{url}");
        }
        for url in
            ["https://dynamodb.eu-west-1.amazonaws.com", "http://10.0.0.1:8000", "http://localhost.example"]
        {
            assert!(!is_this_machine(&endpoint(url).unwrap()), "{url}");
        }
    }

    #[test]
    fn what_is_no_endpoint_and_no_prefix_is_refused() {
        for wrong in ["", "127.0.0.1:4000", "ftp://127.0.0.1", "http://", "localhost"] {
            assert!(endpoint(wrong).unwrap_err().contains("expected a URL"), "{wrong}");
        }
        for wrong in ["", "with space", "ünïcode", &"x".repeat(101)] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        assert_eq!(prefix("my.team_stage-2"), Ok("my.team_stage-2".to_owned()));
    }
}
