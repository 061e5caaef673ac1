//! Creates the template's tables in the stage's DynamoDB.

use std::time::Duration;

use super::StageError;
use crate::tables::{Difference, Encryption, Tables};
use crate::template::Table;
use streamer_fakes::dynamodb::DynamoDb;

/// Creates the tables that do not exist, and checks that existing tables have the layout in the template.
///
/// # Errors
/// [`StageError::Table`] if DynamoDB refuses a table, or an existing table has another layout.
pub fn create(dynamodb: &DynamoDb, tables: &[Table]) -> Result<(), StageError> {
    // `block_on` does not block: the in-process client answers immediately, and a new table is active
    // immediately.
    pollster::block_on(create_each(&Tables::new(dynamodb.harness_client(), "the stage's DynamoDB"), tables))
}

async fn create_each(at: &Tables, tables: &[Table]) -> Result<(), StageError> {
    for table in tables {
        let failed = |message: String| StageError::Table { table: table.name.clone(), message };
        let mut layout = table.layout.clone();
        if layout.encryption == Encryption::KmsFromCloudFormation {
            // The local stage encrypts nothing, so the unknown key does not matter.
            layout.encryption = Encryption::Owned;
        }
        let created = at.create(&table.name, &layout).await.map_err(|error| failed(error.to_string()))?;
        let concerns_functions = |difference: &&Difference| difference.aspect.concerns_functions();
        let differences: Vec<String> = created
            .comparison
            .differences
            .iter()
            .filter(concerns_functions)
            .map(Difference::to_string)
            .collect();
        if !differences.is_empty() {
            return Err(failed(format!(
                "the data folder has a table of this name with another layout ({}); name another folder with \
                 --data, or delete this folder",
                differences.join(", and ")
            )));
        }
    }
    Ok(())
}

/// Deletes expired items at intervals of `every`, until `stopped` completes.
pub(super) async fn sweep(dynamodb: DynamoDb, every: Duration, stopped: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stopped => {}
        () = dynamodb.sweep_every(every) => {}
    }
}
