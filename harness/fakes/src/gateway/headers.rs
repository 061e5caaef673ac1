//! HTTP headers of a handshake, in the form that events contain.

use std::collections::BTreeMap;

use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;

use super::identity::Identity;

/// The maps `headers` and `multiValueHeaders` of an event.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Headers {
    headers: BTreeMap<String, String>,
    multi_value_headers: BTreeMap<String, Vec<String>>,
}

impl Headers {
    /// Returns the headers of a handshake in the form that events contain, including the headers that API
    /// Gateway adds.
    ///
    /// `Connection` and `Upgrade` are included only if `with_upgrade` is true. Authorizer events contain
    /// these two headers; `$connect` events do not.
    ///
    /// AWS keeps the letter case of the client's header names. The fake's HTTP server loses the case, so the
    /// fake writes names as most clients do (`User-Agent`, `Sec-WebSocket-Key`). Functions should compare
    /// header names without regard to case.
    pub(super) fn of_handshake(
        received: &HeaderMap,
        identity: &Identity,
        trace_id: String,
        with_upgrade: bool,
    ) -> Self {
        let mut all = Self::default();
        for (name, value) in received {
            let upgrades = *name == CONNECTION || *name == UPGRADE;
            if (with_upgrade || !upgrades) && !ADDED.contains(&name.as_str()) {
                all.push(usual_case(name.as_str()), text(value));
            }
        }
        let hops = received.get_all("x-forwarded-for").into_iter().map(text);
        let hops: Vec<_> = hops.chain([identity.source_ip.clone()]).collect();
        all.push("X-Forwarded-For".to_owned(), hops.join(", "));
        // AWS serves WebSockets only with TLS on port 443, so functions always receive these two values.
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

/// Headers that API Gateway sets or extends itself, so the client's values are not copied like those of other
/// headers.
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

/// Returns a header's value as text. Bytes that are not UTF-8 are replaced, because JSON cannot contain them.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn handshake_headers_keep_all_values_and_include_headers_added_by_api_gateway() {
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
        assert_eq!(all.headers["X-Tag"], "\u{fffd}", "`headers` has the last value of a repeated header");
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
}
