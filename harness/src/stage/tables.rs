//! The template's tables in the stage's database.

use std::time::Duration;

use serde_json::{Value, json};

use super::StageError;
use crate::dynamodb::DynamoDb;
use crate::template::Table;

/// Makes the tables that are not there; those that a data folder brought stay as they are.
///
/// # Errors
/// When DynamoDB refuses one of them.
pub fn create(dynamodb: &DynamoDb, tables: &[Table]) -> Result<(), StageError> {
    for table in tables {
        let call = |operation: &str, request: &Value| {
            let answer =
                dynamodb.handle(&format!("DynamoDB_20120810.{operation}"), request.to_string().as_bytes());
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if answer.status == 200 { Ok(()) } else { Err(body) }
        };
        let failed = |body: Value| StageError::Table {
            table: table.name.clone(),
            message: body["message"]
                .as_str()
                .or(body["Message"].as_str())
                .unwrap_or("no reason given")
                .to_owned(),
        };
        match call("CreateTable", &table.create_table) {
            Ok(()) => {}
            Err(body) if is_in_use(&body) => continue,
            Err(body) => return Err(failed(body)),
        }
        if let Some(attribute) = &table.ttl_attribute {
            let specification = json!({"AttributeName": attribute, "Enabled": true});
            let request = json!({"TableName": table.name, "TimeToLiveSpecification": specification});
            call("UpdateTimeToLive", &request).map_err(failed)?;
        }
    }
    Ok(())
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
