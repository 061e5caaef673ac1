//! Which calls a fault is about, and what a fake knows of the call that it answers.

/// Which calls a fault is about. What is not narrowed down matches anything.
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

    /// An operation of DynamoDB, such as `UpdateItem`.
    #[must_use]
    pub fn dynamodb(operation: &str) -> Self {
        Self::new(Service::DynamoDb, Some(operation))
    }

    /// Every operation of DynamoDB.
    #[must_use]
    pub fn any_dynamodb() -> Self {
        Self::new(Service::DynamoDb, None)
    }

    /// A frame that is posted to a client (`PostToConnection`); [`on`](Self::on) takes the connection's id.
    #[must_use]
    pub fn post() -> Self {
        Self::new(Service::Connections, Some("PostToConnection"))
    }

    /// The `$disconnect` event of a connection: one that fails never comes, which AWS does not rule out.
    #[must_use]
    pub fn disconnect() -> Self {
        Self::new(Service::Connections, Some("$disconnect"))
    }

    /// The invocation of a function.
    #[must_use]
    pub fn invoke(function: &str) -> Self {
        Self::any_invoke().on(function)
    }

    /// Every invocation of a function.
    #[must_use]
    pub fn any_invoke() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INVOKE))
    }

    /// The call of Lambda's API by which somebody, such as another function, invokes a function or queues an event for it, and
    /// which may be throttled, fail before or after it takes effect, be late, or go without an answer; [`on`](Self::on) takes the
    /// function that is called.
    #[must_use]
    pub fn invoke_api() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INVOKE_API))
    }

    /// An event that Lambda itself hands to a function, out of its queue or from a stream: it may come late, and twice, side by
    /// side; one from the queue may [fail](super::Fault::fail) to come, which is told to nobody. [`on`](Self::on) takes the function.
    #[must_use]
    pub fn event() -> Self {
        Self::new(Service::Lambda, Some(CallContext::EVENT))
    }

    /// The start of an environment: it may be late, fail, or have a clock that is off; [`on`](Self::on) takes the function.
    #[must_use]
    pub fn init() -> Self {
        Self::new(Service::Lambda, Some(CallContext::INIT))
    }

    /// A message that is sent to a queue.
    #[must_use]
    pub fn send_message() -> Self {
        Self::new(Service::Sqs, Some("SendMessage"))
    }

    /// A table's stream records on their way to a function: reads of them may be throttled or fail, and their deliveries be
    /// late or come twice. What SDKs and HTTP clients read of the stream (`GetRecords`) can be throttled, fail or be late.
    #[must_use]
    pub fn records(table: &str) -> Self {
        Self::any_records().on(table)
    }

    /// The stream records of every table.
    #[must_use]
    pub fn any_records() -> Self {
        Self::new(Service::Streams, Some("GetRecords"))
    }

    /// Only on this table, connection, queue or function.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only on this index.
    #[must_use]
    pub fn index(mut self, index: &str) -> Self {
        self.index = Some(index.to_owned());
        self
    }

    /// Only when this function makes it, which is known of functions that run in process.
    #[must_use]
    pub fn by(mut self, function: &str) -> Self {
        self.caller = Some(function.to_owned());
        self
    }

    /// Whether it may be about such a call, whatever else there is to it.
    pub(super) fn is_of(&self, service: Service, operation: &str) -> bool {
        self.service == service && self.operation.as_deref().is_none_or(|wanted| wanted == operation)
    }

    pub(super) fn matches(&self, context: &CallContext<'_>) -> bool {
        let fits = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        self.is_of(context.service, context.operation)
            && self.resource.as_deref().is_none_or(|wanted| context.resources.contains(&wanted))
            && fits(&self.index, context.index)
            && fits(&self.caller, context.caller)
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    DynamoDb,
    Streams,
    Connections,
    Lambda,
    Sqs,
}

/// One call, as a fake sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallContext<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// The tables, the connection, the function or the queue that it is about.
    pub(crate) resources: &'a [&'a str],
    pub(crate) index: Option<&'a str>,
    /// The function that makes it, where that is known.
    pub(crate) caller: Option<&'a str>,
}

impl CallContext<'_> {
    /// A function is to run.
    pub(crate) const INVOKE: &'static str = "Invoke";
    /// Lambda's API is called for it.
    pub(crate) const INVOKE_API: &'static str = "InvokeFunction";
    /// Lambda takes an event out of its queue, or a batch from a stream.
    pub(crate) const EVENT: &'static str = "Event";
    /// An environment starts.
    pub(crate) const INIT: &'static str = "Init";
}
