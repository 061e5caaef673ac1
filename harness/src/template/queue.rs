//! Reads `AWS::SQS::Queue`.

use std::collections::BTreeMap;

use serde_json::json;

use super::diagnostics::FindingKind::Harmless;
use super::fields::{Fields, Ignored, Reader};
use super::resource::{QUEUE, Resource, of_type};

/// A standard SQS queue of the template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Queue {
    /// Logical id of the queue in the template.
    pub logical_id: String,
    /// Name of the queue: `QueueName`, otherwise `<stack>-<logical id>`. (CloudFormation appends `-` and
    /// random letters to a generated name.)
    pub name: String,
    /// ARN of the queue, to which an on-failure destination refers.
    pub arn: String,
    /// Attributes of the queue, in the format of `SetQueueAttributes`. A missing attribute has SQS's default.
    pub attributes: BTreeMap<String, String>,
}

const IGNORED: &[Ignored] = &[
    ("KmsDataKeyReusePeriodSeconds", Harmless, "nothing is encrypted locally"),
    ("KmsMasterKeyId", Harmless, "nothing is encrypted locally"),
    ("RedriveAllowPolicy", Harmless, "locally every queue may be the dead-letter queue of every other"),
    ("SqsManagedSseEnabled", Harmless, "nothing is encrypted locally"),
    ("Tags", Harmless, "tags have no effect locally"),
];

/// Numeric properties of a queue: name, unit, minimum and maximum.
const NUMBERS: &[(&str, &str, i64, i64)] = &[
    ("DelaySeconds", "seconds", 0, 900),
    ("MaximumMessageSize", "bytes", 1_024, 1_048_576),
    ("MessageRetentionPeriod", "seconds", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", "seconds", 0, 20),
    ("VisibilityTimeout", "seconds", 0, 43_200),
];

pub(super) fn read(resources: &[Resource<'_>], reader: &mut Reader<'_>) -> Vec<Queue> {
    let mut queues = Vec::<Queue>::new();
    for resource in of_type(resources, QUEUE) {
        let Some(queue) = queue(resource, reader) else { continue };
        if let Some(other) = queues.iter().find(|other| other.name == queue.name) {
            let message = format!(
                "the queue's name {} is already the name of {}; choose another name",
                queue.name, other.logical_id
            );
            reader.report.problem(&resource.node.place, message);
        }
        queues.push(queue);
    }
    queues
}

fn queue(resource: &Resource<'_>, reader: &mut Reader<'_>) -> Option<Queue> {
    let mut fields = resource.properties(reader)?;
    fields.node("QueueName", reader);
    let name = reader.report.keep(reader.scope.physical_name(resource.id, resource.node));
    let is_fifo = fields.flag("FifoQueue", reader).unwrap_or(false);
    if is_fifo || name.as_ref().is_some_and(|name| name.ends_with(".fifo")) {
        let place = fields.place(if is_fifo { "FifoQueue" } else { "QueueName" });
        reader.report.unsupported(&place, "FIFO queues are not emulated; use a standard queue");
    } else if let Some(name) = name.as_ref().filter(|name| !is_valid_name(name)) {
        let message = format!("expected a name of 1 to 80 letters, digits, - and _, found {name:?}");
        reader.report.problem(&fields.place("QueueName"), message);
    }
    let mut attributes = BTreeMap::new();
    for (property, unit, least, most) in NUMBERS {
        if let Some(number) = fields.number(property, unit, *least..=*most, reader) {
            attributes.insert((*property).to_owned(), number.to_string());
        }
    }
    if let Some(policy) = redrive_policy(&mut fields, reader) {
        attributes.insert("RedrivePolicy".to_owned(), policy);
    }
    fields.finish(IGNORED, reader);
    let name = name?;
    let arn = reader.scope.arn("sqs", &name);
    Some(Queue { logical_id: resource.id.to_owned(), name, arn, attributes })
}

fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=80).contains(&name.len()) && name.bytes().all(allowed)
}

fn redrive_policy(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<String> {
    let mut policy = fields.fields("RedrivePolicy", reader)?;
    let target = policy.required_text("deadLetterTargetArn", "the ARN of a queue", reader);
    let before = reader.report.problems.len();
    let count = policy.count("maxReceiveCount", "receipts", 1..=1_000, reader);
    if count.is_none() && reader.report.problems.len() == before {
        let message = "required, but missing; expected the number of times that a message may be received";
        reader.report.problem(&policy.place("maxReceiveCount"), message);
    }
    policy.finish(&[], reader);
    Some(json!({ "deadLetterTargetArn": target?, "maxReceiveCount": count? }).to_string())
}
