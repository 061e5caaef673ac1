//! Lists of items, read through a write-sharded index.
//!
//! Every index projects keys only, so a list is read in two steps: concurrent queries, one for each shard, and then one
//! batch of consistent reads. Each query returns sorted entries. The entries of all shards are merged by time, then by
//! shard number, then in DynamoDB's own order.
//!
//! A [`Cursor`] is the position of the last returned entry in that order, and determines where the query of each
//! shard starts. Shards with a lower number than the cursor's shard have returned all entries of the cursor's time.
//! Shards with a higher number have returned none of these entries. The cursor also identifies its list, by the index
//! name and a hash of the first shard's name. Otherwise, the cursor could be used in a different list of the same
//! index, and would skip entries.

use std::collections::VecDeque;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::codec::{Corrupt, Item, Reader, n, s};
use super::error::store_error;
use crate::ids::fnv1a;
use crate::ports::Timestamp;
use crate::store::{Cursor, Page, PageRequest, StoreError, StoreErrorKind};

/// A secondary index of a table.
pub(super) struct Index {
    pub(super) name: &'static str,
    /// Name of the index's partition key attribute. Each value of the attribute is one shard.
    pub(super) partition: &'static str,
    /// Name of the index's sort key attribute, by which the entries of a shard are sorted.
    pub(super) sort: &'static str,
    /// Name of the table's partition key attribute, whose value identifies an entry.
    pub(super) key: &'static str,
    /// Builds the full table key of an entry from the value of [`key`](Self::key).
    pub(super) table_key: fn(&str) -> Item,
}

/// A list to read: a table, its index, and the shards and order of the entries.
pub(super) struct List<'a> {
    pub(super) client: &'a Client,
    pub(super) table: &'a str,
    pub(super) index: &'static Index,
    /// Names of the list's shards. Entries of the same time are ordered by their shard's position in this vector.
    pub(super) shards: Vec<String>,
    pub(super) order: Order,
}

/// Order of a list by time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// The oldest entries come first.
    OldestFirst,
    /// The oldest entries come first. The list ends with the entries of this time.
    OldestFirstUntil(Timestamp),
    /// The newest entries come first.
    NewestFirst,
}

/// An index entry: the value of the index's sort key, and the value of the table's partition key.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Entry {
    at: u64,
    pub(super) key: String,
}

/// Entries of a shard that are not merged yet, and whether the index has more entries of the shard.
#[derive(Debug, Default)]
struct Shard {
    entries: VecDeque<Entry>,
    more: bool,
}

/// The index entries of one page, and the cursor of the next page, if there is one.
pub(super) type Keys = (Vec<Entry>, Option<Cursor>);

/// Maximum number of BatchGetItem calls for one page, because DynamoDB may leave some keys unprocessed.
const BATCH_TRIES: u32 = 5;
/// Wait before the second BatchGetItem call for a page. The wait doubles before each further call.
const BATCH_BACKOFF: Duration = Duration::from_millis(50);

impl List<'_> {
    /// Reads one page of items. Items for which `decode` returns `None` no longer belong to the list and are left out.
    pub(super) async fn page<T>(
        &self,
        page: PageRequest,
        attributes: Option<&[&str]>,
        decode: impl Fn(&Item) -> Result<Option<T>, Corrupt>,
    ) -> Result<Page<T>, StoreError> {
        let (entries, next) = self.keys(&page).await?;
        let mut found = self.items(&entries, attributes).await?;
        let mut page = Page { items: Vec::new(), unreadable: Vec::new(), next };
        for Entry { key, at } in entries {
            let is_match =
                |item: &Item| item.get(self.index.key).and_then(|value| value.as_s().ok()) == Some(&key);
            let Some(position) = found.iter().position(is_match) else { continue };
            match decode(&found.swap_remove(position)) {
                Ok(item) => page.items.extend(item),
                Err(corrupt) => {
                    let error = StoreError::from(corrupt).of_entry(key, Timestamp::from_millis(at));
                    page.unreadable.push(error);
                }
            }
        }
        Ok(page)
    }

    /// Reads the index entries of one page, in the list's order.
    pub(super) async fn keys(&self, page: &PageRequest) -> Result<Keys, StoreError> {
        let list = self.name();
        page.check(&list)?;
        let shards = (0_u8..).zip(&self.shards);
        let queries = shards.map(|(number, shard)| self.shard(number, shard, page));
        let (entries, more) = merge(try_join_all(queries).await?, self.order, page.limit);
        let last = entries.last().map(|(shard, entry)| Cursor {
            list,
            at: entry.at,
            shard: *shard,
            key: entry.key.clone(),
        });
        let next = if more { last } else { None };
        Ok((entries.into_iter().map(|(_, entry)| entry).collect(), next))
    }

    /// Returns the name by which a cursor identifies this list. The name is unique, even among lists of the same
    /// index.
    fn name(&self) -> String {
        let first = self.shards.first().map_or("", String::as_str);
        format!("{}#{:016x}", self.index.name, fnv1a(first))
    }

    /// Queries the first entries of a shard that follow the page's cursor.
    async fn shard(&self, number: u8, shard: &str, page: &PageRequest) -> Result<Shard, StoreError> {
        let cursor = page.after.as_ref();
        let mut start =
            cursor.filter(|cursor| number == cursor.shard).map(|cursor| self.start(shard, cursor));
        let bound = cursor.map(|cursor| match self.order {
            _ if number >= cursor.shard => cursor.at,
            Order::OldestFirst | Order::OldestFirstUntil(_) => cursor.at.saturating_add(1),
            Order::NewestFirst => cursor.at.saturating_sub(1),
        });
        let (from, until) = match self.order {
            Order::OldestFirst => (bound.unwrap_or(0), None),
            Order::OldestFirstUntil(until) => (bound.unwrap_or(0), Some(until.as_millis())),
            Order::NewestFirst => (0, bound),
        };
        if until.is_some_and(|until| until < from) {
            return Ok(Shard::default());
        }
        let condition = if until.is_some() {
            "#partition = :partition AND #sort BETWEEN :from AND :until"
        } else {
            "#partition = :partition AND #sort >= :from"
        };
        let mut query = self
            .client
            .query()
            .table_name(self.table)
            .index_name(self.index.name)
            .key_condition_expression(condition)
            .expression_attribute_names("#partition", self.index.partition)
            .expression_attribute_names("#sort", self.index.sort)
            .expression_attribute_values(":partition", s(shard))
            .expression_attribute_values(":from", n(from))
            .scan_index_forward(!matches!(self.order, Order::NewestFirst))
            .limit(i32::try_from(page.limit).unwrap_or(i32::MAX));
        if let Some(until) = until {
            query = query.expression_attribute_values(":until", n(until));
        }
        loop {
            let found = query.clone().set_exclusive_start_key(start).send().await;
            let found = found.map_err(|error| store_error(self.context("query"), error))?;
            let items = found.items.unwrap_or_default();
            start = found.last_evaluated_key;
            // A query page may be empty although the shard has more entries.
            if !items.is_empty() || start.is_none() {
                let entries = items.iter().map(|item| self.entry(item)).collect::<Result<_, _>>()?;
                return Ok(Shard { entries, more: start.is_some() });
            }
        }
    }

    fn entry(&self, item: &Item) -> Result<Entry, Corrupt> {
        let read = Reader::new(item, self.index.key);
        Ok(Entry { at: read.number(self.index.sort)?, key: read.string(self.index.key)?.to_owned() })
    }

    fn start(&self, shard: &str, cursor: &Cursor) -> Item {
        let mut start = (self.index.table_key)(&cursor.key);
        start.insert(self.index.partition.to_owned(), s(shard));
        start.insert(self.index.sort.to_owned(), n(cursor.at));
        start
    }

    /// Reads the items of these entries consistently, in no particular order. Deleted items are left out.
    async fn items(&self, entries: &[Entry], attributes: Option<&[&str]>) -> Result<Vec<Item>, StoreError> {
        let mut keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        // An index that changes during the reads may return an entry twice, and BatchGetItem refuses duplicate keys.
        keys.sort_unstable();
        keys.dedup();
        let mut left: Vec<Item> = keys.into_iter().map(self.index.table_key).collect();
        let mut items = Vec::new();
        for tries in 0..BATCH_TRIES {
            if left.is_empty() {
                return Ok(items);
            }
            if tries > 0 {
                sleep(BATCH_BACKOFF * 2_u32.pow(tries - 1)).await;
            }
            let mut asked = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true);
            if let Some(attributes) = attributes {
                let names = (0..).zip(attributes);
                let aliases: Vec<String> = names.clone().map(|(n, _)| format!("#a{n}")).collect();
                asked = asked.projection_expression(aliases.join(", "));
                for (n, attribute) in names {
                    asked = asked.expression_attribute_names(format!("#a{n}"), *attribute);
                }
            }
            let asked = asked.build().map_err(|error| {
                StoreError::new(StoreErrorKind::Misuse, self.context("read")).with_source(error)
            })?;
            let read = self.client.batch_get_item().request_items(self.table, asked).send().await;
            let read = read.map_err(|error| store_error(self.context("read"), error))?;
            items.extend(read.responses.into_iter().flatten().flat_map(|(_, items)| items));
            let unread = read.unprocessed_keys.into_iter().flatten();
            left = unread.flat_map(|(_, unread)| unread.keys).collect();
        }
        if left.is_empty() {
            return Ok(items);
        }
        let problem = format!(
            "{}: {} keys still unprocessed after {BATCH_TRIES} calls",
            self.context("read"),
            left.len()
        );
        Err(StoreError::new(StoreErrorKind::Throttled, problem))
    }

    fn context(&self, operation: &str) -> String {
        let shards = self.shards.join(", ");
        format!("{operation} {} of table {} ({shards})", self.index.name, self.table)
    }
}

/// Merges the first `limit` entries of all shards. Returns each entry with its shard's number, and whether more entries
/// follow.
fn merge(mut shards: Vec<Shard>, order: Order, limit: usize) -> (Vec<(u8, Entry)>, bool) {
    let mut merged = Vec::new();
    // The merge stops when a shard has run out of queried entries but has more, because its next entry is unknown.
    while merged.len() < limit && !shards.iter().any(|shard| shard.entries.is_empty() && shard.more) {
        let next = (0_u8..).zip(&mut shards).filter_map(|(number, shard)| {
            let at = shard.entries.front()?.at;
            Some((at, number, shard))
        });
        let next = next.min_by_key(|(at, number, _)| match order {
            Order::OldestFirst | Order::OldestFirstUntil(_) => (*at, *number),
            Order::NewestFirst => (u64::MAX - *at, *number),
        });
        let Some((_, number, shard)) = next else { break };
        merged.extend(shard.entries.pop_front().map(|entry| (number, entry)));
    }
    let more = shards.iter().any(|shard| shard.more || !shard.entries.is_empty());
    (merged, more)
}
