//! `AWS::DynamoDB::Table`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::fields::{Fields, Ignored, Reader};
use super::node::Node;
use super::resource::{Resource, of_type};

pub(super) const TYPE: &str = "AWS::DynamoDB::Table";

/// A DynamoDB table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name within the template.
    pub logical_id: String,
    /// Its name on AWS: `TableName`, else `<stack>-<logical id>`.
    pub name: String,
    /// The `CreateTable` request of the DynamoDB API that makes it, with indexes and stream.
    pub create_table: Value,
    /// The attribute that says when an item expires (epoch seconds), where time to live is enabled.
    pub ttl_attribute: Option<String>,
}

impl Table {
    /// Whether writes to the table appear in a stream.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.create_table.get("StreamSpecification").is_some()
    }
}

const IGNORED: &[Ignored] = &[
    ("ContributorInsightsSpecification", Harmless, "there are no metrics locally"),
    ("DeletionProtectionEnabled", Harmless, "the local stage deletes no table"),
    ("ImportSourceSpecification", NotEmulated, "the table starts empty locally"),
    ("KinesisStreamSpecification", NotEmulated, "changes are not sent to Kinesis locally"),
    ("OnDemandThroughput", Harmless, "throughput is not limited locally"),
    ("PointInTimeRecoverySpecification", Harmless, "there are no backups locally"),
    ("ResourcePolicy", Harmless, "permissions are not checked locally"),
    ("SSESpecification", Harmless, "nothing is encrypted locally"),
    ("TableClass", Harmless, "has no effect but on the bill"),
    ("Tags", Harmless, "tags have no effect locally"),
    ("WarmThroughput", Harmless, "throughput is not limited locally"),
];

const INDEX_IGNORED: &[Ignored] = &[
    ("ContributorInsightsSpecification", Harmless, "there are no metrics locally"),
    ("OnDemandThroughput", Harmless, "throughput is not limited locally"),
    ("WarmThroughput", Harmless, "throughput is not limited locally"),
];

pub(super) fn read(resources: &[Resource<'_>], reader: &mut Reader<'_>) -> Vec<Table> {
    let mut tables = Vec::<Table>::new();
    for resource in of_type(resources, TYPE) {
        let Some(table) = table(resource, reader) else { continue };
        if let Some(other) = tables.iter().find(|other| other.name == table.name) {
            let message =
                format!("{} is also the name of {}; names must differ", table.name, other.logical_id);
            reader.report.problem(&resource.node.place, message);
        }
        tables.push(table);
    }
    tables
}

fn table(resource: &Resource<'_>, reader: &mut Reader<'_>) -> Option<Table> {
    let mut fields = resource.properties(reader)?;
    fields.node("TableName", reader);
    let name = reader.report.keep(reader.scope.physical_name(resource.id, resource.node));

    let mut keys = BTreeSet::new();
    let definitions = attribute_definitions(&mut fields, reader);
    let mut request = Map::new();
    request.insert("TableName".to_owned(), json!(name));
    request.insert("AttributeDefinitions".to_owned(), json!(definitions));
    request.insert("KeySchema".to_owned(), key_schema(&mut fields, &mut keys, reader));
    let billing = fields.text("BillingMode", reader).unwrap_or_else(|| "PROVISIONED".to_owned());
    one_of(&fields, "BillingMode", &billing, &["PROVISIONED", "PAY_PER_REQUEST"], reader);
    if let Some(throughput) = throughput(&mut fields, reader) {
        request.insert("ProvisionedThroughput".to_owned(), throughput);
    } else if billing == "PROVISIONED" {
        let place = fields.place("ProvisionedThroughput");
        reader.report.problem(&place, "is missing; give it, or set BillingMode to PAY_PER_REQUEST");
    }
    request.insert("BillingMode".to_owned(), json!(billing));
    for name in ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"] {
        let nodes = fields.list(name, reader);
        let indexes: Vec<Value> = nodes.iter().filter_map(|node| index(node, &mut keys, reader)).collect();
        if !indexes.is_empty() {
            request.insert(name.to_owned(), json!(indexes));
        }
    }
    if let Some(mut stream) = fields.fields("StreamSpecification", reader) {
        let view = stream.required_text("StreamViewType", "such as NEW_IMAGE", reader).unwrap_or_default();
        let views = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"];
        if !view.is_empty() {
            one_of(&stream, "StreamViewType", &view, &views, reader);
        }
        stream.finish(&[("ResourcePolicy", Harmless, "permissions are not checked locally")], reader);
        request
            .insert("StreamSpecification".to_owned(), json!({"StreamEnabled": true, "StreamViewType": view}));
    }
    let ttl_attribute = ttl_attribute(&mut fields, reader);
    check_definitions(&definitions, &keys, &fields, reader);
    fields.finish(IGNORED, reader);
    let create_table = Value::Object(request);
    Some(Table { logical_id: resource.id.to_owned(), name: name?, create_table, ttl_attribute })
}

fn attribute_definitions(fields: &mut Fields, reader: &mut Reader<'_>) -> Vec<Value> {
    let mut definitions = Vec::new();
    for node in fields.list("AttributeDefinitions", reader) {
        let Some(mut entry) = Fields::of(&node, reader) else { continue };
        let name = entry.required_text("AttributeName", "the name of a key attribute", reader);
        let kind = entry.required_text("AttributeType", "S, N or B", reader);
        if let Some(kind) = &kind {
            one_of(&entry, "AttributeType", kind, &["S", "N", "B"], reader);
        }
        entry.finish(&[], reader);
        if let Some((name, kind)) = name.zip(kind) {
            definitions.push(json!({"AttributeName": name, "AttributeType": kind}));
        }
    }
    definitions
}

fn key_schema(fields: &mut Fields, keys: &mut BTreeSet<String>, reader: &mut Reader<'_>) -> Value {
    let before = reader.report.problems.len();
    let place = fields.place("KeySchema");
    let (mut schema, mut kinds) = (Vec::new(), Vec::new());
    for node in fields.list("KeySchema", reader) {
        let Some(mut entry) = Fields::of(&node, reader) else { continue };
        let name = entry.required_text("AttributeName", "the name of a key attribute", reader);
        let kind = entry.required_text("KeyType", "HASH or RANGE", reader);
        entry.finish(&[], reader);
        if let Some((name, kind)) = name.zip(kind) {
            schema.push(json!({"AttributeName": name, "KeyType": kind}));
            keys.insert(name);
            kinds.push(kind);
        }
    }
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    if reader.report.problems.len() == before && !matches!(kinds.as_slice(), ["HASH"] | ["HASH", "RANGE"]) {
        let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        reader
            .report
            .problem(&place, format!("expected one HASH key and at most one RANGE key, found {found}"));
    }
    json!(schema)
}

fn throughput(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<Value> {
    let mut throughput = fields.fields("ProvisionedThroughput", reader)?;
    let range = 1..=i64::from(i32::MAX);
    let read = throughput.number("ReadCapacityUnits", "capacity units", range.clone(), reader);
    let write = throughput.number("WriteCapacityUnits", "capacity units", range, reader);
    throughput.finish(&[], reader);
    Some(json!({"ReadCapacityUnits": read.unwrap_or(1), "WriteCapacityUnits": write.unwrap_or(1)}))
}

fn index(node: &Node, keys: &mut BTreeSet<String>, reader: &mut Reader<'_>) -> Option<Value> {
    let mut fields = Fields::of(node, reader)?;
    let name = fields.required_text("IndexName", "the index's name", reader);
    let schema = key_schema(&mut fields, keys, reader);
    let mut projection = Map::new();
    if let Some(mut given) = fields.fields("Projection", reader) {
        if let Some(kind) = given.required_text("ProjectionType", "ALL, KEYS_ONLY or INCLUDE", reader) {
            one_of(&given, "ProjectionType", &kind, &["ALL", "KEYS_ONLY", "INCLUDE"], reader);
            projection.insert("ProjectionType".to_owned(), json!(kind));
        }
        let nodes = given.list("NonKeyAttributes", reader);
        let attributes: Vec<String> =
            nodes.iter().filter_map(|node| reader.report.keep(reader.scope.text(node))?).collect();
        if !attributes.is_empty() {
            projection.insert("NonKeyAttributes".to_owned(), json!(attributes));
        }
        given.finish(&[], reader);
    } else {
        reader.report.problem(&fields.place("Projection"), "is missing; it must have a ProjectionType");
    }
    let mut index = Map::new();
    index.insert("IndexName".to_owned(), json!(name?));
    index.insert("KeySchema".to_owned(), schema);
    index.insert("Projection".to_owned(), Value::Object(projection));
    if let Some(throughput) = throughput(&mut fields, reader) {
        index.insert("ProvisionedThroughput".to_owned(), throughput);
    }
    fields.finish(INDEX_IGNORED, reader);
    Some(Value::Object(index))
}

fn ttl_attribute(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<String> {
    let mut ttl = fields.fields("TimeToLiveSpecification", reader)?;
    let attribute = ttl.text("AttributeName", reader);
    let enabled = ttl.flag("Enabled", reader).unwrap_or(false);
    if enabled && attribute.is_none() {
        reader
            .report
            .problem(&ttl.place("AttributeName"), "is missing; it must be the attribute to expire by");
    }
    ttl.finish(&[], reader);
    attribute.filter(|_| enabled)
}

/// DynamoDB wants exactly the attributes that are keys somewhere to be defined.
fn check_definitions(
    definitions: &[Value],
    keys: &BTreeSet<String>,
    fields: &Fields,
    reader: &mut Reader<'_>,
) {
    let defined: BTreeSet<&str> =
        definitions.iter().filter_map(|entry| entry["AttributeName"].as_str()).collect();
    let place = fields.place("AttributeDefinitions");
    for key in keys.iter().filter(|key| !defined.contains(key.as_str())) {
        reader.report.problem(&place, format!("{key} is a key but is not defined here"));
    }
    for name in defined.iter().filter(|name| !keys.contains(**name)) {
        reader
            .report
            .problem(&place, format!("{name} is defined here but is no key of the table or an index"));
    }
}

fn one_of(fields: &Fields, name: &str, value: &str, allowed: &[&str], reader: &mut Reader<'_>) {
    if !allowed.contains(&value) {
        let message = format!("expected {}, found {value:?}", allowed.join(", "));
        reader.report.problem(&fields.place(name), message);
    }
}
