use std::fmt;
use std::future::Future;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, Stream, StreamExt as _};

use super::{StoreError, StoreErrorKind};

/// Which part of a list is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageRequest {
    /// How many entries at most. From 1 to 100, default 25.
    pub limit: usize,
    /// Where the page before it ended; without it, the list is read from its begin.
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// The most entries that a page may have.
    pub const MAX_LIMIT: usize = 100;

    /// The first page, of at most `limit` entries.
    #[must_use]
    pub const fn first(limit: usize) -> Self {
        Self { limit, after: None }
    }

    /// The page that begins after `cursor`, of as many entries.
    #[must_use]
    pub const fn after(&self, cursor: Cursor) -> Self {
        Self { limit: self.limit, after: Some(cursor) }
    }

    /// What is wrong with it as a page of `list`.
    pub(super) fn check(&self, list: &str) -> Result<(), StoreError> {
        let Self { limit, after } = self;
        if !(1..=Self::MAX_LIMIT).contains(limit) {
            let max = Self::MAX_LIMIT;
            let problem =
                format!("a page of {limit} entries of {list}: at least 1 and at most {max} are given");
            return Err(StoreError::new(StoreErrorKind::Misuse, problem));
        }
        if let Some(cursor) = after
            && cursor.list != list
        {
            let problem = format!("a page of the list {list} after a cursor of the list {}", cursor.list);
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

/// A part of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// Its entries, in the list's order. They can be fewer than were asked for, or none, before the list's end.
    pub items: Vec<T>,
    /// What stood among them and cannot be read, each naming its item and attribute: it keeps nobody from the others.
    pub unreadable: Vec<StoreError>,
    /// Where it ends; `None` when the list ends with it.
    pub next: Option<Cursor>,
}

/// A place in a list, as text that means something to the store alone.
///
/// It is a place in no other list: a cursor of one status, connection, user or tenant is refused for another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// Which list it is a place in, without spaces.
    pub(super) list: String,
    /// What the list is sorted by, of the entry before it.
    pub(super) at: u64,
    /// In which of the list's shards that entry stands.
    pub(super) shard: u8,
    /// The key of that entry.
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

    /// Reads what was displayed.
    ///
    /// # Errors
    /// [`StoreErrorKind::Misuse`] when it never was.
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
            StoreError::new(StoreErrorKind::Misuse, format!("{shown:?} is no cursor that a page ended with"))
        })
    }
}

/// A whole list as a stream, page by page from `first` on.
///
/// What cannot be read is an error among the entries; an error of the list itself is the last of them.
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
        fn a_cursor_reads_back_as_it_was_shown(at in any::<u64>(), shard in any::<u8>(), key in "\\PC{0,40}") {
            let cursor = Cursor { list: "status-time".to_owned(), at, shard, key };
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            prop_assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn no_text_is_too_strange_to_be_refused(text in "\\PC{0,80}") {
            match text.parse::<Cursor>() {
                Ok(cursor) => prop_assert_eq!(cursor.to_string(), text),
                Err(error) => prop_assert_eq!(error.kind(), StoreErrorKind::Misuse),
            }
        }
    }

    /// The numbers up to `end`, as many as are asked for at a time; what is divisible by ten cannot be read.
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
    async fn a_list_is_read_page_by_page_to_its_end() {
        for limit in [1, 2, 3, 7, 100] {
            let list = |page: PageRequest| async move { Ok(numbers(&page, 7)) };
            let all: Vec<u64> = pages(PageRequest::first(limit), list).try_collect().await.unwrap();
            assert_eq!(all, [1, 2, 3, 4, 5, 6, 7], "{limit} at a time");
        }
        let from_the_middle = PageRequest { limit: 2, after: numbers(&PageRequest::first(4), 7).next };
        let list = |page: PageRequest| async move { Ok(numbers(&page, 7)) };
        let rest: Vec<u64> = pages(from_the_middle, list).try_collect().await.unwrap();
        assert_eq!(rest, [5, 6, 7]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_ends_no_list_and_a_list_that_fails_ends_there() {
        let list = |page: PageRequest| async move { Ok(numbers(&page, 12)) };
        let all: Vec<_> = pages(PageRequest::first(5), list).collect().await;
        assert_eq!(all.len(), 12);
        assert_eq!(all.iter().filter(|entry| entry.is_err()).count(), 1);
        let list = |page: PageRequest| async move {
            if page.after.is_none() {
                return Ok(numbers(&page, 12));
            }
            Err(StoreError::new(StoreErrorKind::Throttled, "a fault of this test"))
        };
        let all: Vec<_> = pages(PageRequest::first(5), list).collect().await;
        assert_eq!(all.len(), 6);
        assert_eq!(all[5].as_ref().unwrap_err().kind(), StoreErrorKind::Throttled);
    }
}
