//! Reads `AWS::DynamoDB::Table`.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::{KeyType, ProjectionType, ScalarAttributeType, StreamViewType, TableClass};

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::fields::{Fields, Ignored, Reader};
use super::node::Node;
use super::resource::{Resource, TABLE, of_type};
use crate::tables::{Billing, Encryption, Index, IndexScope, Key, Layout, Throughput};

/// A DynamoDB table of the template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Logical id of the table in the template.
    pub logical_id: String,
    /// Name of the table: `TableName`, otherwise `<stack>-<logical id>`. (CloudFormation appends `-` and
    /// random letters to a generated name.)
    pub name: String,
    /// Layout of the table: its keys, indexes and settings.
    pub layout: Layout,
    /// Properties of the table in the template that have no field in [`Layout`], such as
    /// `StreamSpecification.ResourcePolicy`.
    pub properties_not_in_layout: Vec<String>,
}

const IGNORED: &[Ignored] = &[
    ("ContributorInsightsSpecification", Harmless, "there are no metrics locally"),
    ("ImportSourceSpecification", NotEmulated, "the table starts empty locally"),
    ("KinesisStreamSpecification", NotEmulated, "changes are not sent to Kinesis locally"),
    ("OnDemandThroughput", Harmless, "throughput is not limited locally"),
    ("ResourcePolicy", Harmless, "permissions are not checked locally"),
    ("Tags", Harmless, "tags have no effect locally"),
    ("WarmThroughput", Harmless, "throughput is not limited locally"),
];

/// Properties that are part of a layout but do not affect requests on the local stage, each with the reason.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("DeletionProtectionEnabled", "the local stage never deletes a table"),
    ("PointInTimeRecoverySpecification", "there are no backups locally"),
    ("SSESpecification", "nothing is encrypted locally"),
    ("TableClass", "the table class affects only the bill"),
];

const INDEX_IGNORED: &[Ignored] = &[
    ("ContributorInsightsSpecification", Harmless, "there are no metrics locally"),
    ("OnDemandThroughput", Harmless, "throughput is not limited locally"),
    ("WarmThroughput", Harmless, "throughput is not limited locally"),
];

const STREAM_IGNORED: &[Ignored] = &[("ResourcePolicy", Harmless, "permissions are not checked locally")];

pub(super) fn read(resources: &[Resource<'_>], reader: &mut Reader<'_>) -> Vec<Table> {
    let mut tables = Vec::<Table>::new();
    for resource in of_type(resources, TABLE) {
        let Some(table) = table(resource, reader) else { continue };
        if let Some(other) = tables.iter().find(|other| other.name == table.name) {
            let message = format!(
                "the table's name {} is already the name of {}; choose another name",
                table.name, other.logical_id
            );
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

    let definitions = attribute_definitions(&mut fields, reader);
    let mut not_in_layout = properties_not_in_layout("", IGNORED, &fields);
    let mut layout = Layout::new(key_schema(&mut fields, &definitions, reader));
    layout.billing = billing(&mut fields, reader);
    for (list, scope) in
        [("GlobalSecondaryIndexes", IndexScope::Global), ("LocalSecondaryIndexes", IndexScope::Local)]
    {
        let nodes = fields.list(list, reader);
        let indexes =
            nodes.iter().filter_map(|node| index(node, scope, &definitions, &mut not_in_layout, reader));
        layout.indexes.extend(indexes);
    }
    layout.stream = stream(&mut fields, &mut not_in_layout, reader);
    layout.ttl_attribute = ttl_attribute(&mut fields, reader);
    check_definitions(&definitions, &layout, &fields, reader);
    layout.point_in_time_recovery = point_in_time_recovery(&mut fields, &mut not_in_layout, reader);
    layout.encryption = encryption(&mut fields, reader);
    layout.deletion_protection = fields.flag("DeletionProtectionEnabled", reader).unwrap_or(false);
    if let Some(class) = fields.text("TableClass", reader) {
        check_one_of(&fields, "TableClass", &class, TableClass::values(), reader);
        layout.class = TableClass::from(class.as_str());
    }
    for (name, meaning) in WITHOUT_EFFECT {
        if fields.node(name, reader).is_some() {
            reader.report.finding(&fields.place(name), Harmless, *meaning);
        }
    }
    fields.finish(IGNORED, reader);
    Some(Table {
        logical_id: resource.id.to_owned(),
        name: name?,
        layout,
        properties_not_in_layout: not_in_layout,
    })
}

/// Returns the properties in `names` that the template sets, each with `prefix` before its name.
fn properties_not_in_layout(prefix: &str, names: &[Ignored], fields: &Fields) -> Vec<String> {
    let set = names.iter().filter(|(name, ..)| fields.has(name));
    set.map(|(name, ..)| format!("{prefix}{name}")).collect()
}

/// Types of the attributes that may be part of keys, by name.
type Definitions = BTreeMap<String, ScalarAttributeType>;

fn attribute_definitions(fields: &mut Fields, reader: &mut Reader<'_>) -> Definitions {
    let mut definitions = BTreeMap::new();
    for node in fields.list("AttributeDefinitions", reader) {
        let Some(mut entry) = Fields::of(&node, reader) else { continue };
        let name = entry.required_text("AttributeName", "the name of a key attribute", reader);
        let kind = entry.required_text("AttributeType", "S, N or B", reader);
        if let Some(kind) = &kind {
            check_one_of(&entry, "AttributeType", kind, &["S", "N", "B"], reader);
        }
        entry.finish(&[], reader);
        if let Some((name, kind)) = name.zip(kind) {
            definitions.insert(name, ScalarAttributeType::from(kind.as_str()));
        }
    }
    definitions
}

fn key_schema(fields: &mut Fields, definitions: &Definitions, reader: &mut Reader<'_>) -> Vec<Key> {
    let before = reader.report.problems.len();
    let place = fields.place("KeySchema");
    let mut keys = Vec::new();
    for node in fields.list("KeySchema", reader) {
        let Some(mut entry) = Fields::of(&node, reader) else { continue };
        let name = entry.required_text("AttributeName", "the name of a key attribute", reader);
        let kind = entry.required_text("KeyType", "HASH or RANGE", reader);
        entry.finish(&[], reader);
        if let Some((name, kind)) = name.zip(kind) {
            // An undefined attribute gets a placeholder type. `check_definitions` reports the attribute, so
            // that the table is never created.
            let attribute_type = definitions.get(&name).cloned().unwrap_or(ScalarAttributeType::S);
            keys.push(Key { name, attribute_type, key_type: KeyType::from(kind.as_str()) });
        }
    }
    let kinds: Vec<&str> = keys.iter().map(|key| key.key_type.as_str()).collect();
    if reader.report.problems.len() == before && !matches!(kinds.as_slice(), ["HASH"] | ["HASH", "RANGE"]) {
        let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        reader
            .report
            .problem(&place, format!("expected one HASH key and at most one RANGE key, found {found}"));
    }
    keys
}

fn billing(fields: &mut Fields, reader: &mut Reader<'_>) -> Billing {
    let mode = fields.text("BillingMode", reader).unwrap_or_else(|| "PROVISIONED".to_owned());
    check_one_of(fields, "BillingMode", &mode, &["PROVISIONED", "PAY_PER_REQUEST"], reader);
    match throughput(fields, reader) {
        Some(throughput) if mode == "PROVISIONED" => Billing::Provisioned(throughput),
        None if mode == "PROVISIONED" => {
            let place = fields.place("ProvisionedThroughput");
            reader
                .report
                .problem(&place, "required, but missing; add it, or set BillingMode to PAY_PER_REQUEST");
            Billing::OnDemand
        }
        Some(_) | None => Billing::OnDemand,
    }
}

fn throughput(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<Throughput> {
    let mut throughput = fields.fields("ProvisionedThroughput", reader)?;
    let range = 1..=i64::from(i32::MAX);
    let read = throughput.number("ReadCapacityUnits", "capacity units", range.clone(), reader);
    let write = throughput.number("WriteCapacityUnits", "capacity units", range, reader);
    throughput.finish(&[], reader);
    Some(Throughput { read_units: read.unwrap_or(1), write_units: write.unwrap_or(1) })
}

fn index(
    node: &Node,
    scope: IndexScope,
    definitions: &Definitions,
    not_in_layout: &mut Vec<String>,
    reader: &mut Reader<'_>,
) -> Option<(String, Index)> {
    let mut fields = Fields::of(node, reader)?;
    let name = fields.required_text("IndexName", "the name of the index", reader);
    let keys = key_schema(&mut fields, definitions, reader);
    let mut index =
        Index { scope, keys, projection: ProjectionType::All, attributes: BTreeSet::new(), throughput: None };
    if let Some(mut given) = fields.fields("Projection", reader) {
        if let Some(kind) = given.required_text("ProjectionType", "ALL, KEYS_ONLY or INCLUDE", reader) {
            check_one_of(&given, "ProjectionType", &kind, &["ALL", "KEYS_ONLY", "INCLUDE"], reader);
            index.projection = ProjectionType::from(kind.as_str());
        }
        let nodes = given.list("NonKeyAttributes", reader);
        index.attributes =
            nodes.iter().filter_map(|node| reader.report.keep(reader.scope.text(node))?).collect();
        given.finish(&[], reader);
    } else {
        reader.report.problem(
            &fields.place("Projection"),
            "required, but missing; expected a mapping with the property ProjectionType",
        );
    }
    index.throughput = throughput(&mut fields, reader);
    let prefix = format!("index {}: ", name.as_deref().unwrap_or_default());
    not_in_layout.extend(properties_not_in_layout(&prefix, INDEX_IGNORED, &fields));
    fields.finish(INDEX_IGNORED, reader);
    Some((name?, index))
}

fn stream(
    fields: &mut Fields,
    not_in_layout: &mut Vec<String>,
    reader: &mut Reader<'_>,
) -> Option<StreamViewType> {
    let mut stream = fields.fields("StreamSpecification", reader)?;
    let view = stream.required_text("StreamViewType", "a view type such as NEW_IMAGE", reader);
    if let Some(view) = &view {
        check_one_of(&stream, "StreamViewType", view, StreamViewType::values(), reader);
    }
    not_in_layout.extend(properties_not_in_layout("StreamSpecification.", STREAM_IGNORED, &stream));
    stream.finish(STREAM_IGNORED, reader);
    Some(view.map_or(StreamViewType::NewImage, |view| StreamViewType::from(view.as_str())))
}

fn point_in_time_recovery(
    fields: &mut Fields,
    not_in_layout: &mut Vec<String>,
    reader: &mut Reader<'_>,
) -> bool {
    let Some(mut recovery) = fields.fields("PointInTimeRecoverySpecification", reader) else { return false };
    let on = recovery.flag("PointInTimeRecoveryEnabled", reader).unwrap_or(false);
    if recovery.number("RecoveryPeriodInDays", "days", 1..=35, reader).is_some() {
        not_in_layout.push("PointInTimeRecoverySpecification.RecoveryPeriodInDays".to_owned());
    }
    recovery.finish(&[], reader);
    on
}

fn encryption(fields: &mut Fields, reader: &mut Reader<'_>) -> Encryption {
    let Some(mut encryption) = fields.fields("SSESpecification", reader) else { return Encryption::Owned };
    let on = encryption.flag("SSEEnabled", reader).unwrap_or(false);
    if let Some(kind) = encryption.text("SSEType", reader) {
        check_one_of(&encryption, "SSEType", &kind, &["KMS"], reader);
    }
    let key = encryption.text_if_known("KMSMasterKeyId", reader);
    encryption.finish(&[], reader);
    match key {
        _ if !on => Encryption::Owned,
        Ok(key) => Encryption::Kms { key },
        Err(_) => Encryption::KmsFromCloudFormation,
    }
}

fn ttl_attribute(fields: &mut Fields, reader: &mut Reader<'_>) -> Option<String> {
    let mut ttl = fields.fields("TimeToLiveSpecification", reader)?;
    let attribute = ttl.text("AttributeName", reader);
    let enabled = ttl.flag("Enabled", reader).unwrap_or(false);
    if enabled && attribute.is_none() {
        reader.report.problem(
            &ttl.place("AttributeName"),
            "required, but missing; expected the attribute that holds the expiry time",
        );
    }
    ttl.finish(&[], reader);
    attribute.filter(|_| enabled)
}

/// Reports defined attributes that are not part of a key, and key attributes that are not defined. DynamoDB
/// refuses a table with either of these mistakes.
fn check_definitions(definitions: &Definitions, layout: &Layout, fields: &Fields, reader: &mut Reader<'_>) {
    let of_indexes = layout.indexes.values().flat_map(|index| &index.keys);
    let keys: BTreeSet<&str> = layout.keys.iter().chain(of_indexes).map(|key| key.name.as_str()).collect();
    let place = fields.place("AttributeDefinitions");
    for key in keys.iter().filter(|key| !definitions.contains_key(**key)) {
        reader.report.problem(&place, format!("the key attribute {key} has no definition; add a definition"));
    }
    for name in definitions.keys().filter(|name| !keys.contains(name.as_str())) {
        reader.report.problem(
            &place,
            format!("the attribute {name} is not a key of the table or an index; remove its definition"),
        );
    }
}

fn check_one_of(fields: &Fields, name: &str, value: &str, allowed: &[&str], reader: &mut Reader<'_>) {
    if !allowed.contains(&value) {
        let message = format!("expected {}, found {value:?}", allowed.join(", "));
        reader.report.problem(&fields.place(name), message);
    }
}
