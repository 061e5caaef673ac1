//! Operations of the connection store: save, get, delete and list connections, update their last-activity
//! times, and delete stale connections.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::TryStreamExt as _;
use streamer::ids::{ConnectionId, TenantId, UserId};
use streamer::store::{Connection, ConnectionStore as _, Identity, PageRequest, StoreErrorKind, pages};

use super::{NOW, Store, at, string};

fn connection(id: &str, tenant: &str, user: &str, seconds: u64) -> Connection {
    Connection {
        id: id.into(),
        identity: Identity {
            user: user.into(),
            tenant: tenant.into(),
            permissions: vec!["reports".to_owned()],
            expires_at: at(3_600),
        },
        endpoint: "https://api.example/prod".to_owned(),
        connected_at: at(seconds),
        last_ping: at(seconds),
        metadata: BTreeMap::from([("source_ip".to_owned(), "127.0.0.1".to_owned())]),
    }
}

async fn save(store: &Store, id: &str, tenant: &str, user: &str, seconds: u64) {
    store.connections.save(&connection(id, tenant, user, seconds)).await.unwrap();
}

fn names(connections: &[Connection]) -> Vec<&str> {
    connections.iter().map(|connection| connection.id.as_str()).collect()
}

#[tokio::test]
async fn saved_connection_can_be_read_until_it_is_deleted() {
    let store = Store::new().await;
    let id = ConnectionId::from("c1");
    assert_eq!(store.connections.get(&id).await.unwrap(), None);
    save(&store, "c1", "acme", "ann", 0).await;
    let saved = Some(connection("c1", "acme", "ann", 0));
    assert_eq!(store.connections.get(&id).await.unwrap(), saved);
    assert_eq!(store.connections.delete(&id).await.unwrap(), saved);
    assert_eq!(store.connections.delete(&id).await.unwrap(), None);
    assert_eq!(store.connections.get(&id).await.unwrap(), None);
}

#[tokio::test]
async fn connection_with_the_id_of_another_users_connection_cannot_be_saved() {
    let store = Store::new().await;
    save(&store, "c1", "acme", "ann", 0).await;
    for (tenant, user) in [("acme", "bob"), ("other", "ann")] {
        let error = store.connections.save(&connection("c1", tenant, user, 1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::AlreadyExists, "{tenant}/{user}");
    }
    save(&store, "c1", "acme", "ann", 2).await;
    let stored = store.connections.get(&"c1".into()).await.unwrap();
    assert_eq!(stored, Some(connection("c1", "acme", "ann", 2)));
}

#[tokio::test]
async fn connections_are_listed_by_user_and_by_tenant_oldest_first() {
    let store = Store::new().await;
    for (id, tenant, user, seconds) in [
        ("c3", "acme", "ann", 30),
        ("c1", "acme", "ann", 10),
        ("c2", "acme", "bob", 20),
        ("c4", "acme", "ann", 40),
        ("c5", "other", "ann", 5),
        ("c6", "acme/ann", "", 1),
    ] {
        save(&store, id, tenant, user, seconds).await;
    }
    let by_user = async |tenant: &str, user: &str| {
        let (tenant, user) = (TenantId::from(tenant), UserId::from(user));
        let page = store.connections.list_by_user(&tenant, &user, PageRequest::default()).await.unwrap();
        assert_eq!(page.next, None);
        page.items
    };
    assert_eq!(names(&by_user("acme", "ann").await), ["c1", "c3", "c4"]);
    assert_eq!(names(&by_user("other", "ann").await), ["c5"]);
    assert!(by_user("acme", "carl").await.is_empty());
    let tenant = TenantId::from("acme");
    let page = store.connections.list_by_tenant(&tenant, PageRequest::default()).await.unwrap();
    assert_eq!(names(&page.items), ["c1", "c2", "c3", "c4"]);
    assert_eq!(
        page.items[0],
        connection("c1", "acme", "ann", 10),
        "a listed connection has all stored attributes"
    );
}

#[tokio::test]
async fn connections_opened_at_the_same_time_are_each_listed_exactly_once_across_pages() {
    let store = Store::new().await;
    for n in 0..7 {
        save(&store, &format!("c{n}"), "acme", "ann", n / 4).await;
    }
    let (tenant, user) = (TenantId::from("acme"), UserId::from("ann"));
    let all = store.connections.list_by_user(&tenant, &user, PageRequest::default()).await.unwrap().items;
    assert_eq!(all.len(), 7);
    for limit in 1..=8 {
        let list = |page| store.connections.list_by_user(&tenant, &user, page);
        let listed: Vec<_> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
        assert_eq!(names(&listed), names(&all), "page limit {limit}");
    }
}

#[tokio::test]
async fn corrupt_connection_is_reported_and_other_connections_are_listed() {
    let store = Store::new().await;
    for n in 0..3 {
        save(&store, &format!("c{n}"), "acme", "ann", n).await;
    }
    store.edit_connection("c1", "SET endpoint = :value", AttributeValue::Bool(true)).await;
    let page = store.connections.list_by_tenant(&"acme".into(), PageRequest::default()).await.unwrap();
    assert_eq!(names(&page.items), ["c0", "c2"]);
    let problems: Vec<_> = page.unreadable.iter().map(|error| (error.kind(), error.to_string())).collect();
    let problem = "corrupt item: item \"c1\", attribute \"endpoint\": expected a string, found a boolean";
    assert_eq!(problems, [(StoreErrorKind::Corrupt, problem.to_owned())]);
}

#[tokio::test]
async fn last_activity_update_never_lowers_the_time_or_recreates_a_deleted_connection() {
    let store = Store::new().await;
    save(&store, "c1", "acme", "ann", 0).await;
    store.edit_connection("c1", "SET added_later = :value", string("kept")).await;
    let id = ConnectionId::from("c1");
    for (written, stored) in [(60, 60), (30, 60), (60, 60), (90, 90)] {
        store.connections.update_last_ping(&id, at(written)).await.unwrap();
        let expected = Connection { last_ping: at(stored), ..connection("c1", "acme", "ann", 0) };
        assert_eq!(store.connections.get(&id).await.unwrap(), Some(expected));
    }
    let get = store.client.get_item().table_name(&store.connections_table).key("connection_id", string("c1"));
    let item = get.send().await.unwrap().item.unwrap();
    assert_eq!(
        item["added_later"],
        string("kept"),
        "an update keeps an attribute that a later version of Streamer added"
    );
    store.connections.delete(&id).await.unwrap();
    let error = store.connections.update_last_ping(&id, at(120)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
    assert_eq!(store.connections.get(&id).await.unwrap(), None);
}

#[tokio::test]
async fn only_connections_without_recent_activity_are_deleted_as_stale() {
    let store = Store::new().await;
    for n in 0..12 {
        save(&store, &format!("silent{n}"), "acme", "ann", n).await;
    }
    let now = at(12) + Connection::STALE_AFTER;
    save(&store, "pinged", "acme", "ann", 0).await;
    store.connections.update_last_ping(&"pinged".into(), at(12)).await.unwrap();
    save(&store, "recent", "acme", "ann", 12).await;
    let before = NOW + now.since(NOW).saturating_sub(Connection::STALE_AFTER);
    assert_eq!(store.connections.delete_stale(before).await.unwrap(), 12);
    let left = store.connections.list_by_tenant(&"acme".into(), PageRequest::default()).await.unwrap();
    assert_eq!(names(&left.items), ["pinged", "recent"]);
    assert_eq!(store.connections.delete_stale(before).await.unwrap(), 0);
    assert!(
        Connection::STALE_AFTER > Duration::from_hours(2),
        "STALE_AFTER is longer than 2 h, the maximum lifetime of an API Gateway connection"
    );
}
