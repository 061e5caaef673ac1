//! Ledgers, which record the operation, tables and indexes of each call, and the capacity units that AWS would charge.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A record of all calls to a database since the ledger was opened or last emptied.
///
/// Dropping a ledger closes it. Several ledgers may be open at the same time; each records every call. Ledgers do not
/// record reads by [`Streams`](super::Streams) or deletions by time to live.
///
/// A transaction is charged twice the usual units for its changes to tables, and the usual units for the resulting
/// changes to indexes, as AWS reports. In three cases AWS may charge differently:
///
/// * a cancelled transaction is charged twice the units for the size of the stored items, because AWS publishes no
///   figure;
/// * a transaction repeated with the same client token is charged like the first run; AWS charges it like a read;
/// * a failed PartiQL statement is not charged.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use streamer_fakes::dynamodb::DynamoDb;
///
/// let db = DynamoDb::builder().in_memory()?;
/// let ledger = db.ledger();
/// db.client().list_tables().send().await?;
/// assert_eq!(ledger.take().to_string(), "ListTables");
/// assert_eq!(ledger.take().to_string(), "no calls");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ledger(Arc<Mutex<Vec<Call>>>);

impl Ledger {
    /// Returns the calls recorded since the ledger was opened or last emptied, and empties the ledger.
    #[must_use]
    pub fn take(&self) -> Calls {
        Calls(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Recorded calls, in the order of their answers.
///
/// The text form has one line per call; consecutive equal calls share a line, such as `2 x ListTables`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls(Vec<Call>);

impl Calls {
    /// Returns the total read capacity units of all calls.
    #[must_use]
    pub fn read_units(&self) -> f64 {
        self.charges().map(|charge| charge.read_units).sum()
    }

    /// Returns the total write capacity units of all calls, including writes to indexes.
    #[must_use]
    pub fn write_units(&self) -> f64 {
        self.charges().map(|charge| charge.write_units).sum()
    }

    fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.0.iter().flat_map(|call| &call.charges)
    }
}

impl Deref for Calls {
    type Target = [Call];

    fn deref(&self) -> &[Call] {
        &self.0
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no calls");
        }
        let mut line_end = "";
        for equal_calls in self.0.chunk_by(PartialEq::eq) {
            match equal_calls {
                [call] => write!(f, "{line_end}{call}")?,
                calls => write!(f, "{line_end}{} x {}", calls.len(), calls[0])?,
            }
            line_end = "\n";
        }
        Ok(())
    }
}

/// One recorded call to DynamoDB, with its cost in capacity units.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// Name of the operation in DynamoDB's API, such as `PutItem`.
    pub operation: String,
    /// Capacity charged for the call: for each table its own charge, then the charges of its indexes. If the call
    /// consumed nothing, each table named in the call has a charge of zero units.
    pub charges: Vec<Charge>,
    /// Name of the error with which the call failed, such as `ConditionalCheckFailedException`; `None` after a success.
    pub error: Option<String>,
}

/// Writes a call as one line, such as `PutItem things: 2 WCU (table 1, by-time 1)`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        for (position, charges) in self.charges.chunk_by(|one, next| one.table == next.table).enumerate() {
            f.write_str(if position == 0 { " " } else { "; " })?;
            write_charges(f, charges)?;
        }
        match &self.error {
            Some(error) => write!(f, " -> {error}"),
            None => Ok(()),
        }
    }
}

/// Writes the charges of one table and its indexes.
fn write_charges(f: &mut fmt::Formatter<'_>, charges: &[Charge]) -> fmt::Result {
    let Some(first) = charges.first() else { return Ok(()) };
    f.write_str(&first.table)?;
    if let ([_], Some(index)) = (charges, &first.index) {
        write!(f, "/{index}")?;
    }
    let read: f64 = charges.iter().map(|charge| charge.read_units).sum();
    let written: f64 = charges.iter().map(|charge| charge.write_units).sum();
    for (units, name) in [(read, "RCU"), (written, "WCU")] {
        if units > 0.0 {
            write!(f, ": {units} {name}")?;
        }
    }
    if charges.len() > 1 {
        let one = |charge: &Charge| {
            let name = charge.index.as_deref().unwrap_or("table");
            format!("{name} {}", charge.read_units + charge.write_units)
        };
        write!(f, " ({})", charges.iter().map(one).collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// Capacity units that one call consumed on one table or index.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Charge {
    /// Name of the charged table; for the charge of an index, name of the index's table.
    pub table: String,
    /// Name of the charged index; `None` if the table itself is charged.
    pub index: Option<String>,
    /// Read capacity units consumed by the call on this table or index.
    pub read_units: f64,
    /// Write capacity units consumed by the call on this table or index.
    pub write_units: f64,
}

/// All open ledgers of a database.
#[derive(Debug, Default)]
pub(super) struct Ledgers(Vec<Weak<Mutex<Vec<Call>>>>);

impl Ledgers {
    pub(super) fn is_open(&mut self) -> bool {
        self.0.retain(|ledger| ledger.strong_count() > 0);
        !self.0.is_empty()
    }

    pub(super) fn open(&mut self) -> Ledger {
        let calls = Arc::default();
        self.0.push(Arc::downgrade(&calls));
        Ledger(calls)
    }

    pub(super) fn record(&self, call: &Call) {
        for ledger in self.0.iter().filter_map(Weak::upgrade) {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        }
    }
}
