//! The user to whom a request or a connection belongs.

use streamer::ids::{TenantId, UserId};

use crate::plan::ClientPlan;

/// A user of a tenant, to whom requests and connections belong.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Owner {
    pub(super) user: UserId,
    pub(super) tenant: TenantId,
}

impl Owner {
    pub(super) fn of(client: &ClientPlan) -> Self {
        Self { user: UserId::new(&client.user), tenant: TenantId::new(&client.tenant) }
    }

    /// Returns the key that [`request_of`] makes for the owner's request with this client id.
    pub(super) fn key(&self, id: &str) -> String {
        request_of(self.tenant.as_str(), self.user.as_str(), id)
    }
}

/// Returns the key of a request, made from its tenant, user and client id.
///
/// The key has the form of the table's keys, but is made without the code under test. So the checks can test
/// that requests of two users never share a key.
pub(super) fn request_of(tenant: &str, user: &str, id: &str) -> String {
    [tenant, user, id].map(|part| part.replace('%', "%25").replace('/', "%2F")).join("/")
}
