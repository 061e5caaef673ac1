//! Validation of WebSocket handshakes (RFC 6455), and the domain name that a handshake was sent to.

use axum::http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Reason why a request cannot be upgraded to a WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoUpgrade {
    /// The request does not ask for an upgrade to a WebSocket.
    Plain,
    /// The request's `Sec-WebSocket-Version` is missing or is not 13.
    Version,
    /// The request has no `Sec-WebSocket-Key`.
    NoKey,
}

/// Validates a WebSocket handshake and computes the response's `Sec-WebSocket-Accept` (RFC 6455, section 4.2).
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

/// Returns the custom domain name that a handshake was sent to; `None` if its host is not one of `domains`.
pub(super) fn custom_domain(parts: &Parts, domains: &[String]) -> Option<String> {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or(parts.uri.host())?;
    let name = host.split(':').next().unwrap_or(host);
    domains.iter().find(|domain| domain.eq_ignore_ascii_case(name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn handshake_is_rejected_with_a_reason_specific_to_the_missing_header() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        // The key and its accept value are the example of RFC 6455, section 1.3.
        assert_eq!(accept_key(&headers(&whole)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (missing, expected) in
            [NoUpgrade::Plain, NoUpgrade::Plain, NoUpgrade::Version, NoUpgrade::NoKey].into_iter().enumerate()
        {
            let mut part = whole.to_vec();
            part.remove(missing);
            assert_eq!(accept_key(&headers(&part)), Err(expected), "handshake without {:?}", whole[missing]);
        }
    }
}
