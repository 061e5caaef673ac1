//! Patterns that select the calls of a fault rule, and the properties of a call that are compared with a pattern.

/// Pattern that selects the calls to which a fault applies. A property that the pattern does not set matches every
/// call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    service: Service,
    operation: Option<String>,
    pub(super) resource: Option<String>,
    index: Option<String>,
    caller: Option<String>,
}

impl Call {
    fn new(service: Service, operation: Option<&str>) -> Self {
        Self { service, operation: operation.map(str::to_owned), resource: None, index: None, caller: None }
    }

    /// Matches calls of one DynamoDB operation, such as `UpdateItem`.
    #[must_use]
    pub fn dynamodb(operation: &str) -> Self {
        Self::new(Service::DynamoDb, Some(operation))
    }

    /// Matches calls of every DynamoDB operation.
    #[must_use]
    pub fn any_dynamodb() -> Self {
        Self::new(Service::DynamoDb, None)
    }

    /// Matches calls of `PostToConnection`, which send a frame to a WebSocket client. [`on`](Self::on) limits the
    /// pattern to one connection, given by id.
    #[must_use]
    pub fn post() -> Self {
        Self::new(Service::Connections, Some("PostToConnection"))
    }

    /// Matches the `$disconnect` event of a connection. [`Fault::fail`](super::Fault::fail) drops the event, because
    /// AWS does not guarantee that the event is delivered. [`on`](Self::on) limits the pattern to one connection,
    /// given by id.
    #[must_use]
    pub fn disconnect() -> Self {
        Self::new(Service::Connections, Some("$disconnect"))
    }

    /// Matches invocations of one function, given by name.
    #[must_use]
    pub fn invoke(function: &str) -> Self {
        Self::any_invoke().on(function)
    }

    /// Matches invocations of every function.
    #[must_use]
    pub fn any_invoke() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INVOKE))
    }

    /// Matches calls of the operation `Invoke` in Lambda's API, synchronous and asynchronous, such as the call with
    /// which one function invokes another function.
    ///
    /// The call can be throttled, fail before or after it takes effect, be delayed, or lose its answer.
    /// [`on`](Self::on) limits the pattern to one invoked function, given by name.
    #[must_use]
    pub fn invoke_api() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INVOKE_API))
    }

    /// Matches events that Lambda delivers to a function from its queue of asynchronous invocations or from a
    /// stream.
    ///
    /// The event can be delayed or duplicated; duplicates run concurrently. [`Fault::fail`](super::Fault::fail)
    /// silently drops an event of the queue. [`on`](Self::on) limits the pattern to one function, given by name.
    #[must_use]
    pub fn event() -> Self {
        Self::new(Service::Lambda, Some(CallContext::EVENT))
    }

    /// Matches the start of an execution environment.
    ///
    /// The start can be delayed or fail, or the environment can have a [wrong clock](super::Fault::skew).
    /// [`on`](Self::on) limits the pattern to one function, given by name.
    #[must_use]
    pub fn init() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INIT))
    }

    /// Matches calls of `SendMessage`, which send a message to a queue. [`on`](Self::on) limits the pattern to one
    /// queue, given by name.
    #[must_use]
    pub fn send_message() -> Self {
        Self::new(Service::Sqs, Some("SendMessage"))
    }

    /// Matches reads (`GetRecords`) of a table's stream, and deliveries of its records to a function.
    ///
    /// For an event source mapping, a read can be throttled or fail, and a delivery can be delayed or duplicated. A
    /// read by an SDK or an HTTP client can be throttled, fail or be delayed.
    #[must_use]
    pub fn records(table: &str) -> Self {
        Self::any_records().on(table)
    }

    /// Matches reads and deliveries of stream records, like [`records`](Self::records), for every table.
    #[must_use]
    pub fn any_records() -> Self {
        Self::new(Service::Streams, Some("GetRecords"))
    }

    /// Limits the pattern to calls on one table, connection, queue or function.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Limits the pattern to calls on one index.
    #[must_use]
    pub fn index(mut self, index: &str) -> Self {
        self.index = Some(index.to_owned());
        self
    }

    /// Limits the pattern to calls made by one function. The caller is known only for functions that run in process.
    #[must_use]
    pub fn by(mut self, function: &str) -> Self {
        self.caller = Some(function.to_owned());
        self
    }

    /// Returns whether the pattern may match a call of this operation, without checking resource, index and caller.
    pub(super) fn is_of(&self, service: Service, operation: &str) -> bool {
        self.service == service && self.operation.as_deref().is_none_or(|wanted| wanted == operation)
    }

    pub(super) fn matches(&self, context: &CallContext<'_>) -> bool {
        let matches = |wanted: &Option<String>, actual: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| actual == Some(wanted))
        };
        self.is_of(context.service, context.operation)
            && self.resource.as_deref().is_none_or(|wanted| context.resources.contains(&wanted))
            && matches(&self.index, context.index)
            && matches(&self.caller, context.caller)
    }
}

/// AWS service, or part of a service, that a call addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    DynamoDb,
    Streams,
    Connections,
    Lambda,
    Sqs,
}

/// Properties of one call, which are compared with the patterns of fault rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallContext<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// Names of the tables, or of the connection, function or queue, that the call addresses.
    pub(crate) resources: &'a [&'a str],
    pub(crate) index: Option<&'a str>,
    /// Name of the function that makes the call; `None` if the caller is unknown.
    pub(crate) caller: Option<&'a str>,
}

impl CallContext<'_> {
    /// Name of the operation in which Lambda runs a function, for every kind of trigger.
    pub(crate) const INVOKE: &'static str = "Invoke";
    /// Name of the operation in which a client calls `Invoke` in Lambda's API.
    pub(crate) const INVOKE_API: &'static str = "InvokeFunction";
    /// Name of the operation in which Lambda delivers an event from its queue, or a batch of a stream, to a function.
    pub(crate) const EVENT: &'static str = "Event";
    /// Name of the operation in which Lambda starts an execution environment.
    pub(crate) const INIT: &'static str = "Init";
}
