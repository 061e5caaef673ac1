//! The whole stage, made from a SAM template or in code: in process, for tests, or on one port, run by the functions'
//! own binaries.

mod builder;
mod clock;
mod error;
mod executables;
mod function_fn;
mod items;
mod queues;
mod start;
mod stream;
mod streamer_function;
mod tables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use streamer::ports::{Clock, Timestamp};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub use builder::StageBuilder;
pub use error::StageError;
pub use executables::{Executables, Workspace};
pub use function_fn::function_fn;
pub use streamer_function::Services;
pub use tables::create as create_tables;

use crate::client::{Client, ClientError};
use crate::signing_key::{SigningKey, TokenFor};
use crate::template::Finding;
use streamer_fakes::dynamodb::DynamoDb;
use streamer_fakes::faults::Faults;
use streamer_fakes::gateway::Gateway;
use streamer_fakes::lambda::Functions;
use streamer_fakes::sqs::Queues;
use streamer_fakes::watch;
use streamer_function::LateBound;

/// A running stage.
///
/// [`shutdown`](Self::shutdown) ends it in order; dropped, its processes are killed.
#[derive(Debug)]
pub struct Stage {
    /// `None` in process.
    address: Option<SocketAddr>,
    stage_name: String,
    signing_key: SigningKey,
    clock: Arc<dyn Clock>,
    findings: Vec<Finding>,
    /// The tables' names by their names within the template.
    tables: BTreeMap<String, String>,
    faults: Faults,
    dynamodb: DynamoDb,
    queues: Queues,
    functions: Functions,
    gateway: Gateway,
    late_gateway: LateBound<Gateway>,
    late_functions: LateBound<Functions>,
    tasks: JoinSet<()>,
    stop_polling: watch::Sender<bool>,
    stop_serving: watch::Sender<bool>,
}

/// The host that URLs name in process, where nobody needs it to reach anything.
const NO_HOST: &str = "stage.localhost";

impl Stage {
    /// How long a client in process waits for a frame: a little less than until the gateway closes an idle connection.
    const PATIENCE: Duration = Duration::from_secs(590);

    /// Opens a WebSocket in process and returns its byte stream, without a client on it.
    ///
    /// # Errors
    /// The HTTP status of a refused `$connect`.
    pub async fn open_stream(
        &self,
        request: http::Request<()>,
    ) -> Result<streamer_fakes::gateway::Opened, u16> {
        self.gateway.connect(request).await.map_err(|refusal| refusal.status().as_u16())
    }

    /// Connects a client as `whom`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self, whom: &TokenFor) -> Result<Client, ClientError> {
        self.open(format!("{}?token={}", self.ws_url(), self.token(whom))).await
    }

    /// Connects a client with a request of any kind: a URL below [`ws_url`](Self::ws_url), or an HTTP request with headers of its own.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(&self, request: impl IntoClientRequest + Unpin) -> Result<Client, ClientError> {
        if self.address.is_some() {
            return Client::open(request).await;
        }
        match self.gateway.connect(request.into_client_request()?).await {
            Ok(opened) => Ok(Client::on(opened.stream, opened.headers, Self::PATIENCE).await),
            Err(refusal) => Err(ClientError::Refused {
                status: refusal.status().as_u16(),
                body: String::from_utf8_lossy(refusal.body()).into_owned(),
            }),
        }
    }

    /// What time it is on the stage.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets this much time pass, with all that happens on the stage meanwhile, each thing at its time.
    ///
    /// Where tokio's time is paused, as by `#[tokio::test(start_paused = true)]`, it passes at once.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The faults that happen on the stage: add one, and it holds until its guard is dropped.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Every item of a table as plain JSON, in the order of their JSON. The table is named as in the template, or by its whole
    /// name.
    ///
    /// # Errors
    /// When there is no such table.
    pub async fn items(&self, table: &str) -> Result<Vec<Value>, StageError> {
        items::all(&self.dynamodb, self.tables.get(table).map_or(table, String::as_str)).await
    }

    /// Where WebSocket clients connect. In process nobody listens there: [`connect`](Self::connect) leads in.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/{}", host(self.address), self.stage_name)
    }

    /// Where the management API (`@connections`) answers; in process, it does so by [`Gateway::http_client`] alone.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://{}/{}", host(self.address), self.stage_name)
    }

    /// Where DynamoDB, DynamoDB Streams, SQS and Lambda answer. In process they answer without it: [`DynamoDb::client`],
    /// [`Queues::http_client`](streamer_fakes::sqs::Queues::http_client) and [`Functions::http_client`].
    #[must_use]
    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", host(self.address))
    }

    /// A token that the stage accepts.
    #[must_use]
    pub fn token(&self, whom: &TokenFor) -> String {
        self.signing_key.sign(whom, self.clock.now())
    }

    /// The stage's database.
    #[must_use]
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The stage's queues.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// The stage's functions.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The stage's gateway.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What the template says and the stage does not act upon.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Waits until a part of the stage stops by itself, which none does as long as all is well.
    pub async fn failed(&mut self) -> StageError {
        match self.tasks.join_next().await {
            Some(Err(error)) => StageError::Stopped(error.to_string()),
            Some(Ok(())) | None => StageError::Stopped("a part of it has ended".to_owned()),
        }
    }

    /// Closes every connection, ends every process, and returns when nothing is left running.
    pub async fn shutdown(mut self) {
        self.end().await;
    }

    /// As [`shutdown`](Self::shutdown), for an owner that reads the stage's tables afterwards.
    pub async fn end(&mut self) {
        self.gateway.shutdown().await;
        self.stop_polling.send_replace(true);
        self.functions.shutdown().await;
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_serving.send_replace(true);
        // Clients that keep an idle connection open are not waited for.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        self.tasks.shutdown().await;
        self.dynamodb.release_folder();
    }
}

fn host(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| NO_HOST.to_owned(), |address| address.to_string())
}

/// Takes a port of the loopback interface; 0 takes a free one.
///
/// # Errors
/// When it is taken, or may not be.
pub fn listen(port: u16) -> Result<TcpListener, StageError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| StageError::Port { port, source })
}

impl Drop for Stage {
    /// Connections that are open hold on to the functions: without them, nothing does.
    fn drop(&mut self) {
        self.gateway.close();
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_polling.send_replace(true);
        self.functions.close();
    }
}
