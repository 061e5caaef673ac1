//! The ids of requests, connections, users and tenants. Each kind of id has its own type, so that the compiler
//! rejects an id of the wrong kind.

use std::fmt;
use std::hash::Hasher as _;

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

pub use crate::protocol::RequestId;

use crate::bugs::{self, Bug};

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Creates the id from a text, without validating the text.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Returns the id as a string.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

string_id! {
    /// The id of a WebSocket connection, assigned by API Gateway.
    ConnectionId
}
string_id! {
    /// The id of a user, from the `sub` claim of the user's token. The id is unique only within the user's tenant.
    UserId
}
string_id! {
    /// The id of a tenant, from the `tenant_id` claim of a token.
    TenantId
}
/// The key under which a request is stored: its tenant, its user and the id that the client chose.
///
/// The text of the key consists of these three parts, joined by `/`. Each `%` and `/` within a part is escaped.
/// Because the key contains tenant and user, different users can choose the same id for their requests.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestKey(String);

impl RequestKey {
    /// Creates the key of the request `id` of a user.
    #[must_use]
    pub fn new(tenant: &TenantId, user: &UserId, id: &RequestId) -> Self {
        if bugs::is(Bug::IdsUnscoped) {
            return Self(joined([id.as_str()]));
        } else if bugs::is(Bug::TenantForgotten) {
            return Self(joined([user.as_str(), id.as_str()]));
        }
        Self(joined([tenant.as_str(), user.as_str(), id.as_str()]))
    }

    /// Creates a key from its text as stored in a table, which [`as_str`](Self::as_str) returned.
    #[must_use]
    pub fn from_stored(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// Returns the text of the key, such as `acme/ann/r1`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number of the request's shard, from 0 to `shards - 1`, in a write-sharded index.
    ///
    /// The shard number is stored in the index. So it comes from a hash that is the same in all processes and
    /// versions.
    #[must_use]
    pub fn shard(&self, shards: u8) -> u8 {
        let hash = fnv1a(&self.0);
        // The low bits of an FNV-1a hash depend on few bits of the input, so the high half is mixed into the low
        // half.
        let folded = (hash >> 32) ^ hash;
        u8::try_from(folded % u64::from(shards.max(1))).unwrap_or(0)
    }
}

/// Returns the FNV-1a hash of a text. Stored keys contain values of this hash, so it must be the same in every build.
pub(crate) fn fnv1a(text: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the partition key of a user in the index `user-connections`, such as `acme/ann` (tenant and user).
pub(crate) fn user_key(tenant: &TenantId, user: &UserId) -> String {
    joined([tenant.as_str(), user.as_str()])
}

/// Joins parts to one key, separated by `/`. Different lists of parts always result in different keys.
pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut key = String::new();
    for (n, part) in parts.into_iter().enumerate() {
        if n > 0 {
            key.push('/');
        }
        escape_into(&mut key, part);
    }
    key
}

fn escape_into(key: &mut String, part: &str) {
    for c in part.chars() {
        match c {
            '%' => key.push_str("%25"),
            '/' => key.push_str("%2F"),
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, user: &str, id: &str) -> RequestKey {
        RequestKey::new(&tenant.into(), &user.into(), &id.into())
    }

    #[test]
    fn request_key_joins_its_parts_and_escapes_delimiters() {
        assert_eq!(key("acme", "ann", "r1").as_str(), "acme/ann/r1");
        assert_eq!(key("a/c", "50%", "x/y").as_str(), "a%2Fc/50%25/x%2Fy");
    }

    proptest! {
        #[test]
        fn request_keys_are_equal_only_if_all_parts_are_equal(
            a in proptest::array::uniform3("[ab/%25F]{0,6}"),
            b in proptest::array::uniform3("[ab/%25F]{0,6}"),
        ) {
            let same_key = key(&a[0], &a[1], &a[2]) == key(&b[0], &b[1], &b[2]);
            prop_assert_eq!(same_key, a == b);
        }
    }

    #[test]
    fn request_key_shards_are_stable_and_evenly_distributed() {
        assert_eq!(key("acme", "ann", "r1").shard(8), key("acme", "ann", "r1").shard(8));
        let mut counts = [0_u32; 8];
        for n in 0..8_000 {
            counts[usize::from(key("acme", "ann", &format!("r{n}")).shard(8))] += 1;
        }
        assert!(counts.iter().all(|n| (800..1_200).contains(n)), "{counts:?}");
        assert_eq!(key("a", "b", "c").shard(0), 0);
    }
}
