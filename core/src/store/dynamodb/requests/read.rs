use super::DynamoRequestQueue;
use crate::ids::{ConnectionId, RequestKey};
use crate::ports::Timestamp;
use crate::store::dynamodb::codec::Item;
use crate::store::dynamodb::index::{Index, List, Order};
use crate::store::dynamodb::request_item;
use crate::store::{Page, PageRequest, ReadRequests, Request, RequestSummary, Status, StoreError};

/// Index of requests by the connection over which they arrived.
pub(super) static CONNECTION_REQUESTS: Index = Index {
    name: "connection-requests",
    partition: "connection_id",
    sort: "created_at",
    key: request_item::KEY,
    table_key,
};

/// Index of requests by status.
pub(super) static STATUS_TIME: Index = Index {
    name: "status-time",
    partition: "status_shard",
    sort: "created_at",
    key: request_item::KEY,
    table_key,
};

/// Timer index: requests by the time at which the sweeper must handle them.
static TIMERS: Index =
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

    fn shards(&self) -> impl Iterator<Item = u8> {
        0..self.settings.shards.max(1)
    }
}

/// Reads one page of request summaries. Requests that no longer satisfy `belongs` are left out.
async fn summaries(
    list: List<'_>,
    page: PageRequest,
    belongs: impl Fn(&RequestSummary) -> bool,
) -> Result<Page<RequestSummary>, StoreError> {
    let decode = |item: &Item| Ok(Some(request_item::decode_summary(item)?).filter(&belongs));
    list.page(page, Some(&request_item::SUMMARY_ATTRIBUTES), decode).await
}

impl ReadRequests for DynamoRequestQueue {
    async fn get(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        match self.item(key).await? {
            Some(item) => self.read_request(key, &item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn snapshot(&self, key: &RequestKey) -> Result<Option<Request>, StoreError> {
        match self.item(key).await? {
            Some(item) => self.without_big_input(key, item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn get_by_connection(
        &self,
        connection: &ConnectionId,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        let list = self.list(&CONNECTION_REQUESTS, vec![connection.to_string()]);
        let list = List { order: Order::NewestFirst, ..list };
        summaries(list, page, |_| true).await
    }

    async fn get_by_status(
        &self,
        status: Status,
        page: PageRequest,
    ) -> Result<Page<RequestSummary>, StoreError> {
        let list = self.list(&STATUS_TIME, self.status_shards(status));
        summaries(list, page, |found| found.status == status).await
    }

    async fn due(&self, now: Timestamp, page: PageRequest) -> Result<Page<RequestSummary>, StoreError> {
        let shards = self.shards().map(|shard| shard.to_string()).collect();
        let list = List { order: Order::OldestFirstUntil(now), ..self.list(&TIMERS, shards) };
        summaries(list, page, |found| found.timer_at.is_some_and(|at| at <= now)).await
    }
}
