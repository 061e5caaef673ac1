use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::service_fn;

use super::{Handler, HandlerError};
use crate::middleware::{Call, CallError, Next, Phase, Reply};
use crate::protocol::{ErrorBody, FieldError};

/// Where every call ends: at a handler, which is asked what the call's phase wants to know.
pub(crate) fn endpoint(handler: impl Handler) -> Next {
    let handler = Arc::new(handler);
    Next::new(service_fn(move |call| answer(Arc::clone(&handler), call)))
}

async fn answer<H: Handler>(handler: Arc<H>, call: Call) -> Result<Reply, CallError> {
    let Call { context, payload, phase, .. } = call;
    if let Phase::Routing(routing) = &phase
        && let Some(permission) = handler.required_permission()
    {
        routing.require(permission)?;
    }
    let input: H::Input = read(&payload).map_err(CallError::refused)?;
    drop(payload);
    handler.validate(&input).map_err(|fields| CallError::refused(ErrorBody::invalid_fields(&fields)))?;
    if let Phase::Routing(routing) = phase {
        let estimated_duration = handler.estimated_duration(&input);
        if estimated_duration > routing.async_threshold {
            return Ok(Reply::Queue { estimated_duration });
        }
    }
    let output = handler.process(input, context).await?;
    Ok(Reply::Done(serde_json::to_value(output).map_err(HandlerError::from)?))
}

fn read<I: DeserializeOwned>(payload: &Value) -> Result<I, ErrorBody> {
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
