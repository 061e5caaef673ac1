//! The DynamoDB item of a connection: its attributes, key and codec.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `connection_id` | S | table key |
//! | `user_key` | S | tenant and user id, joined; partition key of the index `user-connections`, sorted by `connected_at` |
//! | `tenant_id` | S | partition key of the index `tenant-connections`, sorted by `connected_at` |
//! | `user_id` | S | the token's `sub` |
//! | `permissions` | L of S | permissions that the token grants |
//! | `token_expires_at` | N, ms | expiry of the token, from which on the connection has no rights |
//! | `endpoint` | S | URL of the gateway's management API for the connection |
//! | `connected_at`, `last_ping` | N, ms | time of the connection's opening, and of its client's last activity |
//! | `metadata` | M of S | properties of the client: `user_agent`, `source_ip` |
//! | `ttl` | N, s | DynamoDB's time to live: 24 hours after `connected_at` |

use aws_sdk_dynamodb::types::AttributeValue;

use super::codec::{Corrupt, Item, Reader, n, s, strings, time};
use crate::ids::{ConnectionId, TenantId, UserId, user_key};
use crate::store::{Connection, Identity};

/// Name of the connections table's partition key attribute.
pub const KEY: &str = "connection_id";

/// Returns the key of a connection's item.
#[must_use]
pub fn key(id: &ConnectionId) -> AttributeValue {
    s(id.as_str())
}

/// Encodes a connection as its DynamoDB item.
#[must_use]
pub fn encode(connection: &Connection) -> Item {
    let Connection { id, identity, endpoint, connected_at, last_ping, metadata } = connection;
    let Identity { user, tenant, permissions, expires_at } = identity;
    Item::from([
        (KEY.into(), key(id)),
        ("user_key".into(), s(user_key(tenant, user))),
        ("tenant_id".into(), s(tenant.as_str())),
        ("user_id".into(), s(user.as_str())),
        ("permissions".into(), AttributeValue::L(permissions.iter().map(s).collect())),
        ("token_expires_at".into(), time(*expires_at)),
        ("endpoint".into(), s(endpoint)),
        ("connected_at".into(), time(*connected_at)),
        ("last_ping".into(), time(*last_ping)),
        ("metadata".into(), strings(metadata)),
        ("ttl".into(), n((*connected_at + Connection::TTL).as_secs())),
    ])
}

/// Decodes a connection from its DynamoDB item.
///
/// # Errors
/// [`Corrupt`] if an attribute is missing or has the wrong type.
pub fn decode(item: &Item) -> Result<Connection, Corrupt> {
    let read = Reader::new(item, KEY);
    Ok(Connection {
        id: ConnectionId::from(read.string(KEY)?),
        identity: Identity {
            user: UserId::from(read.string("user_id")?),
            tenant: TenantId::from(read.string("tenant_id")?),
            permissions: read.string_list("permissions")?,
            expires_at: read.time("token_expires_at")?,
        },
        endpoint: read.string("endpoint")?.to_owned(),
        connected_at: read.time("connected_at")?,
        last_ping: read.time("last_ping")?,
        metadata: read.strings("metadata")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::Timestamp;

    prop_compose! {
        fn connections()(
            id in "[A-Za-z0-9_-]{15}=", user in "\\PC{1,20}", tenant in "\\PC{1,20}", endpoint in "\\PC{0,20}",
            permissions in proptest::collection::vec("\\PC{0,8}", 0..4),
            metadata in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4),
            times in proptest::array::uniform3(0..4_000_000_000_000_u64),
        ) -> Connection {
            let [expires_at, connected_at, last_ping] = times.map(Timestamp::from_millis);
            Connection {
                id: ConnectionId::new(id),
                identity: Identity { user: UserId::new(user), tenant: TenantId::new(tenant), permissions, expires_at },
                endpoint, connected_at, last_ping, metadata,
            }
        }
    }

    proptest! {
        #[test]
        fn connection_item_decodes_to_the_encoded_connection(connection in connections()) {
            prop_assert_eq!(decode(&encode(&connection)).unwrap(), connection);
        }

        #[test]
        fn connection_attribute_of_the_wrong_type_is_named_in_the_error(
            connection in connections(), pick in 0..9_usize,
        ) {
            let attribute = [
                "connection_id", "user_id", "tenant_id", "permissions", "token_expires_at", "endpoint",
                "connected_at", "last_ping", "metadata",
            ][pick];
            let mut item = encode(&connection);
            item.insert(attribute.into(), AttributeValue::Bool(true));
            let corrupt = decode(&item).unwrap_err();
            prop_assert_eq!(corrupt.attribute, attribute);
            prop_assert!(corrupt.problem.contains("a boolean"), "error names the type found: {}", corrupt);
        }
    }
}
