//! Configuration of a WebSocket API: names, routes and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::authorizer::Authorizer;
use super::limits::{Limits, UndocumentedBehavior};
use super::selection::RouteSelection;
use super::throttle::Throttle;

/// Configuration of one WebSocket API with one stage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiConfig {
    /// Id of the API: ten lower-case letters and digits.
    pub api_id: String,
    /// Name of the API's stage, which is also the URL path that clients connect to; default `prod`.
    pub stage: String,
    /// Domain name that functions receive as `requestContext.domainName` if the client used no custom domain
    /// name.
    pub domain_name: String,
    /// Custom domain names of the API; default none.
    ///
    /// If the `Host` of a handshake, without its port, is a custom domain name, then functions receive that
    /// name as `requestContext.domainName`. Custom domain names do not change the served URL paths.
    pub custom_domains: Vec<String>,
    /// AWS region in the ARN that an authorizer receives as `methodArn`; default `us-east-1`.
    pub region: String,
    /// AWS account id in the ARN that an authorizer receives as `methodArn`; default `000000000000`.
    pub account_id: String,
    /// Expression that selects the route of a message from the message's body; default `$request.body.action`.
    pub route_selection_expression: String,
    /// Routes of the API, each with the function that the route invokes.
    pub routes: Vec<Route>,
    /// Quotas and timeouts of the API.
    pub limits: Limits,
    /// Settings for behavior of AWS that no source documents.
    pub unconfirmed: UndocumentedBehavior,
}

impl ApiConfig {
    /// Returns the configuration of an API without routes, with AWS's default limits.
    #[must_use]
    pub fn new(api_id: impl Into<String>, domain_name: impl Into<String>) -> Self {
        Self {
            api_id: api_id.into(),
            stage: "prod".to_owned(),
            domain_name: domain_name.into(),
            custom_domains: Vec::new(),
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
            route_selection_expression: "$request.body.action".to_owned(),
            routes: Vec::new(),
            limits: Limits::default(),
            unconfirmed: UndocumentedBehavior::default(),
        }
    }

    /// Adds `route` to the API.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Checks all settings and parses the route selection expression.
    pub(super) fn validate(&self) -> Result<RouteSelection, ConfigError> {
        let mut problems = Vec::new();
        let lower_case = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if self.api_id.len() != 10 || !self.api_id.chars().all(lower_case) {
            problems.push(format!("api_id {:?} must be 10 lower-case letters and digits", self.api_id));
        }
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(1..=128).contains(&self.stage.len()) || !self.stage.chars().all(in_name) {
            problems.push(format!(
                "stage {:?} must be 1 to 128 letters, digits, hyphens and underscores",
                self.stage
            ));
        }
        if self.domain_name.is_empty() {
            problems.push("domain_name must not be empty".to_owned());
        }
        self.check_routes(&mut problems);
        self.limits.check(&mut problems);
        self.unconfirmed.check(&mut problems);
        let selection = RouteSelection::parse(&self.route_selection_expression);
        if let Err(error) = &selection {
            problems
                .push(format!("route_selection_expression {:?}: {error}", self.route_selection_expression));
        }
        match selection {
            Ok(selection) if problems.is_empty() => Ok(selection),
            _ => Err(ConfigError { problems }),
        }
    }

    fn check_routes(&self, problems: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for route in &self.routes {
            if route.key.is_empty() {
                problems.push("a route key must not be empty".to_owned());
            } else if !seen.insert(&route.key) {
                problems.push(format!("route {:?} is defined twice", route.key));
            } else if route.key.starts_with('$') && !RESERVED_KEYS.contains(&route.key.as_str()) {
                problems.push(format!(
                    "route {:?}: a key that begins with $ must be $connect, $disconnect or $default",
                    route.key
                ));
            }
            if route.function.is_empty() {
                problems.push(format!("route {:?} must name a function", route.key));
            }
            if let Some(authorizer) = &route.authorizer {
                authorizer.check(problems);
                if route.key != CONNECT {
                    problems.push(format!("route {:?}: only $connect may have an authorizer", route.key));
                }
            }
        }
    }
}

pub(super) const CONNECT: &str = "$connect";
pub(super) const DISCONNECT: &str = "$disconnect";
pub(super) const DEFAULT: &str = "$default";
const RESERVED_KEYS: [&str; 3] = [CONNECT, DISCONNECT, DEFAULT];

/// A route of a WebSocket API, with its Lambda proxy integration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Route {
    /// Route key: `$connect`, `$disconnect`, `$default`, or a value of the route selection expression.
    pub key: String,
    /// Name of the function that the route invokes.
    pub function: String,
    /// Whether the route has a `$default` route response, which sends the function's reply to the client.
    pub route_response: bool,
    /// Maximum time that the route's function may take to reply; default 29 s, the maximum on AWS.
    pub integration_timeout: Duration,
    /// Lambda authorizer that accepts or rejects connections, allowed on `$connect` only; default `None`.
    pub authorizer: Option<Authorizer>,
    /// Rate limit of the route, which applies in addition to the API's limit; `None` (default) adds no limit.
    pub throttle: Option<Throttle>,
}

impl Route {
    /// Returns a one-way route, which does not send the function's reply to the client.
    #[must_use]
    pub fn one_way(key: impl Into<String>, function: impl Into<String>) -> Self {
        let integration_timeout = Duration::from_secs(29);
        Self {
            key: key.into(),
            function: function.into(),
            route_response: false,
            integration_timeout,
            authorizer: None,
            throttle: None,
        }
    }

    /// Returns a two-way route, which sends the body of the function's reply to the client.
    #[must_use]
    pub fn two_way(key: impl Into<String>, function: impl Into<String>) -> Self {
        Self { route_response: true, ..Self::one_way(key, function) }
    }

    /// Sets the maximum time that the route's function may take to reply.
    #[must_use]
    pub fn integration_timeout(mut self, timeout: Duration) -> Self {
        self.integration_timeout = timeout;
        self
    }

    /// Sets the Lambda authorizer that accepts or rejects connections.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Authorizer) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Sets the rate limit of the route.
    #[must_use]
    pub fn throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = Some(throttle);
        self
    }
}

/// Error that lists all invalid settings of an [`ApiConfig`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Returns one sentence about each invalid setting of the API configuration.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid WebSocket API configuration: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invalid_api_setting_is_reported_in_one_error() {
        let mut config = ApiConfig::new("ABC", "")
            .route(Route::one_way("$default", "f"))
            .route(Route::one_way("$default", "f"))
            .route(Route::one_way("$other", "f"))
            .route(Route::one_way("", ""))
            .route(Route::one_way("a", "f").authorizer(Authorizer::new("").identity_source("context.x")));
        config.stage = "a/b".to_owned();
        config.route_selection_expression = "$request.body.".to_owned();
        config.limits.messages_in_flight = 0;
        config.limits.idle_timeout = Duration::MAX;
        config.unconfirmed.connect_timeout_status = 200;
        config.unconfirmed.delete_close = (1006, "x".repeat(124));
        let error = config.validate().unwrap_err();
        insta::assert_snapshot!(error.problems().join("\n"), @r#"
        api_id "ABC" must be 10 lower-case letters and digits
        stage "a/b" must be 1 to 128 letters, digits, hyphens and underscores
        domain_name must not be empty
        route "$default" is defined twice
        route "$other": a key that begins with $ must be $connect, $disconnect or $default
        a route key must not be empty
        route "" must name a function
        an authorizer must name a function
        identity source "context.x" must be route.request.header.NAME or route.request.querystring.NAME
        route "a": only $connect may have an authorizer
        limits.messages_in_flight must be from 1 to 2305843009213693951, not 0
        limits.idle_timeout must be above zero and at most 366 days, not 18446744073709551615.999999999s
        unconfirmed.connect_timeout_status must be from 400 to 599, not 200
        unconfirmed.delete_close: close code 1006 may not be sent in a close frame
        unconfirmed.delete_close: the reason in a close frame must have at most 123 bytes
        route_selection_expression "$request.body.": invalid path $request.body.; expected a path such as $request.body.a.b or $request.body.a[0]
        "#);
        assert!(error.to_string().starts_with("invalid WebSocket API configuration: api_id \"ABC\""));
    }
}
