//! A WebSocket endpoint that answers as a stage does, or makes one kind of mistake.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// Way in which an endpoint answers: correctly, or with one kind of mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answers {
    /// Answers every request correctly.
    Properly,
    /// Refuses `$connect` with 401.
    Refusing,
    /// Accepts connections, and answers no request.
    Silently,
    /// Answers an echo request with a different payload.
    WithAnotherEcho,
    /// Answers an echo request with the id of a different request.
    ForAnotherRequest,
    /// Answers every request with API Gateway's own error, as after a failed integration.
    AsABrokenGateway,
    /// Answers a slow request with an error frame.
    WithAnError,
    /// Completes a slow request with the result of a different request.
    WithAnotherResult,
    /// Acknowledges a slow request, and then closes the connection.
    ByClosing,
    /// Acknowledges a slow request, and then sends nothing more.
    WithoutProgress,
}

/// A running endpoint, which records its clients' actions.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    seen: Arc<Mutex<Seen>>,
}

/// Actions of the clients that an endpoint has recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Query string of each `$connect` request.
    pub(crate) queries: Vec<String>,
    /// Action and request id of each message.
    pub(crate) messages: Vec<(String, String)>,
    /// Number of connections that a client closed with a close frame.
    pub(crate) closed: usize,
}

impl Endpoint {
    pub(crate) async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/prod", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers, Arc::clone(&shared)));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, answers: Answers, seen: Arc<Mutex<Seen>>) {
    #[expect(clippy::result_large_err, reason = "tungstenite defines the error type")]
    let connect = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        seen.lock().unwrap().queries.push(query);
        if answers == Answers::Refusing { Err(refusal()) } else { Ok(response) }
    };
    let Ok(mut socket) = accept_hdr_async(stream, connect).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
                seen.lock().unwrap().messages.push((text("action"), text("id")));
                for reply in replies(answers, &message) {
                    socket.send(reply).await.unwrap();
                }
            }
            Message::Close(_) => seen.lock().unwrap().closed += 1,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn refusal() -> ErrorResponse {
    let body = json!({"code": "TOKEN_EXPIRED", "message": "The token has expired"}).to_string();
    let mut refusal = ErrorResponse::new(Some(body.clone()));
    *refusal.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::UNAUTHORIZED;
    refusal.headers_mut().insert("content-length", body.len().into());
    refusal
}

fn replies(answers: Answers, message: &Value) -> Vec<Message> {
    let (id, payload) = (&message["id"], &message["payload"]);
    let text = |frame: Value| Message::text(frame.to_string());
    let response =
        |id, data| text(json!({"type": "response", "request_id": id, "success": true, "data": data}));
    match (message["action"].as_str(), answers) {
        (_, Answers::Silently) => vec![],
        (_, Answers::AsABrokenGateway) => {
            vec![text(json!({"message": "Internal server error", "connectionId": "c", "requestId": "q"}))]
        }
        (Some("echo"), Answers::WithAnotherEcho) => vec![response(id, &json!({"message": "hi"}))],
        (Some("echo"), Answers::ForAnotherRequest) => vec![response(&json!("r1"), payload)],
        (Some("echo"), _) => vec![response(id, payload)],
        (Some("echo_async"), Answers::WithAnError) => {
            let error = json!({"code": "RATE_LIMITED", "message": "Wait a second"});
            vec![text(json!({"type": "error", "request_id": id, "error": error, "timestamp": 1}))]
        }
        (Some("echo_async"), Answers::ByClosing) => vec![text(acknowledgment(id)), Message::Close(None)],
        (Some("echo_async"), Answers::WithoutProgress) => vec![text(acknowledgment(id))],
        (Some("echo_async"), _) => slow_replies(answers, id, payload).map(text).into(),
        (other, _) => panic!("the load test sends only echo and echo_async, not {other:?}"),
    }
}

fn acknowledgment(id: &Value) -> Value {
    json!({"type": "acknowledgment", "request_id": id, "status": "queued", "message": "Queued"})
}

fn slow_replies(answers: Answers, id: &Value, payload: &Value) -> [Value; 4] {
    let progress = |percentage: f64, seq: u32| {
        json!({"type": "progress", "request_id": id, "percentage": percentage, "message": "Round",
               "timestamp": 1, "seq": seq})
    };
    let message = if answers == Answers::WithAnotherResult { &json!("hi") } else { &payload["message"] };
    let result = json!({"message": message, "rounds": payload["rounds"], "digest": "0123456789abcdef"});
    let complete = json!({"type": "complete", "request_id": id, "success": true, "result": result,
                          "timestamp": 1, "seq": 3});
    [acknowledgment(id), progress(50.0, 1), progress(100.0, 2), complete]
}
