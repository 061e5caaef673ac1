use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use streamer_fakes::faults::Caller;
use streamer_fakes::lambda::{
    InProcess, InProcessEnvironment, InProcessEvent, Invocation, InvokeError, Starting,
};

/// Makes a Lambda function that runs in process, from an async closure that turns an event into a reply.
///
/// If the closure returns an error, the invocation fails with that error (`FunctionError: Unhandled`). The
/// closure receives neither the function's environment variables nor the stage's services; code that needs
/// them implements [`InProcess`].
///
/// ```
/// use serde_json::{Value, json};
/// use streamer_harness::stage::function_fn;
///
/// let hello = function_fn(|event: Value| async move {
///     let name = event["name"].as_str().ok_or("the event has no name")?;
///     Ok::<_, &str>(json!({"statusCode": 200, "body": format!("hello {name}")}))
/// });
/// # let _ = hello;
/// ```
pub fn function_fn<F, R, E>(function: F) -> Arc<dyn InProcess>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, E>> + Send + 'static,
    E: fmt::Display,
{
    Arc::new(FunctionFn(Arc::new(function)))
}

struct FunctionFn<F>(Arc<F>);

impl<F> fmt::Debug for FunctionFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionFn")
    }
}

impl<F, R, E> InProcess for FunctionFn<F>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, E>> + Send + 'static,
    E: fmt::Display,
{
    fn start(&self, _: Caller, _: BTreeMap<String, String>) -> Starting<'_> {
        let environment: Box<dyn InProcessEnvironment> = Box::new(Self(Arc::clone(&self.0)));
        Box::pin(std::future::ready(Ok(environment)))
    }
}

impl<F, R, E> InProcessEnvironment for FunctionFn<F>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, E>> + Send + 'static,
    E: fmt::Display,
{
    fn invoke(&mut self, event: InProcessEvent) -> Invocation<'_> {
        let reply = serde_json::from_slice(&event.payload).map(|event| (self.0)(event));
        Box::pin(async move {
            let failed = |error_type: &str, message: String| InvokeError::Function {
                error_type: error_type.to_owned(),
                message,
            };
            match reply {
                Ok(reply) => match reply.await {
                    Ok(reply) => Ok(Bytes::from(reply.to_string())),
                    Err(error) => Err(failed(std::any::type_name::<E>(), error.to_string())),
                },
                Err(error) => Err(failed(std::any::type_name::<serde_json::Error>(), error.to_string())),
            }
        })
    }
}
