//! The template's tables in the stage's database.

use std::time::Duration;

use serde_json::{Value, json};

use super::StageError;
use crate::dynamodb::DynamoDb;
use crate::template::Table;

/// Makes the tables that are not there, and checks that those that are there are what the template says.
///
/// # Errors
/// When DynamoDB refuses one of them, or one that is there was made from another template.
pub fn create(dynamodb: &DynamoDb, tables: &[Table]) -> Result<(), StageError> {
    tables.iter().try_for_each(|table| create_table(dynamodb, table))
}

fn create_table(dynamodb: &DynamoDb, table: &Table) -> Result<(), StageError> {
    let call = |operation: &str, request: &Value| {
        let target = format!("DynamoDB_20120810.{operation}");
        let answer = dynamodb.handle(&target, request.to_string().as_bytes());
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 200 { Ok(body) } else { Err(body) }
    };
    let failed = |message: &str| StageError::Table { table: table.name.clone(), message: message.to_owned() };
    let refused = |body: Value| {
        failed(body["message"].as_str().or(body["Message"].as_str()).unwrap_or("no reason was given"))
    };
    let this = json!({"TableName": table.name});
    match call("CreateTable", &table.create_table) {
        Ok(_) => {}
        Err(body) if is_in_use(&body) => {
            let stands = call("DescribeTable", &this).map_err(refused)?;
            if layout(&stands["Table"]) != layout(&table.create_table) {
                return Err(failed(
                    "the data folder has it with other keys, indexes or stream: \
                     name another folder with --data, or delete this one",
                ));
            }
        }
        Err(body) => return Err(refused(body)),
    }
    let Some(attribute) = &table.ttl_attribute else { return Ok(()) };
    let stands = call("DescribeTimeToLive", &this).map_err(refused)?;
    if stands["TimeToLiveDescription"]["AttributeName"].as_str() == Some(attribute) {
        return Ok(());
    }
    let specification = json!({"AttributeName": attribute, "Enabled": true});
    let request = json!({"TableName": table.name, "TimeToLiveSpecification": specification});
    call("UpdateTimeToLive", &request).map_err(refused)?;
    Ok(())
}

/// What a function relies on of a table, from its description or from the request that makes it, in one order.
fn layout(table: &Value) -> Value {
    let sorted = |list: &Value, by: &str, pick: &dyn Fn(&Value) -> Value| {
        let mut list: Vec<Value> = list.as_array().into_iter().flatten().map(pick).collect();
        list.sort_by_key(|entry| entry[by].to_string());
        Value::from(list)
    };
    let whole =
        |entry: &Value| json!({"AttributeName": entry["AttributeName"], "Type": entry["AttributeType"]});
    let index = |index: &Value| {
        json!({
            "IndexName": index["IndexName"],
            "KeySchema": index["KeySchema"],
            "ProjectionType": index["Projection"]["ProjectionType"],
        })
    };
    json!({
        "KeySchema": table["KeySchema"],
        "AttributeDefinitions": sorted(&table["AttributeDefinitions"], "AttributeName", &whole),
        "GlobalSecondaryIndexes": sorted(&table["GlobalSecondaryIndexes"], "IndexName", &index),
        "StreamViewType": table["StreamSpecification"]["StreamViewType"],
    })
}

fn is_in_use(error: &Value) -> bool {
    error["__type"].as_str().is_some_and(|name| name.ends_with("#ResourceInUseException"))
}

/// Deletes, again and again, what the tables' time to live has ended.
pub(super) async fn sweep(dynamodb: DynamoDb, every: Duration, stopped: impl Future<Output = ()>) {
    let mut ticks = tokio::time::interval(every);
    let sweeping = async {
        loop {
            ticks.tick().await;
            if let Err(error) = dynamodb.sweep_expired() {
                tracing::warn!(%error, "items whose time to live is over were not deleted");
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        () = sweeping => {}
    }
}
