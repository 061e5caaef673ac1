//! Whose a request is.

use streamer::ids::{TenantId, UserId};

use crate::plan::ClientPlan;

/// A user of a tenant.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Owner {
    pub(super) user: UserId,
    pub(super) tenant: TenantId,
}

impl Owner {
    pub(super) fn of(client: &ClientPlan) -> Self {
        Self { user: UserId::new(&client.user), tenant: TenantId::new(&client.tenant) }
    }

    /// Its request of this client id: see [`request_of`].
    pub(super) fn key(&self, id: &str) -> String {
        request_of(self.tenant.as_str(), self.user.as_str(), id)
    }
}

/// Which request a user of a tenant means by an id, in one text.
///
/// It reads like the table's keys, and is not asked of the code that makes them: that two users' requests are two is what
/// is to be checked.
pub(super) fn request_of(tenant: &str, user: &str, id: &str) -> String {
    [tenant, user, id].map(|part| part.replace('%', "%25").replace('/', "%2F")).join("/")
}
