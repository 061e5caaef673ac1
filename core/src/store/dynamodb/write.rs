//! Writes of single items, sent alone or in a transaction.
//!
//! If the condition of a write fails, the error contains the existing item.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    self, AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use super::codec::Item;
use super::error::{Failure, Refusal};
use crate::store::StoreErrorKind;

/// Substitutions for the `#names` and `:values` of an expression.
#[derive(Debug, Default)]
struct Placeholders {
    names: HashMap<String, String>,
    values: Item,
}

impl Placeholders {
    /// Returns the names and the values, each `None` if empty, because DynamoDB refuses empty maps.
    fn into_options(self) -> (Option<HashMap<String, String>>, Option<Item>) {
        let Self { names, values } = self;
        (Some(names).filter(|names| !names.is_empty()), Some(values).filter(|values| !values.is_empty()))
    }
}

/// A conditional update of an item.
#[derive(Debug)]
#[must_use]
pub(super) struct Update {
    table: String,
    key: Item,
    expression: String,
    condition: String,
    placeholders: Placeholders,
    returns: Option<ReturnValue>,
}

impl Update {
    pub(super) fn new(table: &str, key: Item) -> Self {
        Self {
            table: table.to_owned(),
            key,
            expression: String::new(),
            condition: String::new(),
            placeholders: Placeholders::default(),
            returns: None,
        }
    }

    /// Sets the update expression.
    pub(super) fn expression(mut self, expression: impl Into<String>) -> Self {
        self.expression = expression.into();
        self
    }

    /// Sets the condition expression, which the existing item must satisfy.
    pub(super) fn condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = condition.into();
        self
    }

    /// Sets the attribute name, or the key of a map entry, that replaces the placeholder `#name` in the expressions.
    pub(super) fn name(mut self, name: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.placeholders.names.insert(name.into(), attribute.into());
        self
    }

    /// Sets the value that replaces the placeholder `:name` in the expressions.
    pub(super) fn value(mut self, name: impl Into<String>, value: AttributeValue) -> Self {
        self.placeholders.values.insert(name.into(), value);
        self
    }

    /// Makes [`send`](Self::send) return the whole updated item, which consumes no extra capacity.
    pub(super) fn returning_item(mut self) -> Self {
        self.returns = Some(ReturnValue::AllNew);
        self
    }

    /// Sends the update as an UpdateItem call. Returns the updated item if [requested](Self::returning_item),
    /// otherwise an empty item.
    pub(super) async fn send(self, client: &Client) -> Result<Item, Refusal> {
        let (names, values) = self.placeholders.into_options();
        let updated = client
            .update_item()
            .table_name(self.table)
            .set_key(Some(self.key))
            .update_expression(self.expression)
            .condition_expression(self.condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .set_return_values(self.returns)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await?;
        Ok(updated.attributes.unwrap_or_default())
    }

    /// Converts the update to a write of a transaction. A transaction returns no items.
    pub(super) fn into_transact_item(self) -> Result<TransactWriteItem, BuildError> {
        let (names, values) = self.placeholders.into_options();
        let update = types::Update::builder()
            .table_name(self.table)
            .set_key(Some(self.key))
            .update_expression(self.expression)
            .condition_expression(self.condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// A put of an item, with or without a condition.
#[derive(Debug)]
#[must_use]
pub(super) struct Put {
    table: String,
    item: Item,
    condition: Option<String>,
    placeholders: Placeholders,
}

impl Put {
    pub(super) fn new(table: &str, item: Item) -> Self {
        Self { table: table.to_owned(), item, condition: None, placeholders: Placeholders::default() }
    }

    /// Sets the condition expression, which the existing item must satisfy.
    pub(super) fn condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Sets the attribute name that replaces the placeholder `#name` in the condition.
    pub(super) fn name(mut self, name: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.placeholders.names.insert(name.into(), attribute.into());
        self
    }

    /// Sets the value that replaces the placeholder `:name` in the condition.
    pub(super) fn value(mut self, name: impl Into<String>, value: AttributeValue) -> Self {
        self.placeholders.values.insert(name.into(), value);
        self
    }

    /// Sends the put as a PutItem call.
    pub(super) async fn send(self, client: &Client) -> Result<(), Refusal> {
        let returns = self.returns_on_failure();
        let (names, values) = self.placeholders.into_options();
        client
            .put_item()
            .table_name(self.table)
            .set_item(Some(self.item))
            .set_condition_expression(self.condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .set_return_values_on_condition_check_failure(returns)
            .send()
            .await?;
        Ok(())
    }

    /// Converts the put to a write of a transaction.
    pub(super) fn into_transact_item(self) -> Result<TransactWriteItem, BuildError> {
        let returns = self.returns_on_failure();
        let (names, values) = self.placeholders.into_options();
        let put = types::Put::builder()
            .table_name(self.table)
            .set_item(Some(self.item))
            .set_condition_expression(self.condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .set_return_values_on_condition_check_failure(returns)
            .build()?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn returns_on_failure(&self) -> Option<ReturnValuesOnConditionCheckFailure> {
        self.condition.is_some().then_some(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}

/// Sends the writes as one transaction: either all take effect or none. Only the first write may have a condition,
/// because [`Refusal`] reports only the first write's condition.
pub(super) async fn transact(
    client: &Client,
    writes: impl IntoIterator<Item = Result<TransactWriteItem, BuildError>>,
) -> Result<(), Refusal> {
    let writes: Result<Vec<_>, _> = writes.into_iter().collect();
    let writes = writes.map_err(|error| Refusal::Other(Failure::new(StoreErrorKind::Misuse, error)))?;
    client.transact_write_items().set_transact_items(Some(writes)).send().await?;
    Ok(())
}
