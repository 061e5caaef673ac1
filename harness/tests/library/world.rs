use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use serde_json::{Value, json};
use streamer::ServiceError;
use streamer::app::App;
use streamer::connections::{Connections, SendError, SendErrorKind};
use streamer::dead_letters::{DeadLetter, DeadLetters};
use streamer::executor::{Executor, ExecutorSettings};
use streamer::handler::HandlerRuntime;
use streamer::ids::{ConnectionId, RequestKey};
use streamer::ports::{Clock, SystemEntropy, Timestamp, TokioClock};
use streamer::processor::{BatchResponse, Processor, ProcessorSettings, StreamBatch};
use streamer::protocol::Frame;
use streamer::router::Router;
use streamer::store::dynamodb::{
    DynamoConnectionStore, DynamoRequestQueue, Item, QueueSettings, request_item,
};
use streamer::store::{
    Connection, ConnectionStore as _, Identity, NewStatus, PageRequest, ReadRequests as _, Request,
    RequestQueue, Status, SweepRequests as _,
};
use streamer::sweeper::{Sweeper, SweeperSettings};
use streamer::telemetry::{MetricLine, MetricSink};
use streamer::worker::Worker;
use streamer::worker::dispatch::{WorkerDispatch, WorkerEvent};
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::faults::Faults;
use streamer_harness::stage::create_tables;
use streamer_harness::template::{Environment, Template};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) const REQUESTS: &str = "streamer-RequestsTable";
pub(crate) const CONNECTIONS: &str = "streamer-ConnectionsTable";
pub(crate) const RATE_LIMITS: &str = "streamer-RateLimitsTable";

/// The clients: what they were sent, and what becomes of a frame on its way to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    sent: Arc<Mutex<Vec<(ConnectionId, Frame, Instant)>>>,
    failing: Arc<Mutex<BTreeMap<ConnectionId, (SendErrorKind, u32)>>>,
    hanging: Arc<Mutex<Option<ConnectionId>>>,
}

impl Clients {
    pub(crate) fn fail(&self, id: &str, kind: SendErrorKind) {
        self.fail_times(id, kind, u32::MAX);
    }

    pub(crate) fn fail_times(&self, id: &str, kind: SendErrorKind, times: u32) {
        self.failing.lock().unwrap().insert(id.into(), (kind, times));
    }

    pub(crate) fn hang(&self, id: &str) {
        *self.hanging.lock().unwrap() = Some(id.into());
    }

    pub(crate) fn frames(&self, id: &str) -> Vec<Frame> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(to, ..)| to.as_str() == id).map(|(_, frame, _)| frame.clone()).collect()
    }

    /// When each frame was sent.
    pub(crate) fn times(&self) -> Vec<Instant> {
        self.sent.lock().unwrap().iter().map(|(.., at)| *at).collect()
    }
}

impl Connections for Clients {
    async fn send(&self, to: &ConnectionId, frame: &str) -> Result<(), SendError> {
        if self.hanging.lock().unwrap().as_ref() == Some(to) {
            std::future::pending::<()>().await;
        }
        if let Some((kind, times)) = self.failing.lock().unwrap().get_mut(to)
            && *times > 0
        {
            *times -= 1;
            return Err(SendError::new(*kind));
        }
        let frame = serde_json::from_str(frame).unwrap();
        self.sent.lock().unwrap().push((to.clone(), frame, Instant::now()));
        Ok(())
    }
}

/// The dead letters that were sent, and how many are refused first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letters {
    sent: Arc<Mutex<Vec<DeadLetter>>>,
    failing: Arc<Mutex<u32>>,
}

impl Letters {
    pub(crate) fn fail_times(&self, times: u32) {
        *self.failing.lock().unwrap() = times;
    }

    pub(crate) fn sent(&self) -> Vec<DeadLetter> {
        self.sent.lock().unwrap().clone()
    }
}

impl DeadLetters for Letters {
    async fn send(&self, letter: &DeadLetter) -> Result<(), ServiceError> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(ServiceError::transient("send a dead letter", "the queue is throttled"));
        }
        self.sent.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

/// The requests that were handed over to the worker, and how many hand-overs are refused first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatched {
    keys: Arc<Mutex<Vec<RequestKey>>>,
    failing: Arc<Mutex<u32>>,
    refusing: Arc<AtomicBool>,
}

impl Dispatched {
    /// Has every hand-over be refused for good.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_times(&self, times: u32) {
        *self.failing.lock().unwrap() = times;
    }

    pub(crate) fn keys(&self) -> Vec<RequestKey> {
        self.keys.lock().unwrap().clone()
    }
}

impl WorkerDispatch for Dispatched {
    async fn dispatch(&self, key: &RequestKey) -> Result<(), ServiceError> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(ServiceError::refused("hand over", "there is no such function"));
        }
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(ServiceError::transient("hand over", "the function is throttled"));
        }
        self.keys.lock().unwrap().push(key.clone());
        Ok(())
    }
}

/// The metrics that were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<Vec<String>>>);

impl Metrics {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl MetricSink for Metrics {
    fn write(&self, line: &MetricLine) {
        self.0.lock().unwrap().push(line.to_json());
    }
}

pub(crate) type TestProcessor<Q> = Processor<Q, Clients, Letters, Dispatched>;

/// The tables of the template, a router and a processor on them, and clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) db: DynamoDb,
    pub(crate) faults: Faults,
    pub(crate) clients: Clients,
    pub(crate) letters: Letters,
    pub(crate) dispatched: Dispatched,
    pub(crate) metrics: Metrics,
    pub(crate) clock: TokioClock,
    pub(crate) app: Arc<App>,
    pub(crate) router: Router<DynamoConnectionStore, DynamoRequestQueue, Clients>,
}

impl World {
    /// A world in which `ann` of `acme` is connected as `c-ann`, and `bob` as `c-bob`.
    pub(crate) async fn new(app: App) -> Self {
        let clock = TokioClock::starting_at(Timestamp::from_secs(1_700_000_000));
        let faults = Faults::default();
        let db = DynamoDb::builder().clock(Arc::new(clock)).faults(faults.clone()).in_memory().unwrap();
        create_tables_of_template(&db);
        let app = Arc::new(app);
        let clients = Clients::default();
        let connections = DynamoConnectionStore::new(db.client(), CONNECTIONS);
        let router = Router::new(
            Arc::clone(&app),
            connections.clone(),
            queue(&db),
            clients.clone(),
            Arc::new(clock),
            Handle::current(),
        );
        let (letters, dispatched, metrics) = (Letters::default(), Dispatched::default(), Metrics::default());
        let world = Self { db, faults, clients, letters, dispatched, metrics, clock, app, router };
        for user in ["ann", "bob"] {
            connections.save(&world.connection(user)).await.unwrap();
        }
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn connection(&self, user: &str) -> Connection {
        Connection {
            id: ConnectionId::new(format!("c-{user}")),
            identity: Identity {
                user: user.into(),
                tenant: "acme".into(),
                permissions: Vec::new(),
                expires_at: self.now() + Duration::from_hours(1),
            },
            endpoint: "https://api.example/prod".into(),
            connected_at: self.now(),
            last_ping: self.now(),
            metadata: BTreeMap::new(),
        }
    }

    /// Connects `user` anew, with these permissions.
    pub(crate) async fn grant(&self, user: &str, permissions: &[&str]) {
        let mut connection = self.connection(user);
        connection.identity.permissions = permissions.iter().map(ToString::to_string).collect();
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS).save(&connection).await.unwrap();
    }

    /// Opens another connection.
    pub(crate) async fn connect_as(&self, connection: &str, user: &str, tenant: &str) {
        let mut opened = self.connection(user);
        opened.id = connection.into();
        opened.identity.tenant = tenant.into();
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS).save(&opened).await.unwrap();
    }

    /// Another environment's router, of an app of its own.
    pub(crate) fn router_of(&self, app: App) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
        self.router_with(app, Handle::current())
    }

    pub(crate) fn router_with(
        &self,
        app: App,
        handlers: Handle,
    ) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
        let connections = DynamoConnectionStore::new(self.db.client(), CONNECTIONS);
        let clients = self.clients.clone();
        Router::new(Arc::new(app), connections, queue(&self.db), clients, Arc::new(self.clock), handlers)
    }

    /// A router on tables of these names.
    pub(crate) fn router_on(
        &self,
        connections: &str,
        requests: &str,
    ) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
        let connections = DynamoConnectionStore::new(self.db.client(), connections);
        let queue = DynamoRequestQueue::new(self.db.client(), requests, QueueSettings::default());
        Router::new(
            Arc::clone(&self.app),
            connections,
            queue,
            self.clients.clone(),
            Arc::new(self.clock),
            Handle::current(),
        )
    }

    /// Connects a user of a tenant.
    pub(crate) async fn connect(&self, connection: &str, tenant: &str, user: &str) {
        let mut saved = self.connection(user);
        saved.id = connection.into();
        saved.identity.tenant = tenant.into();
        self.connections().save(&saved).await.unwrap();
    }

    pub(crate) fn connections(&self) -> DynamoConnectionStore {
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS)
    }

    pub(crate) async fn disconnect(&self, connection: &str) {
        self.connections().delete(&connection.into()).await.unwrap();
    }

    /// Sends a message over a connection, and returns the answer as it goes over the wire.
    pub(crate) async fn say(&self, connection: &str, body: impl ToString) -> String {
        // Boxed, since a message on its way is large.
        Box::pin(self.router.route(&message(connection, json!(body.to_string()), false))).await
    }

    /// Asks for an action as ann, and returns the answer.
    pub(crate) async fn ask(&self, action: &str, id: &str, payload: Value) -> Frame {
        let answer = self.say("c-ann", json!({"action": action, "id": id, "payload": payload})).await;
        serde_json::from_str(&answer).unwrap()
    }

    pub(crate) fn processor(&self) -> TestProcessor<DynamoRequestQueue> {
        self.processor_with(queue(&self.db))
    }

    pub(crate) fn processor_with<Q: RequestQueue>(&self, queue: Q) -> TestProcessor<Q> {
        self.processor_on(queue, Handle::current())
    }

    pub(crate) fn processor_on<Q: RequestQueue>(&self, queue: Q, handlers: Handle) -> TestProcessor<Q> {
        Processor::new(
            self.executor_on(queue, handlers),
            self.dispatched.clone(),
            ProcessorSettings::default(),
        )
    }

    pub(crate) fn worker(&self) -> Worker<DynamoRequestQueue, Clients, Letters> {
        Worker::new(self.executor_on(queue(&self.db), Handle::current()))
    }

    pub(crate) fn executor_on<Q>(&self, queue: Q, handlers: Handle) -> Executor<Q, Clients, Letters> {
        Executor {
            app: Arc::clone(&self.app),
            queue,
            connections: self.clients.clone(),
            dead_letters: self.letters.clone(),
            clock: Arc::new(self.clock),
            entropy: Arc::new(SystemEntropy::new()),
            handler_runtime: HandlerRuntime::on(handlers),
            settings: ExecutorSettings::default(),
        }
    }

    pub(crate) fn sweeper(&self) -> Sweeper<DynamoRequestQueue, Clients, Letters> {
        Sweeper {
            queue: queue(&self.db),
            connections: self.clients.clone(),
            dead_letters: self.letters.clone(),
            clock: Arc::new(self.clock),
            metrics: Arc::new(self.metrics.clone()),
            settings: SweeperSettings::default(),
        }
    }

    /// Every record of the requests' stream, oldest first within an item.
    pub(crate) fn records(&self) -> Vec<Value> {
        let streams = self.db.streams();
        let arn = streams.latest_stream_arn(REQUESTS).unwrap();
        let mut records = Vec::new();
        for shard in streams.shards(&arn).unwrap() {
            records.extend(streams.read(&arn, &shard, None, 10_000).unwrap());
        }
        records.iter().map(|record| record.to_event_record()).collect()
    }

    /// The records that the mapping's filter lets through.
    pub(crate) fn pending(&self) -> Vec<Value> {
        let is_pending = |record: &Value| record["dynamodb"]["NewImage"]["status"]["S"] == "PENDING";
        self.records().into_iter().filter(is_pending).collect()
    }

    /// Hands every pending record to a processor, as an invocation of 15 minutes, and what it hands over to the worker.
    pub(crate) async fn process(&self) -> BatchResponse {
        let before = self.dispatched.keys().len();
        let response = self.process_for(Duration::from_mins(15)).await;
        let runs = self.dispatched.keys().split_off(before).into_iter().map(|key| self.work(key));
        join_all(runs).await;
        response
    }

    /// Has the worker run a request, in an invocation of 15 minutes.
    pub(crate) async fn work(&self, key: RequestKey) {
        let deadline = self.now() + Duration::from_mins(15);
        self.worker().run(&WorkerEvent::of(&key), deadline).await.unwrap();
    }

    /// Brings a request whose next attempt is due back, as the sweeper does, once it is.
    pub(crate) async fn retry(&self, id: &str) {
        let due = queue(&self.db).due(self.now() + Duration::from_hours(24), PageRequest::first(100)).await;
        let seen = due.unwrap().items.into_iter().find(|seen| seen.key() == key(id)).unwrap();
        tokio::time::sleep(seen.timer_at.unwrap().since(self.now())).await;
        let (from, to) = (Status::Retrying, NewStatus::Pending);
        queue(&self.db).update_status(&key(id), from, to, self.now()).await.unwrap();
    }

    pub(crate) async fn process_for(&self, invocation: Duration) -> BatchResponse {
        self.processor().process(batch(self.pending()), self.now() + invocation).await
    }

    pub(crate) async fn request(&self, id: &str) -> Request {
        queue(&self.db).get(&key(id)).await.unwrap().unwrap()
    }

    pub(crate) async fn item(&self, id: &str) -> Item {
        let key = request_item::key(&key(id));
        let found = self.db.client().get_item().table_name(REQUESTS).set_key(Some(key)).send().await;
        found.unwrap().item.unwrap()
    }

    /// Changes a request's item behind the library's back.
    pub(crate) async fn edit(&self, id: &str, expression: &str, value: AttributeValue) {
        let update = self.db.client().update_item().table_name(REQUESTS);
        let update = update.set_key(Some(request_item::key(&key(id)))).update_expression(expression);
        update.expression_attribute_values(":value", value).send().await.unwrap();
    }

    /// Has another connection listen to a request.
    pub(crate) async fn subscribe(&self, id: &str, connection: &str) {
        let expression = format!("SET subscribers.{connection} = :value");
        self.edit(id, &expression, AttributeValue::N("1".into())).await;
    }

    /// Has another process take the request over, as after its lease's end.
    pub(crate) async fn take_over(&self, id: &str) {
        let update = self.db.client().update_item().table_name(REQUESTS);
        update
            .set_key(Some(request_item::key(&key(id))))
            .update_expression("SET epoch = epoch + :one, #owner = :other")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .expression_attribute_values(":other", AttributeValue::S("other".into()))
            .send()
            .await
            .unwrap();
    }
}

pub(crate) fn create_tables_of_template(db: &DynamoDb) {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
    let parameters = [("JwtKey".to_owned(), "unused".to_owned())].into();
    let template = Template::load(&template, &Environment { parameters, ..Environment::default() }).unwrap();
    create_tables(db, &template.tables).unwrap();
}

pub(crate) fn queue(db: &DynamoDb) -> DynamoRequestQueue {
    DynamoRequestQueue::new(db.client(), REQUESTS, QueueSettings::default())
}

pub(crate) fn key(id: &str) -> RequestKey {
    RequestKey::new(&"acme".into(), &"ann".into(), &id.into())
}

pub(crate) fn batch(records: Vec<Value>) -> StreamBatch {
    serde_json::from_value(json!({"Records": records})).unwrap()
}

pub(crate) fn message(connection: &str, body: Value, is_base64: bool) -> ApiGatewayWebsocketProxyRequest {
    let event = json!({
        "requestContext": {
            "routeKey": "$default", "messageId": "Jk1q_crWoAMCJyA=", "eventType": "MESSAGE",
            "extendedRequestId": "Jk1q-FQ1oAMFYtg=", "requestTime": "23/Nov/2026:19:27:48 +0000",
            "messageDirection": "IN", "stage": "prod", "connectedAt": 1_700_000_000_000_u64,
            "requestTimeEpoch": 1_700_000_001_000_u64, "identity": {"sourceIp": "127.0.0.1"},
            "requestId": "Jk1q-FQ1oAMFYtg=", "domainName": "abcdefghij.execute-api.us-east-1.amazonaws.com",
            "connectionId": connection, "apiId": "abcdefghij",
        },
        "body": body, "isBase64Encoded": is_base64,
    });
    serde_json::from_value(event).unwrap()
}
