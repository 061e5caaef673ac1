//! What stands between a message and its handler: [tower] layers, Streamer's, the ecosystem's, or your own.
//!
//! A [`Call`] is the request of each service, a [`Reply`] its response. An app's layers wrap all its actions
//! ([`App::layer`](crate::app::App::layer)), those that are built in among them; an action's layers wrap that action alone
//! ([`App::handle_with`](crate::app::App::handle_with)). A queued request passes them twice, each time in another
//! [`Phase`]: at the router, before it is queued, and at the processor, around each attempt to run it.
//!
//! In both phases a call takes this way, and its reply the same way back:
//!
//! 1. At the router: the sender's identity, from the connection's record alone. No layer sees a call without one. An
//!    action without a handler, in an app without a fallback, is answered here.
//! 2. The app's layers: the one that was added last is the first to see the call. For a built-in action the way ends here,
//!    with [`Reply::BuiltIn`].
//! 3. The action's layers: of a tuple, or of tower's `ServiceBuilder`, the first.
//! 4. At the router: the handler's required permission.
//! 5. The payload is read into the handler's input, and validated.
//! 6. At the router: the estimate; above the threshold the way ends with [`Reply::Queue`].
//! 7. The handler.
//!
//! All of it runs on the handlers' runtime, in a task of the call's own: a panic in a layer costs its call alone. Only
//! built-in actions stay on the router's, so that a handler that holds its thread keeps nobody from asking how things
//! stand. A request is queued as its message came, once the reply has come back through every layer.
//!
//! A layer is one service for all calls of its environment. A router's environment has one message at a time, a
//! processor's as many requests as it runs at once: that is where a limit on concurrency matters. What sheds load, or
//! refuses for another passing reason, belongs into [`when_routing`]: at the processor it would end a queued request.
//! [`Logging`] and [`Metrics`] are always ready, so that they see also the calls that wait for room further in: what sheds
//! load belongs inside them, where it learns that there is none, and they see what it sheds.
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
//!         tracing::debug!(tenant = %call.context.tenant, "for whom");
//!         next.run(call).await
//!     }))
//!     .layer(Logging);
//! # Ok(app)
//! # }
//! # app().unwrap();
//! ```
//!
//! # Errors
//!
//! A layer's service may fail with any error that can be boxed. What its client is told is decided at the end of the way
//! back:
//!
//! | error, or the first of its sources that is | told |
//! |---|---|
//! | [`CallError`] | what it says |
//! | tower's `timeout::error::Elapsed` | `TIMEOUT` |
//! | tower's `load_shed::error::Overloaded` | `RATE_LIMITED` |
//! | anything else | `PROCESSING_FAILED`; its text goes to the log alone |

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
