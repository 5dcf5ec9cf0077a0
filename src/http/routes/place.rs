//! Where a page of a list begins, for lists that EmailEngine numbers the pages of.
//!
//! Pages shift when mail comes, so a page says where it ended, too: who asks for the next one by
//! that cursor sees everything once.

use serde_json::{Map, Value, json};

use super::{PAGE_SIZE, PAGE_SIZE_MAX};
use crate::http::error::ApiError;
use crate::http::operation::{Parameter, Shape};
use crate::http::query::Query;

/// Where a page begins: its number, and behind what, where that is known.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The number, from 0 on.
    pub(super) page: usize,
    /// What the page before it ended with.
    pub(super) before: Option<String>,
    /// Entries of the page.
    pub(super) page_size: usize,
}

impl Place {
    /// What `page` or `cursor`, and `pageSize`, of a query say.
    pub(super) fn of(query: &Query) -> Result<Self, ApiError> {
        let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
        let page = query.number("page", 0, 0, PAGE_MAX)?;
        let (page, before) = match query.value("cursor") {
            Some(text) => {
                let (page, before) = parse(text).ok_or_else(bad_cursor)?;
                (page, Some(before))
            }
            None => (page, None),
        };
        Ok(Self { page, before, page_size })
    }

    /// What the page before it ended with, as `parse` reads it.
    pub(super) fn before<T>(
        &self,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.before.as_deref().map(|text| parse(text).ok_or_else(bad_cursor)).transpose()
    }

    /// How many entries stand before it, where its number says where it begins.
    pub(super) fn skipped(&self) -> usize {
        if self.before.is_some() { 0 } else { self.page.saturating_mul(self.page_size) }
    }

    /// The page; `next` is what it ended with, where there may be another one.
    pub(super) fn page(&self, total: usize, next: Option<&str>, messages: Vec<Value>) -> Value {
        let mut page = Map::new();
        page.insert("total".to_owned(), json!(total));
        page.insert("page".to_owned(), json!(self.page));
        page.insert("pages".to_owned(), json!(total.div_ceil(self.page_size).max(1)));
        let next_page = self.page.saturating_add(1);
        page.extend(next.map(|next| ("cursor".to_owned(), json!(format!("{next_page}.{next}")))));
        page.insert("messages".to_owned(), Value::Array(messages));
        Value::Object(page)
    }
}

/// `PAGE.NAME`
fn parse(text: &str) -> Option<(usize, String)> {
    let (page, before) = text.split_once('.')?;
    Some((page.parse().ok()?, before.to_owned()))
}

fn bad_cursor() -> ApiError {
    ApiError::field("cursor", "\"cursor\" must be one that a page gave")
}

/// Which page is asked for by its number.
pub(super) const PAGE: Parameter =
    Parameter::new("page", Shape::Between(0, PAGE_MAX, Some(0)), "Which page, from 0 on");

/// The last page that can be asked for by its number.
const PAGE_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cursor_that_a_page_gives_is_taken_however_far_it_leads() {
        let keys = ["page", "pageSize", "cursor"];
        let at = |query: &str| Place::of(&Query::parse(Some(query), &keys).unwrap());
        for page in [0, PAGE_MAX, usize::MAX] {
            let place = at(&format!("cursor={page}.last")).unwrap();
            assert_eq!((place.before.as_deref(), place.skipped()), (Some("last"), 0));
            let shown = place.page(3, Some("next"), vec![]);
            let next = at(&format!("cursor={}", shown["cursor"].as_str().unwrap())).unwrap();
            assert_eq!(next.before.as_deref(), Some("next"), "{page}");
        }
        for wrong in ["cursor=last", "cursor=x.last", "page=100001"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
