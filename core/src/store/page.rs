use std::fmt;
use std::future::Future;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, Stream, StreamExt as _};

use super::{StoreError, StoreErrorKind};

/// A request for one page of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageRequest {
    /// Maximum number of entries in the page, from 1 to 100; default 25.
    pub limit: usize,
    /// Cursor at the end of the preceding page; `None` requests the first page.
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// The highest permitted [`limit`](Self::limit).
    pub const MAX_LIMIT: usize = 100;

    /// Requests the first page of a list, with at most `limit` entries.
    #[must_use]
    pub const fn first(limit: usize) -> Self {
        Self { limit, after: None }
    }

    /// Requests the page that begins after `cursor`, with the same limit as this page.
    #[must_use]
    pub const fn after(&self, cursor: Cursor) -> Self {
        Self { limit: self.limit, after: Some(cursor) }
    }

    /// Checks that the limit is in range and that the cursor belongs to `list`.
    pub(super) fn check(&self, list: &str) -> Result<(), StoreError> {
        let Self { limit, after } = self;
        if !(1..=Self::MAX_LIMIT).contains(limit) {
            let max = Self::MAX_LIMIT;
            let problem = format!("page limit {limit} of list {list} is out of range; expected 1 to {max}");
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        }
        if let Some(cursor) = after
            && cursor.list != list
        {
            let problem = format!("cannot read list {list} after a cursor of the list {}", cursor.list);
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        }
        Ok(())
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::first(25)
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The page's entries, in the list's order. There may be fewer than the requested limit, or none, even when more
    /// pages follow.
    pub items: Vec<T>,
    /// Errors of the entries of this page that cannot be decoded. Each error names the item and the attribute. The
    /// decoded entries are in [`items`](Self::items).
    pub unreadable: Vec<StoreError>,
    /// Position after the page's last entry, for the next request; `None` if this is the last page.
    pub next: Option<Cursor>,
}

/// A position in a list, displayed as opaque text.
///
/// A cursor is valid only for the list that returned it. For example, the store refuses a cursor of one user's list
/// in the list of a different user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// Name of the cursor's list, without spaces.
    pub(super) list: String,
    /// Sort value, in milliseconds, of the last entry before the cursor.
    pub(super) at: u64,
    /// Number of the list's shard that holds the last entry before the cursor.
    pub(super) shard: u8,
    /// Key of the last entry before the cursor.
    pub(super) key: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, at, shard, key } = self;
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{list} {at} {shard} {key}")))
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    /// Parses the text of a displayed cursor.
    ///
    /// # Errors
    /// [`StoreErrorKind::Misuse`] if `text` is not the text of a cursor.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parse = |text: &str| {
            let mut parts = text.splitn(4, ' ');
            let mut next = || parts.next();
            let (list, at, shard, key) = (next()?, next()?, next()?, next()?);
            Some(Self {
                list: list.to_owned(),
                at: at.parse().ok()?,
                shard: shard.parse().ok()?,
                key: key.to_owned(),
            })
        };
        decoded.as_deref().and_then(parse).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            StoreError::new(StoreErrorKind::Misuse, format!("{shown:?} is not a cursor of a list"))
        })
    }
}

/// Reads a whole list as a stream of entries, page by page, starting with the page `first`.
///
/// `list` reads one page. An entry that cannot be decoded appears in the stream as an error, and the stream continues.
/// An error of `list` itself ends the stream.
///
/// ```
/// # use futures_util::TryStreamExt as _;
/// # use streamer::store::{PageRequest, RequestQueue, Status, StoreError, pages};
/// # async fn failed<Q: RequestQueue>(queue: &Q) -> Result<usize, StoreError> {
/// let failed = pages(PageRequest::default(), |page| queue.get_by_status(Status::Failed, page));
/// failed.try_fold(0, |count, _| async move { Ok(count + 1) }).await
/// # }
/// ```
pub fn pages<T, F, L>(first: PageRequest, list: L) -> impl Stream<Item = Result<T, StoreError>>
where
    L: FnMut(PageRequest) -> F,
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    stream::unfold((Some(first), list), |(page, mut list)| async move {
        let page = page?;
        let (entries, next) = match list(page.clone()).await {
            Ok(Page { items, unreadable, next }) => {
                let unreadable = unreadable.into_iter().map(Err);
                (items.into_iter().map(Ok).chain(unreadable).collect(), next.map(|cursor| page.after(cursor)))
            }
            Err(error) => (vec![Err(error)], None),
        };
        Some((stream::iter(entries), (next, list)))
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn displayed_cursor_parses_to_the_same_cursor(at in any::<u64>(), shard in any::<u8>(), key in "\\PC{0,40}") {
            let cursor = Cursor { list: "status-time".to_owned(), at, shard, key };
            let text = cursor.to_string();
            let is_url_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            prop_assert!(text.bytes().all(is_url_safe), "cursor text is URL-safe: {text}");
            prop_assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn text_that_is_not_a_cursor_is_refused_as_misuse(text in "\\PC{0,80}") {
            match text.parse::<Cursor>() {
                Ok(cursor) => prop_assert_eq!(cursor.to_string(), text),
                Err(error) => prop_assert_eq!(error.kind(), StoreErrorKind::Misuse),
            }
        }
    }

    /// Returns one page of a list of the numbers from 1 to `end`, in which each multiple of ten is unreadable.
    fn numbers(page: &PageRequest, end: u64) -> Page<u64> {
        let first = page.after.as_ref().map_or(1, |cursor| cursor.at + 1);
        let last = end.min(first + page.limit as u64 - 1);
        let (unreadable, items): (Vec<u64>, _) = (first..=last).partition(|number| number % 10 == 0);
        let corrupt = |number: u64| StoreError::new(StoreErrorKind::Corrupt, number.to_string());
        let cursor = Cursor { list: "numbers".to_owned(), at: last, shard: 0, key: String::new() };
        Page {
            items,
            unreadable: unreadable.into_iter().map(corrupt).collect(),
            next: (last < end).then_some(cursor),
        }
    }

    #[tokio::test]
    async fn pages_yields_the_entries_of_all_pages_in_order() {
        for limit in [1, 2, 3, 7, 100] {
            let list = |page: PageRequest| async move { Ok(numbers(&page, 7)) };
            let all: Vec<u64> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
            assert_eq!(all, [1, 2, 3, 4, 5, 6, 7], "a page limit of {limit} yields all entries in order");
        }
        let from_the_middle = PageRequest { limit: 2, after: numbers(&PageRequest::first(4), 7).next };
        let list = |page: PageRequest| async move { Ok(numbers(&page, 7)) };
        let rest: Vec<u64> = pages(from_the_middle, list).try_collect().await.unwrap();
        assert_eq!(rest, [5, 6, 7]);
    }

    #[tokio::test]
    async fn pages_continues_after_an_unreadable_entry_and_stops_after_a_failed_page() {
        let list = |page: PageRequest| async move { Ok(numbers(&page, 12)) };
        let all: Vec<_> = pages(PageRequest::first(5), list).collect().await;
        assert_eq!(all.len(), 12);
        assert_eq!(all.iter().filter(|entry| entry.is_err()).count(), 1);
        let list = |page: PageRequest| async move {
            if page.after.is_none() {
                return Ok(numbers(&page, 12));
            }
            Err(StoreError::new(StoreErrorKind::Throttled, "fault injected by this test"))
        };
        let all: Vec<_> = pages(PageRequest::first(5), list).collect().await;
        assert_eq!(all.len(), 6);
        assert_eq!(all[5].as_ref().unwrap_err().kind(), StoreErrorKind::Throttled);
    }
}
