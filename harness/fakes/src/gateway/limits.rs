//! Quotas and timeouts of an API ([`Limits`]), and settings for undocumented behavior of AWS
//! ([`UndocumentedBehavior`]).

use std::time::Duration;

use super::throttle::{MAX_DURATION, Throttle};

/// Quotas and timeouts of a WebSocket API. The defaults are AWS's values where AWS publishes them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Rate limit of new connections; default 500 a second in bursts of 500. A handshake above the limit
    /// receives 429. On AWS, all APIs of an account in a region share this limit.
    pub connections: Throttle,
    /// Rate limit of all requests (handshakes, messages, and calls of the management API); default 10,000 a
    /// second in bursts of 5,000. On AWS, all APIs of an account in a region share this limit.
    pub requests: Throttle,
    /// Time without a message in either direction after which the gateway closes a connection; default 10
    /// min.
    pub idle_timeout: Duration,
    /// Maximum duration of a connection, after which the gateway closes the connection; default 2 h.
    pub connection_lifetime: Duration,
    /// Maximum size in bytes of a frame from a client; default 32 KiB. A larger frame closes the connection.
    pub frame_bytes: usize,
    /// Maximum size in bytes of a message in either direction; default 128 KiB.
    pub message_bytes: usize,
    /// Maximum length in bytes of the path and query of a handshake; default 4,096. A handshake with a longer
    /// URL receives 414. AWS does not document the response; 414 is the fake's choice.
    pub url_bytes: usize,
    /// Maximum number of messages per connection whose functions run concurrently; default 64. At the limit,
    /// the gateway stops reading from the client. AWS publishes no such limit; the fake's limit protects the
    /// local machine.
    pub messages_in_flight: usize,
    /// Maximum number of frames queued for a client that reads slowly; default 16. AWS publishes no such limit.
    pub frames_waiting: usize,
    /// Maximum time that a `POST @connections` waits for room in the client's frame queue; default 1 s. The
    /// call then fails with `LimitExceededException`. AWS's documentation names a full client buffer as one
    /// of two causes of this error.
    pub post_timeout: Duration,
    /// Maximum time that a client may take to finish the closing handshake; default 1 s.
    pub close_timeout: Duration,
    /// Maximum time that [`Gateway::shutdown`](super::Gateway::shutdown) waits for all `$disconnect`
    /// functions to finish; default 5 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Throttle::per_second(500.0, 500),
            requests: Throttle::per_second(10_000.0, 5_000),
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
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let sizes = [
            ("frame_bytes", self.frame_bytes),
            ("message_bytes", self.message_bytes),
            ("url_bytes", self.url_bytes),
            ("messages_in_flight", self.messages_in_flight),
            ("frames_waiting", self.frames_waiting),
        ];
        for (name, value) in sizes {
            // `usize::MAX >> 3` is tokio's maximum capacity of a channel. Creating a channel with a larger
            // capacity panics.
            if !(1..=usize::MAX >> 3).contains(&value) {
                problems.push(format!("limits.{name} must be from 1 to {}, not {value}", usize::MAX >> 3));
            }
        }
        for (name, value) in
            [("idle_timeout", self.idle_timeout), ("connection_lifetime", self.connection_lifetime)]
        {
            if value.is_zero() || value > MAX_DURATION {
                problems
                    .push(format!("limits.{name} must be above zero and at most 366 days, not {value:?}"));
            }
        }
    }
}

/// Settings for behavior of AWS that no source documents. Each default is the behavior that AWS is more
/// likely to have.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UndocumentedBehavior {
    /// Whether a client that `$connect` rejects receives the headers and body of the function's reply, in
    /// addition to the status; default `true`.
    pub connect_refusal_body: bool,
    /// HTTP status that the client receives when `$connect` times out; default 504, allowed 400 to 599.
    pub connect_timeout_status: u16,
    /// Whether a reply of `$connect` without `statusCode` accepts the client; default `false`. With `false`,
    /// the reply counts as malformed and the client receives 502. Replies to messages may always omit
    /// `statusCode`.
    pub connect_without_status: bool,
    /// Whether the client receives a `Too Many Requests` frame when its message is throttled; default `true`.
    pub throttled_message_frame: bool,
    /// Whether the gateway selects the first subprotocol that the client offered if `$connect` returns no
    /// subprotocol; default `false`, which selects none.
    pub accept_first_subprotocol: bool,
    /// Whether the client receives an `Internal server error` frame if the function of a one-way route
    /// replies with a status other than 2xx; default `false`.
    pub non_2xx_reply_frame: bool,
    /// Whether a ping from the client restarts the idle timeout; default `false`.
    pub ping_resets_idle: bool,
    /// Close code and reason that the client receives after `DELETE @connections`; default 1000 "Connection
    /// Closed Normally".
    pub delete_close: (u16, String),
    /// Reason in the close frame (code 1001) of a connection that reaches [`Limits::connection_lifetime`];
    /// default "Going away", the same reason as for an idle connection.
    pub lifetime_close_reason: String,
    /// Value of `disconnectReason` (with code 1006) when a client disappears without a close frame; default
    /// "Connection closed abnormally".
    pub abnormal_close_reason: String,
}

impl Default for UndocumentedBehavior {
    fn default() -> Self {
        Self {
            connect_refusal_body: true,
            connect_timeout_status: 504,
            connect_without_status: false,
            throttled_message_frame: true,
            accept_first_subprotocol: false,
            non_2xx_reply_frame: false,
            ping_resets_idle: false,
            delete_close: (1000, "Connection Closed Normally".to_owned()),
            lifetime_close_reason: "Going away".to_owned(),
            abnormal_close_reason: "Connection closed abnormally".to_owned(),
        }
    }
}

impl UndocumentedBehavior {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if !(400..=599).contains(&self.connect_timeout_status) {
            problems.push(format!(
                "unconfirmed.connect_timeout_status must be from 400 to 599, not {}",
                self.connect_timeout_status
            ));
        }
        let (code, reason) = &self.delete_close;
        // RFC 6455, section 7.4: only these codes may be sent in a close frame. 1004 to 1006 and 1015 are
        // reserved.
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            problems.push(format!(
                "unconfirmed.delete_close: close code {code} may not be sent in a close frame"
            ));
        }
        for (name, text) in [("delete_close", reason), ("lifetime_close_reason", &self.lifetime_close_reason)]
        {
            if text.len() > 123 {
                problems.push(format!(
                    "unconfirmed.{name}: the reason in a close frame must have at most 123 bytes"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_gateway_limits_equal_the_quotas_of_aws_and_are_valid() {
        let limits = Limits::default();
        assert_eq!(limits.idle_timeout, Duration::from_secs(600));
        assert_eq!(limits.connection_lifetime, Duration::from_secs(7_200));
        assert_eq!((limits.frame_bytes, limits.message_bytes, limits.url_bytes), (32_768, 131_072, 4_096));
        let mut problems = Vec::new();
        limits.check(&mut problems);
        UndocumentedBehavior::default().check(&mut problems);
        assert_eq!(problems, [""; 0]);
    }
}
