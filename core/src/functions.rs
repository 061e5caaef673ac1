//! What each function does with its event: everything between Lambda's runtime and the library.

mod connect;
mod disconnect;
pub mod setup;
#[cfg(test)]
mod test_world;

pub use connect::Connect;
pub use disconnect::Disconnect;

use std::future::Future;
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;

use crate::ports::Timestamp;

/// A reply to the gateway.
fn reply(status: i64, body: Option<String>) -> ApiGatewayProxyResponse {
    let mut reply = ApiGatewayProxyResponse::default();
    reply.status_code = status;
    reply.body = body.map(Body::Text);
    reply
}

/// The router's reply to a message: the frame goes back as the route response.
#[must_use]
pub fn route_response(frame: String) -> ApiGatewayProxyResponse {
    reply(200, Some(frame))
}

/// How long before an invocation's end its answer is given.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What comes of `work`, if it does so in time to answer before the invocation's end.
fn in_time<T>(
    now: Timestamp,
    deadline: Timestamp,
    work: impl Future<Output = T> + Send,
) -> impl Future<Output = Option<T>> + Send {
    // Boxed, since the SDK's futures are large.
    let work = Box::pin(work);
    let time_left = deadline.since(now).saturating_sub(LAST_MOMENT);
    async move { tokio::time::timeout(time_left, work).await.ok() }
}
