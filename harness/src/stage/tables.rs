//! The template's tables in the stage's database.

use std::time::Duration;

use super::StageError;
use crate::tables::{Difference, Encryption, Tables};
use crate::template::Table;
use streamer_fakes::dynamodb::DynamoDb;

/// Makes the tables that are not there, and checks that those that are there are what the template says.
///
/// # Errors
/// When DynamoDB refuses one of them, or one that is there was made from another template.
pub fn create(dynamodb: &DynamoDb, tables: &[Table]) -> Result<(), StageError> {
    // This client's answers are there at once, and tables are active when they are made: nothing waits.
    pollster::block_on(create_each(&Tables::new(dynamodb.quiet_client(), "the stage's DynamoDB"), tables))
}

async fn create_each(at: &Tables, tables: &[Table]) -> Result<(), StageError> {
    for table in tables {
        let failed = |message: String| StageError::Table { table: table.name.clone(), message };
        let mut layout = table.layout.clone();
        if layout.encryption == Encryption::KmsUnknown {
            // Nothing is encrypted here.
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
                "the data folder has it otherwise: {}. Name another folder with --data, or delete this one",
                differences.join(", and ")
            )));
        }
    }
    Ok(())
}

/// Deletes, again and again, what the tables' time to live has ended.
pub(super) async fn sweep(dynamodb: DynamoDb, every: Duration, stopped: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stopped => {}
        () = dynamodb.sweep_every(every) => {}
    }
}
