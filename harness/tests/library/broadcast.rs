//! Broadcasts of a frame to all connections of a user or of a tenant. The connections are stored in the
//! embedded database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use streamer::app::App;
use streamer::connections::{
    Broadcast, BroadcastError, Connections, Outcome, SendError, SendErrorKind, Tally, Target,
};
use streamer::ids::ConnectionId;
use streamer::store::ConnectionStore as _;
use streamer::store::dynamodb::DynamoConnectionStore;
use streamer_harness::faults::{Call, Fault};
use tokio::time::Instant;

use crate::world::{CONNECTIONS, World};

/// Fake of the connections port that counts sends. Each send takes 100 ms and succeeds.
#[derive(Clone, Debug, Default)]
struct Slow {
    /// Number of sends in flight.
    in_flight: Arc<AtomicUsize>,
    /// Maximum number of sends that were in flight together.
    max_in_flight: Arc<AtomicUsize>,
    /// Number of finished sends.
    sent: Arc<AtomicUsize>,
}

impl Connections for Slow {
    async fn send(&self, _: &ConnectionId, _: &str) -> Result<(), SendError> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.sent.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn broadcast<P: Connections>(world: &World, connections: P) -> Broadcast<DynamoConnectionStore, P> {
    let store = DynamoConnectionStore::new(world.db.client(), CONNECTIONS);
    Broadcast::new(store, connections, Arc::new(world.clock))
}

fn frame() -> Value {
    json!({"type": "response", "request_id": "none", "success": true, "data": "We are back"})
}

async fn outcomes(broadcast: &Broadcast<DynamoConnectionStore, crate::world::Clients>) -> Vec<String> {
    let tenant = "acme".into();
    let targets: Vec<Target> =
        broadcast.to_tenant(&tenant, &frame()).unwrap().map(Result::unwrap).collect().await;
    let mut outcomes: Vec<String> = targets
        .into_iter()
        .map(|target| {
            let outcome = if let Outcome::Failed(error) = &target.outcome {
                format!("failed, {:?}", error.kind())
            } else {
                format!("{:?}", target.outcome).to_lowercase()
            };
            format!("{}: {outcome}", target.connection)
        })
        .collect();
    outcomes.sort();
    outcomes
}

#[tokio::test(start_paused = true)]
async fn tenant_broadcast_returns_an_outcome_per_connection_and_deletes_gone_connections() {
    let world = World::new(App::new()).await;
    for id in ["c-gone", "c-refused", "c-throttled", "c-slow", "c-once"] {
        world.connect(id, "acme", "ann").await;
    }
    world.connect("c-other", "other", "ann").await;
    let mut expired = world.connections().get(&"c-bob".into()).await.unwrap().unwrap();
    expired.id = "c-expired".into();
    expired.identity.expires_at = world.now();
    world.connections().save(&expired).await.unwrap();
    let clients = &world.clients;
    clients.fail("c-gone", SendErrorKind::Gone);
    clients.fail("c-refused", SendErrorKind::Refused);
    clients.fail("c-throttled", SendErrorKind::Unavailable);
    clients.fail_times("c-once", SendErrorKind::Unavailable, 1);
    clients.hang("c-slow");
    let begun = Instant::now();
    assert_eq!(
        outcomes(&broadcast(&world, clients.clone())).await,
        [
            "c-ann: sent",
            "c-bob: sent",
            "c-expired: expired",
            "c-gone: gone",
            "c-once: sent",
            "c-refused: failed, Refused",
            "c-slow: failed, Unanswered",
            "c-throttled: failed, Unavailable",
        ]
    );
    assert_eq!(begun.elapsed().as_secs(), 3, "the send to the hanging connection times out after 3 s");
    assert!(clients.times()[..3].iter().all(|at| *at - begun < Duration::from_secs(1)));
    assert_eq!(clients.frames("c-expired"), []);
    assert_eq!(clients.frames("c-other"), [], "a connection of another tenant receives no frame");
    let known = async |id: &str| world.connections().get(&id.into()).await.unwrap().is_some();
    assert!(!known("c-gone").await && known("c-refused").await && known("c-slow").await);
}

#[tokio::test(start_paused = true)]
async fn user_broadcast_reaches_only_the_connections_of_the_given_tenant_and_user() {
    let world = World::new(App::new()).await;
    world.connect("c-ann2", "acme", "ann").await;
    world.connect("c-ann3", "other", "ann").await;
    let broadcast = broadcast(&world, world.clients.clone());
    let (tenant, user) = ("acme".into(), "ann".into());
    let tally: Tally = broadcast.to_user(&tenant, &user, &frame()).unwrap().collect().await;
    assert_eq!((tally.sent, tally.gone, tally.expired, tally.failed, tally.unread), (2, 0, 0, 0, 0));
    let count = |id: &str| world.clients.frames(id).len();
    assert_eq!((count("c-ann"), count("c-ann2"), count("c-ann3"), count("c-bob")), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn send_to_one_connection_returns_sent_or_gone_or_a_store_error() {
    let world = World::new(App::new()).await;
    let broadcast = broadcast(&world, world.clients.clone());
    assert!(matches!(broadcast.send(&"c-ann".into(), &frame()).await.unwrap(), Outcome::Sent));
    assert!(matches!(broadcast.send(&"c-none".into(), &frame()).await.unwrap(), Outcome::Gone));
    world.clients.fail("c-bob", SendErrorKind::Gone);
    assert!(matches!(broadcast.send(&"c-bob".into(), &frame()).await.unwrap(), Outcome::Gone));
    assert!(world.connections().get(&"c-bob".into()).await.unwrap().is_none());
    let _broken = world.faults.add(Fault::fail(Call::dynamodb("GetItem")));
    assert!(matches!(broadcast.send(&"c-ann".into(), &frame()).await, Err(BroadcastError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn broadcast_frame_above_128_kib_is_refused_before_any_send() {
    let world = World::new(App::new()).await;
    let broadcast = broadcast(&world, Slow::default());
    // The serialized JSON string is two bytes longer than its content, because of the quotes.
    let (largest, too_large) = (json!("x".repeat(128 * 1024 - 2)), json!("x".repeat(128 * 1024 - 1)));
    let tenant = "acme".into();
    let refused = broadcast.to_tenant(&tenant, &too_large).err().unwrap();
    assert_eq!(refused.to_string(), "the frame has 131073 bytes; the gateway carries at most 131072");
    assert!(broadcast.to_user(&tenant, &"ann".into(), &too_large).is_err());
    assert!(matches!(broadcast.send(&"c-ann".into(), &too_large).await, Err(BroadcastError::TooLarge(_))));
    assert_eq!(broadcast.connections.sent.load(Ordering::SeqCst), 0);
    let tally: Tally = broadcast.to_tenant(&tenant, &largest).unwrap().collect().await;
    assert_eq!(tally.sent, 2);
}

#[tokio::test(start_paused = true)]
async fn broadcast_reads_pages_on_demand_and_sends_to_ten_connections_concurrently() {
    let world = World::new(App::new()).await;
    for n in 0..350 {
        world.connect(&format!("c{n}"), "acme", &format!("u{n}")).await;
    }
    let slow = Slow::default();
    let broadcast = broadcast(&world, slow.clone());
    let tenant = "acme".into();
    let ledger = world.db.ledger();
    drop(ledger.take());
    let some: Vec<_> = broadcast.to_tenant(&tenant, &frame()).unwrap().take(20).collect().await;
    assert_eq!(some.len(), 20);
    let count = |calls: &[_]| calls.len();
    assert_eq!(count(&ledger.take()), 2, "one page costs one query and one batch read");
    assert!(slow.sent.load(Ordering::SeqCst) <= 30);
    let begun = Instant::now();
    let tally: Tally = broadcast.to_tenant(&tenant, &frame()).unwrap().collect().await;
    assert_eq!(tally.sent, 352);
    assert_eq!(slow.max_in_flight.load(Ordering::SeqCst), 10);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn broadcast_reports_a_failed_query_for_page_two_after_sending_to_page_one() {
    let world = World::new(App::new()).await;
    for n in 0..150 {
        world.connect(&format!("c{n}"), "acme", "ann").await;
    }
    let _broken = world.faults.add(Fault::fail(Call::dynamodb("Query")).after(1));
    let tenant = "acme".into();
    let broadcast = broadcast(&world, world.clients.clone());
    let tally: Tally = broadcast.to_tenant(&tenant, &frame()).unwrap().collect().await;
    assert_eq!((tally.sent, tally.unread), (100, 1));
    assert!(tally.last_error.unwrap().is_transient());
}
