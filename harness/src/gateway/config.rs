//! What a WebSocket API is made of: names, routes, limits, and a choice for what AWS leaves unwritten.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::selection::RouteSelection;

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
}

impl Route {
    /// A one-way route: what the function replies goes nowhere.
    #[must_use]
    pub fn one_way(key: impl Into<String>, function: impl Into<String>) -> Self {
        Self { key: key.into(), function: function.into(), route_response: false }
    }

    /// A two-way route: the body that the function replies is sent to the client.
    #[must_use]
    pub fn two_way(key: impl Into<String>, function: impl Into<String>) -> Self {
        Self { route_response: true, ..Self::one_way(key, function) }
    }
}

/// The quotas and timeouts of a WebSocket API, AWS's by default.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a function may take to reply; 29 s.
    pub integration_timeout: Duration,
    /// How long a connection may carry no message in either direction; 10 min.
    pub idle_timeout: Duration,
    /// How long a connection may last; 2 h.
    pub connection_lifetime: Duration,
    /// The largest frame that a client may send; 32 KiB.
    pub frame_bytes: usize,
    /// The largest message in either direction; 128 KiB.
    pub message_bytes: usize,
    /// The longest path and query that a client may connect with, in bytes; 4,096. AWS's answer to a longer one is
    /// not published: ours is 414.
    pub url_bytes: usize,
    /// How many messages of one connection may be in flight at once; 64. While so many are, the gateway
    /// stops reading from that client. AWS publishes no figure: this protects the laptop.
    pub messages_in_flight: usize,
    /// How many frames may wait for a client that reads slowly; 16. AWS publishes no figure.
    pub frames_waiting: usize,
    /// How long a `POST @connections` waits for room among them; 1 s. It then fails with
    /// `LimitExceededException`, whose documentation names a full client buffer as one of its two causes.
    pub post_timeout: Duration,
    /// How long a client may take to finish the closing handshake; 1 s.
    pub close_timeout: Duration,
    /// How long [`Gateway::shutdown`](super::Gateway::shutdown) waits for every `$disconnect` to end; 5 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            integration_timeout: Duration::from_secs(29),
            idle_timeout: Duration::from_secs(10 * 60),
            connection_lifetime: Duration::from_secs(2 * 60 * 60),
            frame_bytes: 32 * 1024,
            message_bytes: 128 * 1024,
            url_bytes: 4_096,
            messages_in_flight: 64,
            frames_waiting: 16,
            post_timeout: Duration::from_secs(1),
            close_timeout: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Limits {
    fn check(&self, problems: &mut Vec<String>) {
        let sizes = [
            ("frame_bytes", self.frame_bytes),
            ("message_bytes", self.message_bytes),
            ("url_bytes", self.url_bytes),
            ("messages_in_flight", self.messages_in_flight),
            ("frames_waiting", self.frames_waiting),
        ];
        for (name, value) in sizes {
            // Above this a channel of tokio's refuses to be made.
            if !(1..=usize::MAX >> 3).contains(&value) {
                problems.push(format!("limits.{name} must be from 1 to {}, not {value}", usize::MAX >> 3));
            }
        }
        for (name, value) in [
            ("integration_timeout", self.integration_timeout),
            ("idle_timeout", self.idle_timeout),
            ("connection_lifetime", self.connection_lifetime),
        ] {
            if value.is_zero() || value > FAR {
                problems.push(format!("limits.{name} must be above zero and at most a year, not {value:?}"));
            }
        }
    }
}

/// Deadlines are sums of `Instant` and `Duration`, which overflow when one is absurd.
const FAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What AWS does where no source says: each field is one such question, its default the likelier answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// Whether the headers and the body of a refused `$connect` reach the client beside its status; default yes.
    pub connect_refusal_body: bool,
    /// The status that a client gets when `$connect` times out; default 504.
    pub connect_timeout_status: u16,
    /// Whether the first subprotocol offered is accepted when `$connect` returns none; default no.
    pub accept_first_subprotocol: bool,
    /// Whether a reply to a message whose status is not 2xx makes an `Internal server error` frame, where the
    /// route is one-way; default no.
    pub non_2xx_reply_frame: bool,
    /// Whether a client's ping postpones the idle timeout; default no.
    pub ping_resets_idle: bool,
    /// The close that a client sees after `DELETE @connections`; default 1000 "Connection Closed Normally".
    pub delete_close: (u16, String),
    /// The reason with which the two-hour limit closes (its code is 1001); default "Going away", as when idle.
    pub lifetime_close_reason: String,
    /// `disconnectReason` when a client vanishes without a close frame (the code is 1006); default
    /// "Connection closed abnormally".
    pub abnormal_close_reason: String,
}

impl Default for Unconfirmed {
    fn default() -> Self {
        Self {
            connect_refusal_body: true,
            connect_timeout_status: 504,
            accept_first_subprotocol: false,
            non_2xx_reply_frame: false,
            ping_resets_idle: false,
            delete_close: (1000, "Connection Closed Normally".to_owned()),
            lifetime_close_reason: "Going away".to_owned(),
            abnormal_close_reason: "Connection closed abnormally".to_owned(),
        }
    }
}

impl Unconfirmed {
    fn check(&self, problems: &mut Vec<String>) {
        if !(400..=599).contains(&self.connect_timeout_status) {
            problems.push(format!(
                "unconfirmed.connect_timeout_status must be from 400 to 599, not {}",
                self.connect_timeout_status
            ));
        }
        let (code, reason) = &self.delete_close;
        // RFC 6455, section 7.4: the codes that may be sent, of which 1004 to 1006 and 1015 may not.
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            problems.push(format!("unconfirmed.delete_close: {code} may not be sent in a close frame"));
        }
        for (name, text) in [("delete_close", reason), ("lifetime_close_reason", &self.lifetime_close_reason)]
        {
            if text.len() > 123 {
                problems.push(format!("unconfirmed.{name}: a close frame's reason has at most 123 bytes"));
            }
        }
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
    fn the_defaults_are_awss_limits() {
        let limits = Limits::default();
        assert_eq!(limits.integration_timeout, Duration::from_secs(29));
        assert_eq!(limits.idle_timeout, Duration::from_secs(600));
        assert_eq!(limits.connection_lifetime, Duration::from_secs(7_200));
        assert_eq!((limits.frame_bytes, limits.message_bytes, limits.url_bytes), (32_768, 131_072, 4_096));
        let config = ApiConfig::new("abcde12345", "localhost").route(Route::two_way("$default", "router"));
        assert!(config.validate().is_ok());
        assert!(config.routes[0].route_response);
    }

    #[test]
    fn every_bad_value_is_reported_at_once() {
        let mut config = ApiConfig::new("ABC", "")
            .route(Route::one_way("$default", "f"))
            .route(Route::one_way("$default", "f"))
            .route(Route::one_way("$other", "f"))
            .route(Route::one_way("", ""));
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
