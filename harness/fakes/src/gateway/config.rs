//! What a WebSocket API is made of: its names and its routes.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::authorizer::Authorizer;
use super::limits::{Limits, Unconfirmed};
use super::selection::RouteSelection;
use super::throttle::Throttle;

/// One WebSocket API with one stage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiConfig {
    /// The API's id, ten lower-case letters and digits.
    pub api_id: String,
    /// The stage's name, which is the path that clients connect to; default `prod`.
    pub stage: String,
    /// What functions read as `requestContext.domainName`.
    pub domain_name: String,
    /// Custom domain names of the API. Of a connection whose handshake's `Host` is one of them, with or without a port,
    /// functions read that one. The paths that are served stay the same.
    pub custom_domains: Vec<String>,
    /// The region in the ARN that an authorizer is asked about; default `us-east-1`.
    pub region: String,
    /// The account in that ARN; default `000000000000`.
    pub account_id: String,
    /// Which part of a message names its route; default `$request.body.action`.
    pub route_selection_expression: String,
    /// The routes, each with the function that it calls.
    pub routes: Vec<Route>,
    /// The quotas and timeouts.
    pub limits: Limits,
    /// The behaviours that no source settles.
    pub unconfirmed: Unconfirmed,
}

impl ApiConfig {
    /// An API without routes, under AWS's limits.
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
            unconfirmed: Unconfirmed::default(),
        }
    }

    /// Adds `route`.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Checks every part and reads the route selection expression.
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
                problems.push("a route's key must not be empty".to_owned());
            } else if !seen.insert(&route.key) {
                problems.push(format!("route {:?} stands twice", route.key));
            } else if route.key.starts_with('$') && !RESERVED_KEYS.contains(&route.key.as_str()) {
                problems.push(format!(
                    "route {:?}: keys that begin with $ are $connect, $disconnect and $default",
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

/// A route and its Lambda proxy integration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Route {
    /// `$connect`, `$disconnect`, `$default`, or what the route selection expression must evaluate to.
    pub key: String,
    /// The function to invoke.
    pub function: String,
    /// Whether the route has a `$default` route response, which sends the function's reply to the client.
    pub route_response: bool,
    /// How long the function may take to reply; default 29 s, which is AWS's most.
    pub integration_timeout: Duration,
    /// Who decides about connections, for `$connect` only; default nobody.
    pub authorizer: Option<Authorizer>,
    /// How often the route may be called, beside the limit for all requests; default as often as that lets it.
    pub throttle: Option<Throttle>,
}

impl Route {
    /// A one-way route: what the function replies goes nowhere.
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

    /// A two-way route: the body that the function replies is sent to the client.
    #[must_use]
    pub fn two_way(key: impl Into<String>, function: impl Into<String>) -> Self {
        Self { route_response: true, ..Self::one_way(key, function) }
    }

    /// Gives the function this long to reply.
    #[must_use]
    pub fn integration_timeout(mut self, timeout: Duration) -> Self {
        self.integration_timeout = timeout;
        self
    }

    /// Has `authorizer` decide about connections.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Authorizer) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Lets the route be called only so often.
    #[must_use]
    pub fn throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = Some(throttle);
        self
    }
}

/// Why an [`ApiConfig`] cannot be served: everything that is wrong with it, at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One sentence for each thing to mend.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the WebSocket API cannot be served: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_value_is_reported_at_once() {
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
        route "$default" stands twice
        route "$other": keys that begin with $ are $connect, $disconnect and $default
        a route's key must not be empty
        route "" must name a function
        an authorizer must name a function
        identity source "context.x" must be route.request.header. or route.request.querystring. and a name
        route "a": only $connect may have an authorizer
        limits.messages_in_flight must be from 1 to 2305843009213693951, not 0
        limits.idle_timeout must be above zero and at most a year, not 18446744073709551615.999999999s
        unconfirmed.connect_timeout_status must be from 400 to 599, not 200
        unconfirmed.delete_close: 1006 may not be sent in a close frame
        unconfirmed.delete_close: a close frame's reason has at most 123 bytes
        route_selection_expression "$request.body.": $request.body. is not a path such as $request.body.a.b or $request.body.a[0]
        "#);
        assert!(error.to_string().starts_with("the WebSocket API cannot be served: api_id \"ABC\""));
    }
}
