//! A running WebSocket API, and the routes that serve it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::{any, get};
use streamer::ports::{Clock, Entropy};
use tokio::time::timeout;

use super::api::{Active, Api};
use super::config::{ApiConfig, ConfigError};
use super::connections::Connections;
use super::rates::Rates;
use super::{management, upgrade};
use crate::faults::Faults;
use crate::lambda::Invoke;

/// A running WebSocket API. Clones share it.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(super) api: Arc<Api>,
}

impl Gateway {
    /// An API that calls its functions through `invoke`, with no connection yet.
    ///
    /// # Errors
    /// When `config` has a value that AWS would refuse; the error tells all of them.
    pub fn new(
        config: ApiConfig,
        invoke: Arc<dyn Invoke>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ConfigError> {
        let selection = config.validate()?;
        let (connections, active, faults) = (Connections::default(), Active::default(), Mutex::default());
        let rates = Rates::new(&config);
        let api = Api { config, rates, selection, invoke, clock, entropy, connections, active, faults };
        Ok(Self { api: Arc::new(api) })
    }

    /// Has posts to clients fail as `faults` say: `throttle` is 429 `LimitExceededException`, `fail` and
    /// `fail_after_apply` are 500, `gone` is 410, `deny` is 403, an answer that is lost never comes, and `kill` ends the function that
    /// posts, if it runs in this process. A `$disconnect` that fails never comes.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        *self.api.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        self
    }

    /// The routes to serve: `GET /{stage}` becomes a WebSocket, `/{stage}/@connections/{connection_id}` takes
    /// `POST`, `GET` and `DELETE`; of any other stage they are forbidden (403). Paths beyond these are left to whoever merges this router.
    ///
    /// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: that address is `sourceIp`, which
    /// otherwise is `127.0.0.1`.
    pub fn router(&self) -> Router {
        let stage = &self.api.config.stage;
        let connection = get(management::get).post(management::post).delete(management::delete);
        Router::new()
            .route(&format!("/{stage}"), get(upgrade::upgrade))
            .route(&format!("/{stage}/"), get(upgrade::upgrade))
            .route(&format!("/{stage}/@connections/{{connection_id}}"), connection.clone())
            // Routes match the path as it is written, and some clients encode the at sign.
            .route(&format!("/{stage}/%40connections/{{connection_id}}"), connection)
            .route("/{stage}/@connections/{connection_id}", any(management::forbidden))
            .with_state(Arc::clone(&self.api))
    }

    /// How many connections are open: past their `$connect`, and not yet closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.api.connections.len()
    }

    /// Refuses new connections, and closes every open one with 1001, without waiting for them.
    #[doc(hidden)]
    pub fn close(&self) {
        self.api.active.close();
    }

    /// Refuses new connections, closes every open one with 1001, and waits until each `$disconnect` has ended,
    /// but no longer than [`Limits::shutdown_timeout`](super::Limits::shutdown_timeout).
    pub async fn shutdown(&self) {
        self.close();
        if timeout(self.api.config.limits.shutdown_timeout, self.api.active.drained()).await.is_err() {
            tracing::warn!("some connections had not ended when the gateway stopped waiting for them");
        }
    }
}
