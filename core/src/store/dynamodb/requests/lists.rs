//! The lists of requests, each by an index of the table.

use super::DynamoRequestQueue;
use crate::ids::RequestKey;
use crate::store::dynamodb::codec::Item;
use crate::store::dynamodb::index::{Index, List, Order};
use crate::store::dynamodb::request_item;
use crate::store::{Page, PageRequest, RequestSummary, Status, StoreError};

/// The requests that came over a connection.
pub(super) static CONNECTION_REQUESTS: Index = Index {
    name: "connection-requests",
    partition: "connection_id",
    sort: "created_at",
    key: request_item::KEY,
    table_key,
};

/// The requests that stand so.
pub(super) static STATUS_TIME: Index = Index {
    name: "status-time",
    partition: "status_shard",
    sort: "created_at",
    key: request_item::KEY,
    table_key,
};

/// The requests that somebody has to look at.
pub(super) static TIMERS: Index =
    Index { name: "timers", partition: "timer_shard", sort: "timer_at", key: request_item::KEY, table_key };

fn table_key(key: &str) -> Item {
    request_item::key(&RequestKey::from_stored(key))
}

impl DynamoRequestQueue {
    pub(super) fn list(&self, index: &'static Index, shards: Vec<String>) -> List<'_> {
        List { client: &self.client, table: &self.table, index, shards, order: Order::OldestFirst }
    }

    pub(super) fn status_shards(&self, status: Status) -> Vec<String> {
        self.shards().map(|shard| request_item::shard_of_status(status, shard)).collect()
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = u8> {
        0..self.settings.shards.max(1)
    }
}

/// One page of a list: of its requests those that `belongs` finds still do.
pub(super) async fn summaries(
    list: List<'_>,
    page: PageRequest,
    belongs: impl Fn(&RequestSummary) -> bool,
) -> Result<Page<RequestSummary>, StoreError> {
    let decode = |item: &Item| Ok(Some(request_item::decode_summary(item)?).filter(&belongs));
    list.page(page, Some(&request_item::SUMMARY_ATTRIBUTES), decode).await
}
