//! What each function does with its event: everything between Lambda's runtime and the library.

mod connect;
mod disconnect;

pub use connect::Connect;
pub use disconnect::Disconnect;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;

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
