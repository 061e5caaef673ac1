//! Builds and runs a stage, from a SAM template or from settings in code.
//!
//! [`Stage::builder`] collects the settings, [`StageBuilder::start`] starts the stage, and [`Stage::connect`]
//! connects a client to it. A stage runs in process, for tests, or on one port with the functions'
//! executables.

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

/// A running stage: tables, queues, functions and a gateway.
///
/// [`shutdown`](Self::shutdown) stops the stage gracefully. If a stage is dropped instead, its processes are
/// killed.
#[derive(Debug)]
pub struct Stage {
    /// Address on which the stage serves; `None` in process.
    address: Option<SocketAddr>,
    stage_name: String,
    signing_key: SigningKey,
    clock: Arc<dyn Clock>,
    findings: Vec<Finding>,
    /// Physical table names by their logical ids in the template.
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

/// Host in the URLs of a stage in process. The host is a placeholder, because no client connects to it by a
/// socket.
const NO_HOST: &str = "stage.localhost";

impl Stage {
    /// Maximum wait for a frame of a client in process: just under the 600 s after which the gateway closes
    /// an idle connection.
    const PATIENCE: Duration = Duration::from_secs(590);

    /// Opens a WebSocket through the gateway in process, and returns its byte stream without a client.
    ///
    /// # Errors
    /// The HTTP status of the response if `$connect` is refused.
    pub async fn open_stream(
        &self,
        request: http::Request<()>,
    ) -> Result<streamer_fakes::gateway::Opened, u16> {
        self.gateway.connect(request).await.map_err(|refusal| refusal.status().as_u16())
    }

    /// Connects a client with a token for `user`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the stage refuses the connection.
    pub async fn connect(&self, user: &TokenFor) -> Result<Client, ClientError> {
        self.open(format!("{}?token={}", self.ws_url(), self.token(user))).await
    }

    /// Connects a client with a custom handshake: `request` is a URL that begins with
    /// [`ws_url`](Self::ws_url), or an HTTP request with its own headers.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the stage refuses the connection.
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

    /// Returns the stage's current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits for this much time on the stage's clock, while the stage continues to run.
    ///
    /// If tokio's clock is paused, as by `#[tokio::test(start_paused = true)]`, the wait takes almost no real
    /// time, and each timer of the stage still fires at its time.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Returns the stage's faults. A fault that is added to the returned faults is active until its guard is
    /// dropped.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Returns every item of a table as plain JSON, sorted by the JSON text. The table is named by its
    /// logical id in the template, or by its physical name.
    ///
    /// # Errors
    /// [`StageError::Items`] if there is no such table.
    pub async fn items(&self, table: &str) -> Result<Vec<Value>, StageError> {
        items::all(&self.dynamodb, self.tables.get(table).map_or(table, String::as_str)).await
    }

    /// Returns the URL for WebSocket clients. In process no server listens at this URL: use
    /// [`connect`](Self::connect) or [`open`](Self::open).
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/{}", host(self.address), self.stage_name)
    }

    /// Returns the URL of the management API (`@connections`). In process no server listens at this URL: use
    /// [`Gateway::http_client`].
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://{}/{}", host(self.address), self.stage_name)
    }

    /// Returns the URL of DynamoDB, DynamoDB Streams, SQS and Lambda. In process no server listens at this
    /// URL: use [`DynamoDb::client`], [`Queues::http_client`](streamer_fakes::sqs::Queues::http_client) or
    /// [`Functions::http_client`].
    #[must_use]
    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", host(self.address))
    }

    /// Returns a signed token for `user` that the stage accepts.
    #[must_use]
    pub fn token(&self, user: &TokenFor) -> String {
        self.signing_key.sign(user, self.clock.now())
    }

    /// Returns the stage's fake of DynamoDB.
    #[must_use]
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// Returns the stage's fake of SQS.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Returns the stage's fake of Lambda.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Returns the stage's fake of API Gateway.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Returns one finding for each template setting that the stage ignores, in the order of the template.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Waits until a background task of the stage stops unexpectedly, and returns the reason. Never returns
    /// while the stage runs properly.
    pub async fn failed(&mut self) -> StageError {
        match self.tasks.join_next().await {
            Some(Err(error)) => StageError::Stopped(error.to_string()),
            Some(Ok(())) | None => StageError::Stopped("a task ended without an error".to_owned()),
        }
    }

    /// Closes every connection, ends every process, and waits until no task of the stage runs.
    pub async fn shutdown(mut self) {
        self.end().await;
    }

    /// Ends the stage as [`shutdown`](Self::shutdown) does, but keeps its tables readable.
    pub async fn end(&mut self) {
        self.gateway.shutdown().await;
        self.stop_polling.send_replace(true);
        self.functions.shutdown().await;
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_serving.send_replace(true);
        // Do not wait for clients that keep an idle HTTP connection open.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        self.tasks.shutdown().await;
        self.dynamodb.release_folder();
    }
}

fn host(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| NO_HOST.to_owned(), |address| address.to_string())
}

/// Listens on a port of the loopback interface; 0 picks a free port.
///
/// # Errors
/// [`StageError::Port`] if the port is in use or not permitted.
pub fn listen(port: u16) -> Result<TcpListener, StageError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| StageError::Port { port, source })
}

impl Drop for Stage {
    /// Breaks the references between gateway and functions: without this, open connections would keep the
    /// functions running.
    fn drop(&mut self) {
        self.gateway.close();
        self.late_gateway.set(None);
        self.late_functions.set(None);
        self.stop_polling.send_replace(true);
        self.functions.close();
    }
}
