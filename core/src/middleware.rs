//! Middleware: [tower] layers around handlers. A layer can come from Streamer or from the tower ecosystem, or be your
//! own.
//!
//! [`App::layer`](crate::app::App::layer) adds a layer around all actions, including the built-in ones.
//! [`App::handle_with`](crate::app::App::handle_with) adds a layer around one action. [`from_fn`] makes a layer from
//! an async function:
//!
//! ```
//! use std::time::Duration;
//! use streamer::app::App;
//! use streamer::handler::HandlerError;
//! use streamer::middleware::{Call, Logging, Next, Rate, RateLimit, from_fn, when_processing};
//! use tower::timeout::TimeoutLayer;
//!
//! async fn add(numbers: Vec<f64>) -> Result<f64, HandlerError> {
//!     Ok(numbers.iter().sum())
//! }
//!
//! # fn app() -> Result<App, streamer::app::RegisterError> {
//! let mut app = App::new();
//! app.handle("add", add)?
//!     .layer(when_processing(TimeoutLayer::new(Duration::from_secs(60))))
//!     .layer(RateLimit::per_user(Rate::per_minute(100).with_burst(20)))
//!     .layer(from_fn(async |call: Call, next: Next| {
//!         tracing::debug!(tenant = %call.context.tenant, "call received");
//!         next.run(call).await
//!     }))
//!     .layer(Logging);
//! # Ok(app)
//! # }
//! # app().unwrap();
//! ```
//!
//! # The path of a call
//!
//! Each layer creates a tower service whose request is a [`Call`] and whose response is a [`Reply`]. A queued request
//! passes the layers at least twice, in different [`Phase`]s. The first time is in the router, before the request is
//! queued. The other times are in the processor or worker, for each attempt.
//!
//! A call passes these steps in order, and its reply passes them in reverse order:
//!
//! 1. In the router only: the sender's identity is read from the connection's record, so that every layer can use the
//!    identity. A message with an unknown action is rejected here, unless the app has a fallback.
//! 2. The app's layers. The layer that was added last receives the call first. A call of a built-in action ends behind
//!    the innermost of these layers, with [`Reply::BuiltIn`].
//! 3. The action's layers. The first layer of a tuple, or of tower's `ServiceBuilder`, receives the call first.
//! 4. In the router only: the handler's required permission is checked.
//! 5. The payload is deserialized into the handler's input, and the input is validated.
//! 6. In the router only: the handler's estimated duration is compared with the router's threshold. If the estimate is
//!    longer, the call ends at this step, with [`Reply::Queue`].
//! 7. The handler runs.
//!
//! The router queues a request only after the [`Reply::Queue`] has passed all layers. The router stores the original
//! message, so changes that a layer has made to the call are not stored.
//!
//! # Runtime and concurrency
//!
//! Each call runs in its own task on the handlers' runtime, so that a panic in a layer ends only one call. Calls of
//! built-in actions run on the router's own runtime instead, so that the router answers them even while a handler
//! blocks the handlers' runtime.
//!
//! All calls in one Lambda execution environment share one service of each layer. An environment of the router
//! processes one message at a time. An environment of the processor runs several requests concurrently, so a
//! concurrency limit has an effect only in the processor.
//!
//! Wrap a layer that rejects calls for a temporary reason, such as load shedding, in [`when_routing`]. Otherwise this
//! layer would make queued requests fail in the processor. Add a load-shedding layer inside [`Logging`] and
//! [`Metrics`], which means before them. These two layers are always ready, so they also record calls that wait for
//! an inner layer to become ready, and calls that an inner layer rejects. But a load-shedding layer outside of an
//! always ready layer would never reject a call.
//!
//! # Errors
//!
//! A layer's service may fail with any error that converts into a [`BoxError`]. After the error has passed all
//! layers, Streamer searches the error and its sources for one of these types, and sends the corresponding error to
//! the client:
//!
//! | type of the error or of one of its sources | error that the client receives |
//! |---|---|
//! | [`CallError`] | the code and message in the `CallError` |
//! | tower's `timeout::error::Elapsed` | `TIMEOUT` |
//! | tower's `load_shed::error::Overloaded` | `RATE_LIMITED` |
//! | any other type | `PROCESSING_FAILED`; the text of the error is only logged |

mod around;
mod call;
mod error;
mod from_fn;
mod logging;
mod metrics;
mod next;
mod observe;
mod permission;
mod phased;
mod rate_limit;

pub use crate::store::Rate;
pub use call::{Call, Phase, Reply, Routing};
pub use error::{CallError, CallErrorKind};
pub use from_fn::{FromFn, from_fn};
pub use logging::Logging;
pub use metrics::Metrics;
pub use next::{Next, Step};
pub use permission::RequirePermission;
pub use phased::{InPhase, when_processing, when_routing};
pub use rate_limit::RateLimit;
pub use tower::{BoxError, Layer, Service};

pub(crate) use rate_limit::SharedRateLimits;
