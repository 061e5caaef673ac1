use std::future::Future;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;

use crate::deadline::REPLY_MARGIN;
use crate::ports::Timestamp;

/// Creates a reply to the gateway with this HTTP status and body.
pub(super) fn reply(status: i64, body: Option<String>) -> ApiGatewayProxyResponse {
    let mut reply = ApiGatewayProxyResponse::default();
    reply.status_code = status;
    reply.body = body.map(Body::Text);
    reply
}

/// Runs `work` until [`REPLY_MARGIN`] before `deadline`, the end of the invocation. Returns the output of `work`, or
/// `None` if `work` has not ended by then.
pub(super) fn in_time<T>(
    now: Timestamp,
    deadline: Timestamp,
    work: impl Future<Output = T> + Send,
) -> impl Future<Output = Option<T>> + Send {
    // Boxed because the SDK's futures are large.
    let work = Box::pin(work);
    let time_left = deadline.since(now).saturating_sub(REPLY_MARGIN);
    async move { tokio::time::timeout(time_left, work).await.ok() }
}
