//! Converts a layout to a `CreateTable` request, and the description of a table to a layout.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement,
    LocalSecondaryIndex, Projection, ProjectionType, ProvisionedThroughput, ScalarAttributeType,
    SseSpecification, SseStatus, SseType, StreamSpecification, TableClass, TableDescription, TableStatus,
};

use super::layout::{Aspect, Billing, Difference, Encryption, Index, IndexScope, Key, Layout, Throughput};

/// Fills in the request that creates a table with this layout. Time to live and backups need separate calls.
pub(super) fn create(
    mut request: CreateTableFluentBuilder,
    layout: &Layout,
) -> Result<CreateTableFluentBuilder, BuildError> {
    let (billing, throughput) = match layout.billing {
        Billing::OnDemand => (BillingMode::PayPerRequest, None),
        Billing::Provisioned(throughput) => (BillingMode::Provisioned, Some(throughput)),
    };
    request = request
        .set_key_schema(Some(key_schema(&layout.keys)?))
        .set_attribute_definitions(Some(definitions(layout)?))
        .billing_mode(billing)
        .set_provisioned_throughput(throughput.map(provisioned).transpose()?);
    for (name, index) in &layout.indexes {
        request = match index.scope {
            IndexScope::Global => request.global_secondary_indexes(
                GlobalSecondaryIndex::builder()
                    .index_name(name)
                    .set_key_schema(Some(key_schema(&index.keys)?))
                    .projection(projection(index))
                    .set_provisioned_throughput(index.throughput.map(provisioned).transpose()?)
                    .build()?,
            ),
            IndexScope::Local => request.local_secondary_indexes(
                LocalSecondaryIndex::builder()
                    .index_name(name)
                    .set_key_schema(Some(key_schema(&index.keys)?))
                    .projection(projection(index))
                    .build()?,
            ),
        };
    }
    if let Some(view) = &layout.stream {
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(view.clone());
        request = request.stream_specification(stream.build()?);
    }
    // The caller has already refused `KmsFromCloudFormation`.
    if let Encryption::Kms { key } = &layout.encryption {
        let encryption = SseSpecification::builder().enabled(true).sse_type(SseType::Kms);
        request = request.sse_specification(encryption.set_kms_master_key_id(key.clone()).build());
    }
    // Settings with their default values are omitted, because some endpoints do not support these settings.
    if layout.deletion_protection {
        request = request.deletion_protection_enabled(true);
    }
    if layout.class != TableClass::Standard {
        request = request.table_class(layout.class.clone());
    }
    Ok(request)
}

fn key_schema(keys: &[Key]) -> Result<Vec<KeySchemaElement>, BuildError> {
    let element = |key: &Key| {
        KeySchemaElement::builder().attribute_name(&key.name).key_type(key.key_type.clone()).build()
    };
    keys.iter().map(element).collect()
}

/// Returns one definition for each attribute that is part of a table key or an index key.
fn definitions(layout: &Layout) -> Result<Vec<AttributeDefinition>, BuildError> {
    let of_indexes = layout.indexes.values().flat_map(|index| &index.keys);
    let types: BTreeMap<&str, &ScalarAttributeType> =
        layout.keys.iter().chain(of_indexes).map(|key| (key.name.as_str(), &key.attribute_type)).collect();
    let definition = |(name, kind): (&str, &ScalarAttributeType)| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind.clone()).build()
    };
    types.into_iter().map(definition).collect()
}

fn projection(index: &Index) -> Projection {
    let attributes = index.attributes.iter().cloned().collect::<Vec<_>>();
    Projection::builder()
        .projection_type(index.projection.clone())
        .set_non_key_attributes((!attributes.is_empty()).then_some(attributes))
        .build()
}

fn provisioned(throughput: Throughput) -> Result<ProvisionedThroughput, BuildError> {
    ProvisionedThroughput::builder()
        .read_capacity_units(throughput.read_units)
        .write_capacity_units(throughput.write_units)
        .build()
}

/// Converts the description of a table to its layout, without time to live and backups, which the description
/// does not contain.
pub(super) fn layout(table: &TableDescription) -> Layout {
    let types: BTreeMap<&str, &ScalarAttributeType> = table
        .attribute_definitions()
        .iter()
        .map(|definition| (definition.attribute_name(), definition.attribute_type()))
        .collect();
    let keys = |schema: &[KeySchemaElement]| -> Vec<Key> {
        let key = |element: &KeySchemaElement| Key {
            name: element.attribute_name().to_owned(),
            attribute_type: types
                .get(element.attribute_name())
                .map_or(ScalarAttributeType::from("unknown"), |kind| (*kind).clone()),
            key_type: element.key_type().clone(),
        };
        schema.iter().map(key).collect()
    };
    let throughput = |read: Option<i64>, write: Option<i64>| Throughput {
        read_units: read.unwrap_or_default(),
        write_units: write.unwrap_or_default(),
    };
    let on_demand = table.billing_mode_summary().and_then(|summary| summary.billing_mode())
        == Some(&BillingMode::PayPerRequest);
    let index = |scope, schema, projection: Option<&Projection>, throughput| Index {
        scope,
        keys: keys(schema),
        projection: projection
            .and_then(Projection::projection_type)
            .cloned()
            .unwrap_or(ProjectionType::from("unknown")),
        attributes: projection
            .map(Projection::non_key_attributes)
            .unwrap_or_default()
            .iter()
            .cloned()
            .collect(),
        throughput,
    };
    let mut layout = Layout::new(keys(table.key_schema()));
    for global in table.global_secondary_indexes() {
        let own = global
            .provisioned_throughput()
            .filter(|_| !on_demand)
            .map(|own| throughput(own.read_capacity_units(), own.write_capacity_units()));
        let index = index(IndexScope::Global, global.key_schema(), global.projection(), own);
        layout.indexes.insert(global.index_name().unwrap_or_default().to_owned(), index);
    }
    for local in table.local_secondary_indexes() {
        let index = index(IndexScope::Local, local.key_schema(), local.projection(), None);
        layout.indexes.insert(local.index_name().unwrap_or_default().to_owned(), index);
    }
    if !on_demand {
        let own = table.provisioned_throughput();
        layout.billing = Billing::Provisioned(throughput(
            own.and_then(|own| own.read_capacity_units()),
            own.and_then(|own| own.write_capacity_units()),
        ));
    }
    layout.stream = table
        .stream_specification()
        .filter(|stream| stream.stream_enabled())
        .and_then(|stream| stream.stream_view_type().cloned());
    layout.encryption = encryption(table);
    layout.deletion_protection = table.deletion_protection_enabled().unwrap_or(false);
    if let Some(class) = table.table_class_summary().and_then(|summary| summary.table_class()) {
        layout.class = class.clone();
    }
    layout
}

/// Returns one difference for the table if the table is unusable, and one for each unusable index. A table or
/// index with the status `UPDATING` is usable.
pub(super) fn unusable(table: &TableDescription) -> Vec<Difference> {
    let active = |aspect, found: String| Difference {
        aspect,
        wanted: Some(TableStatus::Active.as_str().to_owned()),
        found: Some(found),
    };
    let own =
        table.table_status().filter(|status| !matches!(status, TableStatus::Active | TableStatus::Updating));
    let own = own.map(|status| active(Aspect::Status, status.as_str().to_owned()));
    let of_indexes = table.global_secondary_indexes().iter().filter_map(|index| {
        let status = index.index_status()?;
        let aspect = Aspect::IndexStatus(index.index_name().unwrap_or_default().to_owned());
        let backfilling = if index.backfilling() == Some(true) { ", backfilling" } else { "" };
        let is_usable = matches!(status, IndexStatus::Active | IndexStatus::Updating);
        (!is_usable).then(|| active(aspect, format!("{status}{backfilling}")))
    });
    own.into_iter().chain(of_indexes).collect()
}

/// Returns the encryption of a table. A table description without `SSEDescription` means that DynamoDB owns
/// the key.
fn encryption(table: &TableDescription) -> Encryption {
    match table.sse_description() {
        Some(sse)
            if matches!(
                sse.status(),
                Some(SseStatus::Enabled | SseStatus::Enabling | SseStatus::Updating)
            ) =>
        {
            Encryption::Kms { key: sse.kms_master_key_arn().map(str::to_owned) }
        }
        Some(_) | None => Encryption::Owned,
    }
}
