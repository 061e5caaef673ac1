//! A running WebSocket API, and its HTTP routes.

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

/// A running WebSocket API. All clones share the same API.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(super) api: Arc<Api>,
}

impl Gateway {
    /// Returns a WebSocket API that has no connections yet and invokes functions through `invoke`.
    ///
    /// # Errors
    /// [`ConfigError`] if `config` has an invalid setting; the error lists all invalid settings.
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

    /// Sets the fault rules for posts to clients and for `$disconnect` events.
    ///
    /// A fault determines the answer to a post (`PostToConnection`): 429 `LimitExceededException` for
    /// `throttle`, 500 for `fail` and `fail_after_apply`, 410 for `gone`, and 403 for `deny`. With
    /// `lose_answer`, the caller receives no answer. With `kill`, the environment that makes the call is
    /// killed, if the function runs in this process. A `$disconnect` event with the fault `fail` is never
    /// delivered.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        *self.api.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        self
    }

    /// Returns the HTTP routes of the API.
    ///
    /// `GET /{stage}` upgrades to a WebSocket. `/{stage}/@connections/{connection_id}` accepts `POST`, `GET`
    /// and `DELETE`. The `@connections` path of any other stage is answered with 403. The router has no other
    /// routes and no fallback, so it can be merged with other routers.
    ///
    /// Serve the router with `into_make_service_with_connect_info::<SocketAddr>()`: functions then receive
    /// the address of the peer as `sourceIp`. Without connect info, `sourceIp` is `127.0.0.1`.
    pub fn router(&self) -> Router {
        let stage = &self.api.config.stage;
        let connection = get(management::get).post(management::post).delete(management::delete);
        Router::new()
            .route(&format!("/{stage}"), get(upgrade::upgrade))
            .route(&format!("/{stage}/"), get(upgrade::upgrade))
            .route(&format!("/{stage}/@connections/{{connection_id}}"), connection.clone())
            // axum matches the path before percent-decoding, and some clients encode the `@`.
            .route(&format!("/{stage}/%40connections/{{connection_id}}"), connection)
            .route("/{stage}/@connections/{connection_id}", any(management::forbidden))
            .with_state(Arc::clone(&self.api))
    }

    /// Returns the number of connections that `$connect` has accepted and that are not closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.api.connections.len()
    }

    /// Rejects new connections, and starts to close all open connections with code 1001. Returns before the
    /// connections are closed.
    #[doc(hidden)]
    pub fn close(&self) {
        self.api.active.close();
    }

    /// Rejects new connections, closes all open connections with code 1001, and waits until all `$disconnect`
    /// functions have finished.
    ///
    /// The method waits for at most [`Limits::shutdown_timeout`](super::Limits::shutdown_timeout).
    pub async fn shutdown(&self) {
        self.close();
        if timeout(self.api.config.limits.shutdown_timeout, self.api.active.drained()).await.is_err() {
            tracing::warn!("gateway shutdown timed out; connections still closing");
        }
    }
}
