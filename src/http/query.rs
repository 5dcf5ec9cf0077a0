//! Paths and queries as they are asked: percent-decoding, and no unknown key.
//!
//! Message-IDs may hold `/`, `+` and `%`, which the router's own extractors cannot give back:
//! a `+` here stands for itself, as it does in every id and address that a person pastes.

use hyper::Uri;

use super::error::{ApiError, Field};
use super::operation::{Operation, Parameter, Shape};
pub(super) use crate::net::web::decode;

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// What the operation says of them; nothing for the page, which has none.
    parameters: &'static [Parameter],
}

impl Query {
    /// Reads the query of a request, which may have what the operation tells of.
    pub(super) fn of(uri: &Uri, operation: &Operation) -> Result<Self, ApiError> {
        let keys: Vec<&str> = operation.query.iter().map(|parameter| parameter.name).collect();
        Ok(Self { parameters: operation.query, ..Self::parse(uri.query(), &keys)? })
    }

    /// Reads the query of a request, which may have these `keys` and `access_token`.
    pub(super) fn parse(query: Option<&str>, keys: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut wrong = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (raw_key, raw_value) = part.split_once('=').unwrap_or((part, ""));
            let key = decode(raw_key).unwrap_or_else(|| raw_key.to_owned());
            let mut refuse = |why: &str| {
                wrong.push(Field { message: format!("\"{key}\" {why}"), key: key.clone() });
            };
            if key != ACCESS_TOKEN && !keys.contains(&key.as_str()) {
                refuse("is not allowed");
            } else if pairs.iter().any(|(known, _)| *known == key) {
                refuse("is given more than once");
            } else if let Some(value) = decode(raw_value) {
                pairs.push((key, value));
            } else {
                refuse("is not percent-encoded UTF-8");
            }
        }
        if wrong.is_empty() {
            Ok(Self { pairs, parameters: &[] })
        } else {
            Err(ApiError::Input(wrong))
        }
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The one parameter that is given, where there is just one beside `access_token`.
    pub(super) fn only(&self) -> Option<(&str, &str)> {
        let mut given = self.pairs.iter().filter(|(key, _)| key != ACCESS_TOKEN);
        let (key, value) = given.next()?;
        given.next().is_none().then_some((key, value))
    }

    /// The value of a key that takes one word of a list.
    pub(super) fn word<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let wrong = || ApiError::field(key, self.expected(key));
        self.value(key).map(|text| parse(text).ok_or_else(wrong)).transpose()
    }

    fn expected(&self, key: &str) -> String {
        let shape = self.parameters.iter().find(|one| one.name == key).map(|one| one.shape);
        match shape {
            Some(Shape::OneOf(words)) => format!("\"{key}\" must be one of {}", words.join(", ")),
            Some(Shape::Words(words)) => {
                format!("\"{key}\" must be one of {}", words().join(", "))
            }
            _ => format!("\"{key}\" has no such value"),
        }
    }

    /// Whether `key` is given, which must be as `true`.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ApiError> {
        match self.value(key) {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::field(key, format!("\"{key}\" must be `true`"))),
        }
    }

    /// A whole number from `least` to `most`, or `default` where it is not given.
    pub(super) fn number(
        &self,
        key: &str,
        default: usize,
        least: usize,
        most: usize,
    ) -> Result<usize, ApiError> {
        let Some(text) = self.value(key) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| {
            ApiError::field(key, format!("\"{key}\" must be a number from {least} to {most}"))
        })
    }
}

/// The `access_token` of a query, whatever else is in it.
pub(super) fn access_token(query: Option<&str>) -> Option<String> {
    let mut parts = query?.split('&').filter_map(|part| part.split_once('='));
    parts.find(|(key, _)| *key == ACCESS_TOKEN).and_then(|(_, value)| decode(value))
}

/// The one parameter that every path takes (RFC 6750 §2.3).
const ACCESS_TOKEN: &str = "access_token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_key_is_listed() {
        let error = Query::parse(Some("a=1&b=2&c=%ff&d=1&d=2&access_token=t"), &["c", "d"]);
        let Err(ApiError::Input(fields)) = error else { panic!("{error:?}") };
        let keys: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c", "d"]);
    }

    #[test]
    fn numbers_have_bounds_and_a_default() {
        let query = Query::parse(Some("n=5&big=1001&bad=x"), &["n", "big", "bad"]).unwrap();
        assert_eq!(query.number("n", 20, 1, 1000).unwrap(), 5);
        assert_eq!(query.number("absent", 20, 1, 1000).unwrap(), 20);
        assert!(query.number("big", 20, 1, 1000).is_err());
        assert!(query.number("bad", 20, 1, 1000).is_err());
    }
}
