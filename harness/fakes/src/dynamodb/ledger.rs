//! What calls cost: each with its operation, its tables and indexes, and the capacity units that AWS would charge.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Every call to a database since the ledger was opened or last taken.
///
/// A ledger that is dropped is closed. Several may be open at once, and each has every call. What the reading side
/// of the streams and the time to live do is no call, and in no ledger.
///
/// A transaction is charged twice for what it does to its tables, and once for what that changes in their indexes, as
/// AWS reports it. Where AWS may charge otherwise:
///
/// * a cancelled transaction is charged as its items stand, twice: AWS publishes no figure;
/// * a transaction that is replayed under its token is charged as it was the first time, on AWS as a read;
/// * a PartiQL statement that fails is charged nothing.
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
    /// The calls since the last time, which are then forgotten.
    #[must_use]
    pub fn take(&self) -> Calls {
        Calls(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Calls in the order in which they were answered; as text a line each, those alike in one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls(Vec<Call>);

impl Calls {
    /// The read capacity units of all calls.
    #[must_use]
    pub fn read_units(&self) -> f64 {
        self.charges().map(|charge| charge.read_units).sum()
    }

    /// The write capacity units of all calls, those of the indexes among them.
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
        for alike in self.0.chunk_by(PartialEq::eq) {
            match alike {
                [call] => write!(f, "{line_end}{call}")?,
                alike => write!(f, "{line_end}{} x {}", alike.len(), alike[0])?,
            }
            line_end = "\n";
        }
        Ok(())
    }
}

/// One call, and what it cost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// As DynamoDB names it, such as `PutItem`.
    pub operation: String,
    /// For each table its own charge, then those of its indexes; one of no units where nothing else is charged.
    pub charges: Vec<Charge>,
    /// The name of the error that was answered, such as `ConditionalCheckFailedException`.
    pub error: Option<String>,
}

/// As `PutItem things: 2 WCU (table 1, by-time 1)`.
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

/// The charges of one table.
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

/// What one call is charged on one table or index.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Charge {
    /// The table.
    pub table: String,
    /// The index, unless it is the table itself that is charged.
    pub index: Option<String>,
    /// Read capacity units.
    pub read_units: f64,
    /// Write capacity units.
    pub write_units: f64,
}

/// The ledgers of a database that are open.
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

    pub(super) fn enter(&self, call: &Call) {
        for ledger in self.0.iter().filter_map(Weak::upgrade) {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        }
    }
}
