//! What an API may not exceed, and a choice for each behaviour that AWS leaves unwritten.

use std::time::Duration;

use super::throttle::{FAR, Throttle};

/// The quotas and timeouts of a WebSocket API, AWS's by default.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// How many new connections a second are accepted; 500, in bursts of as many. AWS counts those of all APIs of an
    /// account in a region. Beyond it a handshake is refused with 429.
    pub connections: Throttle,
    /// How many requests a second are accepted: handshakes, messages, and calls of the management API; 10,000, in
    /// bursts of 5,000. AWS counts those of all APIs of an account in a region.
    pub requests: Throttle,
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
            // Above this a channel of tokio's refuses to be made.
            if !(1..=usize::MAX >> 3).contains(&value) {
                problems.push(format!("limits.{name} must be from 1 to {}, not {value}", usize::MAX >> 3));
            }
        }
        for (name, value) in
            [("idle_timeout", self.idle_timeout), ("connection_lifetime", self.connection_lifetime)]
        {
            if value.is_zero() || value > FAR {
                problems.push(format!("limits.{name} must be above zero and at most a year, not {value:?}"));
            }
        }
    }
}

/// What AWS does where no source says: each field is one such question, its default the likelier answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// Whether the headers and the body of a refused `$connect` reach the client beside its status; default yes.
    pub connect_refusal_body: bool,
    /// The status that a client gets when `$connect` times out; default 504.
    pub connect_timeout_status: u16,
    /// Whether a reply of `$connect` that is an object without `statusCode` lets the client in; default no: it is
    /// answered as a malformed reply, 502. (A message's function may leave it out.)
    pub connect_without_status: bool,
    /// Whether a message that is throttled makes a `Too Many Requests` frame; default yes.
    pub throttled_message_frame: bool,
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

impl Unconfirmed {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_awss_limits_and_pass_the_check() {
        let limits = Limits::default();
        assert_eq!(limits.idle_timeout, Duration::from_secs(600));
        assert_eq!(limits.connection_lifetime, Duration::from_secs(7_200));
        assert_eq!((limits.frame_bytes, limits.message_bytes, limits.url_bytes), (32_768, 131_072, 4_096));
        let mut problems = Vec::new();
        limits.check(&mut problems);
        Unconfirmed::default().check(&mut problems);
        assert_eq!(problems, [""; 0]);
    }
}
