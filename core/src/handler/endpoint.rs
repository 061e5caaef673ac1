use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tower::Service;

use super::{Handler, HandlerError};
use crate::middleware::{Call, CallError, Phase, Reply};
use crate::protocol::{ErrorBody, FieldError};

/// Where every call ends: a handler, asked as its phase wants it.
pub(crate) struct Endpoint<H>(Arc<H>);

impl<H> Endpoint<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self(Arc::new(handler))
    }
}

impl<H> Clone for Endpoint<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> Service<Call> for Endpoint<H> {
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move {
            let Call { context, payload, phase, .. } = call;
            if let Phase::Routing(routing) = &phase
                && let Some(permission) = handler.required_permission()
            {
                routing.require(permission)?;
            }
            let input: H::Input = read(&payload).map_err(CallError::refused)?;
            drop(payload);
            handler
                .validate(&input)
                .map_err(|fields| CallError::refused(ErrorBody::invalid_fields(&fields)))?;
            if let Phase::Routing(routing) = phase
                && handler.estimated_duration(&input) > routing.async_threshold
            {
                return Ok(Reply::Queue);
            }
            let output = handler.process(input, context).await?;
            Ok(Reply::Done(serde_json::to_value(output).map_err(HandlerError::from)?))
        })
    }
}

fn read<I: serde::de::DeserializeOwned>(payload: &Value) -> Result<I, ErrorBody> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        ErrorBody::invalid_fields(&[FieldError::new(path, shortened(&error.inner().to_string()))])
    })
}

/// What is wrong with a payload, without the whole payload in it: serde quotes what it found.
fn shortened(problem: &str) -> String {
    const MAX_CHARS: usize = 300;
    match problem.char_indices().nth(MAX_CHARS) {
        None => problem.to_owned(),
        Some((end, _)) => format!("{} …", &problem[..end]),
    }
}
