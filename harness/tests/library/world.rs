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

/// Name of the requests table.
pub(crate) const REQUESTS: &str = "streamer-RequestsTable";
/// Name of the connections table.
pub(crate) const CONNECTIONS: &str = "streamer-ConnectionsTable";
/// Name of the table of shared rate limits.
pub(crate) const RATE_LIMITS: &str = "streamer-RateLimitsTable";

/// Test double for the clients' connections. It records each frame that is sent, and can make the sends to a
/// connection fail or hang.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    /// Each frame that was sent, with the connection and the time of the send.
    sent: Arc<Mutex<Vec<(ConnectionId, Frame, Instant)>>>,
    /// Injected send failures by connection: their kind, and the number of sends that will still fail.
    failing: Arc<Mutex<BTreeMap<ConnectionId, (SendErrorKind, u32)>>>,
    /// Connection to which sends never return; `None` if no sends hang.
    hanging: Arc<Mutex<Option<ConnectionId>>>,
}

impl Clients {
    /// Makes all later sends to the connection `id` fail with `kind`.
    pub(crate) fn fail(&self, id: &str, kind: SendErrorKind) {
        self.fail_times(id, kind, u32::MAX);
    }

    /// Makes the next `times` sends to the connection `id` fail with `kind`. After a call with zero,
    /// sends to this connection no longer fail.
    pub(crate) fn fail_times(&self, id: &str, kind: SendErrorKind, times: u32) {
        self.failing.lock().unwrap().insert(id.into(), (kind, times));
    }

    /// Makes all later sends to the connection `id` hang. Only one connection hangs, the one of the last call.
    pub(crate) fn hang(&self, id: &str) {
        *self.hanging.lock().unwrap() = Some(id.into());
    }

    /// Returns the frames that were sent to the connection `id`, in order.
    pub(crate) fn frames(&self, id: &str) -> Vec<Frame> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(to, ..)| to.as_str() == id).map(|(_, frame, _)| frame.clone()).collect()
    }

    /// Returns the send time of each frame that was sent to any connection, in order.
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

/// Test double for the dead-letter queue. It records each dead letter that is sent, and can make sends fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letters {
    /// Each dead letter that was sent.
    sent: Arc<Mutex<Vec<DeadLetter>>>,
    /// Number of sends that will still fail.
    failing: Arc<Mutex<u32>>,
}

impl Letters {
    /// Makes the next `times` sends of a dead letter fail with a transient error.
    pub(crate) fn fail_times(&self, times: u32) {
        *self.failing.lock().unwrap() = times;
    }

    /// Returns the dead letters that were sent, in order.
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

/// Test double for the dispatch of requests to the worker. It records each dispatch, and can make dispatches fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatched {
    /// Key of each dispatched request.
    keys: Arc<Mutex<Vec<RequestKey>>>,
    /// Number of dispatches that will still fail with a transient error.
    failing: Arc<Mutex<u32>>,
    /// True if every dispatch fails with a permanent error.
    refusing: Arc<AtomicBool>,
}

impl Dispatched {
    /// Makes all later dispatches fail with a permanent error.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    /// Makes the next `times` dispatches fail with a transient error.
    pub(crate) fn fail_times(&self, times: u32) {
        *self.failing.lock().unwrap() = times;
    }

    /// Returns the keys of the dispatched requests, in order.
    pub(crate) fn keys(&self) -> Vec<RequestKey> {
        self.keys.lock().unwrap().clone()
    }
}

impl WorkerDispatch for Dispatched {
    async fn dispatch(&self, key: &RequestKey) -> Result<(), ServiceError> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(ServiceError::refused("dispatch a request", "the function does not exist"));
        }
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(ServiceError::transient("dispatch a request", "the function is throttled"));
        }
        self.keys.lock().unwrap().push(key.clone());
        Ok(())
    }
}

/// Metric sink that records each metric line that is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<Vec<String>>>);

impl Metrics {
    /// Returns the metric lines that were written, as JSON, in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl MetricSink for Metrics {
    fn write(&self, line: &MetricLine) {
        self.0.lock().unwrap().push(line.to_json());
    }
}

/// Processor on the queue `Q` whose other dependencies are test doubles.
pub(crate) type TestProcessor<Q> = Processor<Q, Clients, Letters, Dispatched>;

/// A stage in one process: the template's tables on the embedded DynamoDB, a router, and test doubles for the
/// clients, the dead-letter queue and the dispatch to the worker. The helpers act for the user `ann` of the tenant
/// `acme`, unless a parameter names a user or a connection.
#[derive(Debug)]
pub(crate) struct World {
    /// Fake DynamoDB with the template's tables.
    pub(crate) db: DynamoDb,
    /// Faults that a test can inject into the calls of the fake DynamoDB.
    pub(crate) faults: Faults,
    /// Test double that records the frames sent to clients.
    pub(crate) clients: Clients,
    /// Test double that records the dead letters.
    pub(crate) letters: Letters,
    /// Test double that records the requests dispatched to the worker.
    pub(crate) dispatched: Dispatched,
    /// Metric lines that the sweeper has written.
    pub(crate) metrics: Metrics,
    /// Clock of the functions and of the fake DynamoDB, which follows tokio's virtual time.
    pub(crate) clock: TokioClock,
    /// App with the handlers under test.
    pub(crate) app: Arc<App>,
    /// Router of the world's app on the world's tables.
    pub(crate) router: Router<DynamoConnectionStore, DynamoRequestQueue, Clients>,
}

impl World {
    /// Creates a world in which the users `ann` and `bob` of the tenant `acme` have the connections `c-ann`
    /// and `c-bob`.
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

    /// Returns the current virtual time. A world starts at 1,700,000,000 Unix seconds.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns a connection `c-{user}` of the tenant `acme`, whose token is valid for an hour. Does not store the
    /// connection.
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

    /// Stores the connection `c-{user}` again, with `permissions`.
    pub(crate) async fn grant(&self, user: &str, permissions: &[&str]) {
        let mut connection = self.connection(user);
        connection.identity.permissions = permissions.iter().map(ToString::to_string).collect();
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS).save(&connection).await.unwrap();
    }

    /// Stores a new connection with the id `connection`, of the user `user` in the tenant `tenant`. Same as
    /// [`Self::connect`] with a different order of parameters.
    pub(crate) async fn connect_as(&self, connection: &str, user: &str, tenant: &str) {
        let mut opened = self.connection(user);
        opened.id = connection.into();
        opened.identity.tenant = tenant.into();
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS).save(&opened).await.unwrap();
    }

    /// Returns a new router for `app` on the world's tables, like the router of a second Lambda environment.
    pub(crate) fn router_of(&self, app: App) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
        self.router_with(app, Handle::current())
    }

    /// Returns a new router for `app` on the world's tables, which runs handlers on the runtime `handlers`.
    pub(crate) fn router_with(
        &self,
        app: App,
        handlers: Handle,
    ) -> Router<DynamoConnectionStore, DynamoRequestQueue, Clients> {
        let connections = DynamoConnectionStore::new(self.db.client(), CONNECTIONS);
        let clients = self.clients.clone();
        Router::new(Arc::new(app), connections, queue(&self.db), clients, Arc::new(self.clock), handlers)
    }

    /// Returns a new router for the world's app, on the tables with the names `connections` and `requests`.
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

    /// Stores a new connection with the id `connection`, of the user `user` in the tenant `tenant`.
    pub(crate) async fn connect(&self, connection: &str, tenant: &str, user: &str) {
        let mut saved = self.connection(user);
        saved.id = connection.into();
        saved.identity.tenant = tenant.into();
        self.connections().save(&saved).await.unwrap();
    }

    /// Returns a connection store on the world's connections table.
    pub(crate) fn connections(&self) -> DynamoConnectionStore {
        DynamoConnectionStore::new(self.db.client(), CONNECTIONS)
    }

    /// Deletes the item of `connection` from the connections table.
    pub(crate) async fn disconnect(&self, connection: &str) {
        self.connections().delete(&connection.into()).await.unwrap();
    }

    /// Routes a message with the body `body` from `connection`, and returns the router's answer as JSON.
    pub(crate) async fn say(&self, connection: &str, body: impl ToString) -> String {
        // Boxed, because the router's future is large.
        Box::pin(self.router.route(&message(connection, json!(body.to_string()), false))).await
    }

    /// Routes a message from ann with `action`, `id` and `payload`, and returns the router's answer.
    pub(crate) async fn ask(&self, action: &str, id: &str, payload: Value) -> Frame {
        let answer = self.say("c-ann", json!({"action": action, "id": id, "payload": payload})).await;
        serde_json::from_str(&answer).unwrap()
    }

    /// Returns a processor on the world's queue.
    pub(crate) fn processor(&self) -> TestProcessor<DynamoRequestQueue> {
        self.processor_with(queue(&self.db))
    }

    /// Returns a processor on `queue`.
    pub(crate) fn processor_with<Q: RequestQueue>(&self, queue: Q) -> TestProcessor<Q> {
        self.processor_on(queue, Handle::current())
    }

    /// Returns a processor on `queue` that runs handlers on the runtime `handlers`.
    pub(crate) fn processor_on<Q: RequestQueue>(&self, queue: Q, handlers: Handle) -> TestProcessor<Q> {
        Processor::new(
            self.executor_on(queue, handlers),
            self.dispatched.clone(),
            ProcessorSettings::default(),
        )
    }

    /// Returns a worker on the world's queue.
    pub(crate) fn worker(&self) -> Worker<DynamoRequestQueue, Clients, Letters> {
        Worker::new(self.executor_on(queue(&self.db), Handle::current()))
    }

    /// Returns an executor on `queue` that runs handlers on the runtime `handlers`.
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

    /// Returns a sweeper with the default settings.
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

    /// Returns all stream records of the requests table. The records of each item are in write order.
    pub(crate) fn records(&self) -> Vec<Value> {
        let streams = self.db.streams();
        let arn = streams.latest_stream_arn(REQUESTS).unwrap();
        let mut records = Vec::new();
        for shard in streams.shards(&arn).unwrap() {
            records.extend(streams.read(&arn, &shard, None, 10_000).unwrap());
        }
        records.iter().map(|record| record.to_event_record()).collect()
    }

    /// Returns the stream records whose new image has the status PENDING, which are the records that the event source
    /// mapping delivers to the processor.
    pub(crate) fn pending(&self) -> Vec<Value> {
        let is_pending = |record: &Value| record["dynamodb"]["NewImage"]["status"]["S"] == "PENDING";
        self.records().into_iter().filter(is_pending).collect()
    }

    /// Processes all pending stream records in one processor invocation of 15 minutes. Then runs each request that the
    /// processor dispatched to the worker. Returns the processor's response.
    pub(crate) async fn process(&self) -> BatchResponse {
        let before = self.dispatched.keys().len();
        let response = self.process_for(Duration::from_mins(15)).await;
        let runs = self.dispatched.keys().split_off(before).into_iter().map(|key| self.work(key));
        join_all(runs).await;
        response
    }

    /// Runs the request `key` in a worker invocation of 15 minutes.
    pub(crate) async fn work(&self, key: RequestKey) {
        let deadline = self.now() + Duration::from_mins(15);
        self.worker().run(&WorkerEvent::of(&key), deadline).await.unwrap();
    }

    /// Waits until the retry of the request `id` is due, then makes the request pending, as the sweeper does.
    pub(crate) async fn retry(&self, id: &str) {
        let due = queue(&self.db).due(self.now() + Duration::from_hours(24), PageRequest::first(100)).await;
        let seen = due.unwrap().items.into_iter().find(|seen| seen.key() == key(id)).unwrap();
        tokio::time::sleep(seen.timer_at.unwrap().since(self.now())).await;
        let (from, to) = (Status::Retrying, NewStatus::Pending);
        queue(&self.db).update_status(&key(id), from, to, self.now()).await.unwrap();
    }

    /// Processes all pending stream records in one processor invocation of the duration `invocation`.
    pub(crate) async fn process_for(&self, invocation: Duration) -> BatchResponse {
        self.processor().process(batch(self.pending()), self.now() + invocation).await
    }

    /// Returns ann's request `id` from the requests table.
    pub(crate) async fn request(&self, id: &str) -> Request {
        queue(&self.db).get(&key(id)).await.unwrap().unwrap()
    }

    /// Returns the raw item of ann's request `id` from the requests table.
    pub(crate) async fn item(&self, id: &str) -> Item {
        let key = request_item::key(&key(id));
        let found = self.db.client().get_item().table_name(REQUESTS).set_key(Some(key)).send().await;
        found.unwrap().item.unwrap()
    }

    /// Updates the item of ann's request `id` by the update expression `expression`, without the store. The expression
    /// refers to `value` as `:value`.
    pub(crate) async fn edit(&self, id: &str, expression: &str, value: AttributeValue) {
        let update = self.db.client().update_item().table_name(REQUESTS);
        let update = update.set_key(Some(request_item::key(&key(id)))).update_expression(expression);
        update.expression_attribute_values(":value", value).send().await.unwrap();
    }

    /// Adds `connection` to the subscribers of ann's request `id`, by a write to the item without the router.
    pub(crate) async fn subscribe(&self, id: &str, connection: &str) {
        let expression = format!("SET subscribers.{connection} = :value");
        self.edit(id, &expression, AttributeValue::N("1".into())).await;
    }

    /// Changes the epoch and the owner token of ann's request `id`, as a claim by a second process after lease expiry
    /// does.
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

/// Creates in `db` the tables that the template declares.
pub(crate) fn create_tables_of_template(db: &DynamoDb) {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lambdas/template.yaml");
    let parameters = [("JwtKey".to_owned(), "unused".to_owned())].into();
    let template = Template::load(&template, &Environment { parameters, ..Environment::default() }).unwrap();
    create_tables(db, &template.tables).unwrap();
}

/// Returns the request queue on the requests table of `db`.
pub(crate) fn queue(db: &DynamoDb) -> DynamoRequestQueue {
    DynamoRequestQueue::new(db.client(), REQUESTS, QueueSettings::default())
}

/// Returns the key of ann's request `id`.
pub(crate) fn key(id: &str) -> RequestKey {
    RequestKey::new(&"acme".into(), &"ann".into(), &id.into())
}

/// Returns the event by which an event source mapping delivers the stream records `records`.
pub(crate) fn batch(records: Vec<Value>) -> StreamBatch {
    serde_json::from_value(json!({"Records": records})).unwrap()
}

/// Returns the gateway's event for a WebSocket message with the body `body` over `connection`.
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
