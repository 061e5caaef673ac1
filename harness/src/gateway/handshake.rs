//! The request that asks for a WebSocket: whether it is one, and how its parts appear in the `$connect` event.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::event::Identity;

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoUpgrade {
    /// It does not ask to.
    Plain,
    /// It asks for a version other than 13.
    Version,
    /// It has no `Sec-WebSocket-Key`.
    NoKey,
}

/// Checks that a request asks for a WebSocket, and computes its `Sec-WebSocket-Accept` (RFC 6455, section 4.2).
pub(super) fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, NoUpgrade> {
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(NoUpgrade::Plain);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(NoUpgrade::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(NoUpgrade::NoKey)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| NoUpgrade::NoKey)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Who is asking. Served without [`ConnectInfo`], as in a test without sockets, a request comes from this host.
pub(super) fn identity(parts: &Parts) -> Identity {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let ip = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ConnectInfo(address)| address.ip().to_canonical());
    let user_agent = parts.headers.get(USER_AGENT).map(text);
    Identity { user_agent, source_ip: ip.to_string() }
}

/// Which of an API's custom domain names a handshake was sent to.
pub(super) fn custom_domain(parts: &Parts, domains: &[String]) -> Option<String> {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or(parts.uri.host())?;
    let name = host.split(':').next().unwrap_or(host);
    domains.iter().find(|domain| domain.eq_ignore_ascii_case(name)).cloned()
}

/// The two header maps of an event.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Headers {
    headers: BTreeMap<String, String>,
    multi_value_headers: BTreeMap<String, Vec<String>>,
}

impl Headers {
    /// The headers of a handshake as `$connect` shows them: without `Connection` and `Upgrade`, and with those
    /// that API Gateway adds.
    ///
    /// An authorizer sees the two as well, as `and_upgrade` says.
    ///
    /// AWS keeps the letter case that the client wrote. An HTTP server in Rust does not hand it on, so names appear as most
    /// clients write them (`User-Agent`, `Sec-WebSocket-Key`): look them up without regard to case.
    pub(super) fn of_handshake(
        received: &HeaderMap,
        identity: &Identity,
        trace_id: String,
        and_upgrade: bool,
    ) -> Self {
        let mut all = Self::default();
        for (name, value) in received {
            let upgrades = *name == CONNECTION || *name == UPGRADE;
            if (and_upgrade || !upgrades) && !ADDED.contains(&name.as_str()) {
                all.push(usual_case(name.as_str()), text(value));
            }
        }
        let hops = received.get_all("x-forwarded-for").into_iter().map(text);
        let hops: Vec<_> = hops.chain([identity.source_ip.clone()]).collect();
        all.push("X-Forwarded-For".to_owned(), hops.join(", "));
        // What a function sees behind AWS, which takes no other port and no plain HTTP.
        all.push("X-Forwarded-Port".to_owned(), "443".to_owned());
        all.push("X-Forwarded-Proto".to_owned(), "https".to_owned());
        let trace_id = received.get("x-amzn-trace-id").map_or(trace_id, text);
        all.push("X-Amzn-Trace-Id".to_owned(), trace_id);
        all
    }

    fn push(&mut self, name: String, value: String) {
        self.multi_value_headers.entry(name.clone()).or_default().push(value.clone());
        self.headers.insert(name, value);
    }
}

/// The headers that API Gateway writes itself.
const ADDED: [&str; 4] = ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-amzn-trace-id"];

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut all = Self::default();
        for (name, value) in pairs {
            all.push(name.to_owned(), value.to_owned());
        }
        all
    }
}

/// The query of a handshake, decoded: in the single map the last value of a name stands.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    query_string_parameters: BTreeMap<String, String>,
    multi_value_query_string_parameters: BTreeMap<String, Vec<String>>,
}

impl Parameters {
    /// The last value of `name`.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.query_string_parameters.get(name).map(String::as_str)
    }

    /// The parameters in `query`, or `None` where there are none: the event then lacks both maps.
    pub(super) fn decode(query: Option<&str>) -> Option<Self> {
        let mut single = BTreeMap::new();
        let mut multi: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query?.as_bytes()) {
            multi.entry(name.clone().into_owned()).or_default().push(value.clone().into_owned());
            single.insert(name.into_owned(), value.into_owned());
        }
        (!single.is_empty())
            .then_some(Self { query_string_parameters: single, multi_value_query_string_parameters: multi })
    }
}

fn usual_case(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("sec-websocket-") {
        return format!("Sec-WebSocket-{}", usual_case(rest));
    }
    let mut at_start = true;
    let capitalise = |c: char| {
        let c = if at_start { c.to_ascii_uppercase() } else { c };
        at_start = c == '-';
        c
    };
    name.chars().map(capitalise).collect()
}

/// A header's value as text: bytes that are not UTF-8 cannot stand in JSON and are replaced.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_handshake_is_told_from_a_plain_request() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        // The example of RFC 6455, section 1.3.
        assert_eq!(accept_key(&headers(&whole)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (missing, expected) in
            [NoUpgrade::Plain, NoUpgrade::Plain, NoUpgrade::Version, NoUpgrade::NoKey].into_iter().enumerate()
        {
            let mut part = whole.to_vec();
            part.remove(missing);
            assert_eq!(accept_key(&headers(&part)), Err(expected), "without {:?}", whole[missing]);
        }
    }

    #[test]
    fn headers_keep_every_value_and_gain_those_of_api_gateway() {
        let mut received = headers(&[
            ("host", "localhost"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
        ]);
        received.append("x-tag", HeaderValue::from_static("a"));
        received.append("x-tag", HeaderValue::from_bytes(b"\xff").unwrap());
        received.append("sec-websocket-protocol", HeaderValue::from_static("v1"));
        let identity = Identity { user_agent: None, source_ip: "192.0.2.1".to_owned() };
        let all = Headers::of_handshake(&received, &identity, "Root=1".to_owned(), false);
        assert_eq!(all.multi_value_headers["X-Tag"], ["a", "\u{fffd}"]);
        assert_eq!(all.headers["X-Tag"], "\u{fffd}", "the last value stands in the single map");
        let names: Vec<_> = all.headers.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "Host",
                "Sec-WebSocket-Protocol",
                "X-Amzn-Trace-Id",
                "X-Forwarded-For",
                "X-Forwarded-Port",
                "X-Forwarded-Proto",
                "X-Tag"
            ]
        );
        assert_eq!(all.headers["X-Forwarded-For"], "10.0.0.1, 192.0.2.1");
        assert_eq!(all.headers["X-Forwarded-Proto"], "https");
    }

    #[test]
    fn a_query_is_decoded_and_the_last_value_stands_in_the_single_map() {
        let decoded = Parameters::decode(Some("token=a%20b%3D&x=1&x=2&empty&plus=a+b&bad=%ff%zz")).unwrap();
        assert_eq!(decoded.query_string_parameters["token"], "a b=");
        assert_eq!(decoded.query_string_parameters["x"], "2");
        assert_eq!(decoded.multi_value_query_string_parameters["x"], ["1", "2"]);
        assert_eq!(decoded.query_string_parameters["empty"], "");
        assert_eq!(decoded.query_string_parameters["plus"], "a b");
        assert_eq!(decoded.query_string_parameters["bad"], "\u{fffd}%zz");
        assert!(Parameters::decode(None).is_none());
        assert!(Parameters::decode(Some("")).is_none());
    }
}
