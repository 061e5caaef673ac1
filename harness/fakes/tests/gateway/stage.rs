//! Test stage: a gateway, its test clients, and functions whose behavior the test defines.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::event::apigw::ApiGatewayWebsocketProxyRequest;
use axum::Extension;
use axum::extract::ConnectInfo;
use axum::http::HeaderValue;
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use streamer::ports::{Clock, Entropy, Timestamp};
use streamer_fakes::gateway::{ApiConfig, Gateway, Route};
use streamer_fakes::lambda::{Invocation, Invoke, InvokeError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tower::ServiceExt;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Initial time of the test clock: 2024-02-09T18:23:28.941Z.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_707_503_008_941);

pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) clock: Arc<SetClock>,
    events: mpsc::UnboundedReceiver<(String, Value)>,
    address: Address,
}

enum Address {
    Tcp(SocketAddr),
    Pipes(mpsc::UnboundedSender<DuplexStream>),
}

/// Returns the configuration of an API with the routes `$connect`, `$disconnect`, `note` (one-way), `echo`
/// and `$default` (two-way). Each route has its own function.
pub(crate) fn config() -> ApiConfig {
    ApiConfig::new("abcde12345", "abcde12345.execute-api.eu-west-1.amazonaws.com")
        .route(Route::one_way("$connect", "connect"))
        .route(Route::one_way("$disconnect", "disconnect"))
        .route(Route::one_way("note", "note"))
        .route(Route::two_way("echo", "echo"))
        .route(Route::two_way("$default", "default"))
}

/// Behavior of the functions in most tests: reply 200 with the body of the event.
pub(crate) async fn echo_body(_function: String, event: Value) -> Result<Bytes, InvokeError> {
    reply(json!({ "statusCode": 200, "body": event["body"] }))
}

pub(crate) fn reply(value: Value) -> Result<Bytes, InvokeError> {
    Ok(value.to_string().into())
}

impl Stage {
    /// Returns a stage that clients reach through in-memory pipes. The source IP of all clients is 192.0.2.1.
    pub(crate) fn in_memory<F, R>(config: ApiConfig, functions: F) -> Self
    where
        F: Fn(String, Value) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, InvokeError>> + Send + 'static,
    {
        let (gateway, clock, events) = gateway(config, functions);
        let (connect, accept) = mpsc::unbounded_channel();
        let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4_711)));
        let router = gateway.router().layer(Extension(peer));
        tokio::spawn(async move { axum::serve(Pipes(accept), router).await });
        Self { gateway, clock, events, address: Address::Pipes(connect) }
    }

    /// Returns a stage that clients reach through a TCP port of this machine.
    pub(crate) async fn on_a_port<F, R>(config: ApiConfig, functions: F) -> Self
    where
        F: Fn(String, Value) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, InvokeError>> + Send + 'static,
    {
        let (gateway, clock, events) = gateway(config, functions);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let service = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { gateway, clock, events, address }
    }

    /// Waits for the next invocation, and returns the function's name and its event.
    pub(crate) async fn event(&mut self) -> (String, Value) {
        let next = tokio::time::timeout(self.wait_limit(), self.events.recv()).await;
        next.expect("a function is invoked before the timeout").unwrap()
    }

    /// Returns the next event, which must be for `function` and must parse as the Rust runtime's event type.
    pub(crate) async fn event_of(&mut self, function: &str) -> Value {
        let (called, event) = self.event().await;
        assert_eq!(called, function, "{event}");
        serde_json::from_value::<ApiGatewayWebsocketProxyRequest>(event.clone()).unwrap();
        event
    }

    /// Waits until no task can make progress, and asserts that no function was invoked.
    pub(crate) async fn no_event(&mut self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(self.events.try_recv().ok(), None);
    }

    /// Returns the maximum time to wait for an event. In virtual time, the wait is longer than every limit of
    /// the gateway. In real time, the wait is long enough for a busy machine.
    fn wait_limit(&self) -> Duration {
        match self.address {
            Address::Tcp(_) => Duration::from_secs(20),
            Address::Pipes(_) => Duration::from_secs(10_000),
        }
    }

    pub(crate) async fn open(&self) -> Box<dyn Io> {
        match &self.address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Address::Pipes(connect) => {
                let (ours, theirs) = tokio::io::duplex(16 * 1_024);
                connect.send(theirs).unwrap();
                Box::new(ours)
            }
        }
    }

    /// Connects a client, and consumes its `$connect` event.
    pub(crate) async fn client(&mut self) -> Client {
        let (mut client, _) = self.connect(request("/prod")).await.unwrap();
        client.id =
            self.event_of("connect").await["requestContext"]["connectionId"].as_str().unwrap().to_owned();
        client
    }

    pub(crate) async fn connect(&self, request: Request) -> Result<(Client, Response), tungstenite::Error> {
        let (socket, response) = client_async(request, self.open().await).await?;
        Ok((Client { socket, id: String::new(), wait_limit: self.wait_limit() }, response))
    }

    /// Sends a handshake that must be rejected, and returns the status, headers and body of the response.
    pub(crate) async fn refused(&self, request: Request) -> Answer {
        match self.connect(request).await {
            Err(tungstenite::Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
                let headers =
                    parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                let body = String::from_utf8(body.unwrap_or_default()).unwrap();
                Answer { status: parts.status.as_u16(), headers, body }
            }
            other => panic!("expected a rejected handshake, got {other:?}"),
        }
    }

    /// Sends one HTTP request on a separate connection, and returns the response.
    pub(crate) async fn http(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.http_with(method, path, "connection: close", body).await
    }

    pub(crate) async fn http_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: stage\r\n{headers}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (mut from, mut to) = tokio::io::split(self.open().await);
        let mut answer = Vec::new();
        // The write may fail, because the server may answer and close the connection before it has read the
        // whole body.
        let write = async { drop(to.write_all(&[head.as_bytes(), body].concat()).await) };
        let read = from.read_to_end(&mut answer);
        tokio::time::timeout(self.wait_limit(), async { tokio::join!(write, read) })
            .await
            .unwrap()
            .1
            .unwrap();
        Answer::parse(&String::from_utf8(answer).unwrap())
    }

    /// Calls the management API without advancing time, and returns the status and the error type of the
    /// response.
    pub(crate) async fn in_process(&self, method: &str, path: &str) -> (u16, String) {
        let call = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty());
        let answer = self.gateway.router().oneshot(call.unwrap()).await.unwrap();
        let error = answer.headers().get("x-amzn-errortype").map_or("", |value| value.to_str().unwrap());
        (answer.status().as_u16(), error.to_owned())
    }

    pub(crate) async fn post(&self, id: &str, body: &[u8]) -> Answer {
        self.http("POST", &format!("/prod/@connections/{id}"), body).await
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<Box<dyn Io>>,
    pub(crate) id: String,
    wait_limit: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Message {
        let next = tokio::time::timeout(self.wait_limit, self.socket.next()).await;
        next.expect("a frame arrives before the timeout").unwrap().unwrap()
    }

    pub(crate) async fn text(&mut self) -> String {
        self.receive().await.into_text().unwrap().to_string()
    }

    /// Receives the next frame, which must be a close frame, and returns its code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = self.receive().await;
        let Message::Close(Some(CloseFrame { code, reason })) = frame else {
            panic!("expected a close frame, got {frame:?}");
        };
        (code.into(), reason.to_string())
    }

    /// Returns the expected text of a frame that the gateway itself sends: `text`, this client's id, and
    /// `request_id`.
    pub(crate) fn notice(&self, text: &str, request_id: &str) -> String {
        format!(r#"{{"message": "{text}", "connectionId":"{}", "requestId":"{request_id}"}}"#, self.id)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) =
            text.split_once("\r\n\r\n").expect("a blank line ends the headers of an HTTP response");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(crate) fn error_type(&self) -> &str {
        self.headers.get("x-amzn-errortype").map_or("", String::as_str)
    }
}

/// Returns a handshake request with the headers of a typical client.
pub(crate) fn request(path: &str) -> Request {
    format!("ws://stage{path}").into_client_request().unwrap()
}

pub(crate) fn request_with(path: &str, headers: &[(&'static str, &'static str)]) -> Request {
    let mut request = request(path);
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn gateway<F, R>(
    config: ApiConfig,
    functions: F,
) -> (Gateway, Arc<SetClock>, mpsc::UnboundedReceiver<(String, Value)>)
where
    F: Fn(String, Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, InvokeError>> + Send + 'static,
{
    let (called, events) = mpsc::unbounded_channel();
    let behaviour = Box::new(move |function, event| -> Reply { Box::pin(functions(function, event)) });
    let invoke = Arc::new(Functions { called, behaviour });
    let clock = Arc::new(SetClock(AtomicU64::new(NOW.as_millis())));
    let gateway =
        Gateway::new(config, invoke, Arc::clone(&clock) as _, Arc::new(Counting::default())).unwrap();
    (gateway, clock, events)
}

type Reply = Pin<Box<dyn Future<Output = Result<Bytes, InvokeError>> + Send>>;

struct Functions {
    called: mpsc::UnboundedSender<(String, Value)>,
    behaviour: Box<dyn Fn(String, Value) -> Reply + Send + Sync>,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Functions")
    }
}

impl Invoke for Functions {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes) -> Invocation<'a> {
        let event: Value = serde_json::from_slice(&payload).unwrap();
        // The send may fail, because a test may drop the receiver early.
        drop(self.called.send((function.to_owned(), event.clone())));
        (self.behaviour)(function.to_owned(), event)
    }
}

/// A clock whose time changes only when the test sets a new time.
#[derive(Debug)]
pub(crate) struct SetClock(AtomicU64);

impl SetClock {
    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Predictable entropy for tests: each call returns the next number, starting at 1.
#[derive(Debug, Default)]
struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        bytes.fill(0);
        if let Some(last) = bytes.last_mut() {
            *last = next;
        }
    }
}

struct Pipes(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A gate at which functions wait until the test opens the gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Vec<tokio::sync::oneshot::Sender<()>>>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) async fn wait(&self) {
        let (open, opened) = tokio::sync::oneshot::channel();
        self.0.lock().unwrap().push(open);
        opened.await.unwrap();
    }

    /// Lets the function that has waited longest continue.
    pub(crate) fn open(&self) {
        self.0.lock().unwrap().remove(0).send(()).unwrap();
    }
}
