//! The names of things: each its own type, so that none is taken for another.

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
            /// Takes the text as it is.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
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
    /// A WebSocket connection, as the gateway names it.
    ConnectionId
}
string_id! {
    /// A user: the `sub` of a token. Unique within its tenant only.
    UserId
}
string_id! {
    /// A tenant: the `tenant_id` of a token.
    TenantId
}
/// A request, as it is stored: tenant, user and client id in one key.
///
/// The three parts are joined by `/`, each with its own `%` and `/` escaped, so that two users, or
/// the same `sub` in two tenants, may use the same id and never meet.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestKey(String);

impl RequestKey {
    /// The key of `user`'s request `id`.
    #[must_use]
    pub fn new(tenant: &TenantId, user: &UserId, id: &RequestId) -> Self {
        if bugs::is(Bug::IdsUnscoped) {
            return Self(joined([id.as_str()]));
        } else if bugs::is(Bug::TenantForgotten) {
            return Self(joined([user.as_str(), id.as_str()]));
        }
        Self(joined([tenant.as_str(), user.as_str(), id.as_str()]))
    }

    /// Takes a key that was stored as it is.
    #[must_use]
    pub fn from_stored(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The stored text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of `shards` shards of a write-sharded index the request belongs to.
    ///
    /// By a hash that is stable over processes and versions, as a stored value has to be.
    #[must_use]
    pub fn shard(&self, shards: u8) -> u8 {
        let hash = fnv1a(&self.0);
        // The low bits of FNV-1a depend on few input bits: fold the high half in.
        let folded = (hash >> 32) ^ hash;
        u8::try_from(folded % u64::from(shards.max(1))).unwrap_or(0)
    }
}

/// FNV-1a, which is the same in every build: stored keys depend on it.
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

/// The key of a user within its tenant, as the `user-connections` index has it.
pub(crate) fn user_key(tenant: &TenantId, user: &UserId) -> String {
    joined([tenant.as_str(), user.as_str()])
}

/// The parts in one, such that other parts never make the same.
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
    fn parts_are_joined_and_their_delimiters_escaped() {
        assert_eq!(key("acme", "ann", "r1").as_str(), "acme/ann/r1");
        assert_eq!(key("a/c", "50%", "x/y").as_str(), "a%2Fc/50%25/x%2Fy");
    }

    proptest! {
        #[test]
        fn different_parts_never_make_the_same_key(
            a in proptest::array::uniform3("[ab/%25F]{0,6}"),
            b in proptest::array::uniform3("[ab/%25F]{0,6}"),
        ) {
            let same_key = key(&a[0], &a[1], &a[2]) == key(&b[0], &b[1], &b[2]);
            prop_assert_eq!(same_key, a == b);
        }
    }

    #[test]
    fn shards_are_stable_and_evenly_used() {
        assert_eq!(key("acme", "ann", "r1").shard(8), key("acme", "ann", "r1").shard(8));
        let mut counts = [0_u32; 8];
        for n in 0..8_000 {
            counts[usize::from(key("acme", "ann", &format!("r{n}")).shard(8))] += 1;
        }
        assert!(counts.iter().all(|n| (800..1_200).contains(n)), "{counts:?}");
        assert_eq!(key("a", "b", "c").shard(0), 0);
    }
}
