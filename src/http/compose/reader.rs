//! Objects of JSON taken apart key by key, and a list of everything that is wrong with them.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::http::error::{ApiError, Field};
use crate::mail::{Address, NameAddr};

/// Keeps what is wrong.
#[derive(Debug, Default)]
pub(super) struct Reader {
    wrong: Vec<Field>,
}

/// An object of which some keys have been taken.
#[derive(Debug)]
pub(super) struct Object {
    path: String,
    fields: Map<String, Value>,
}

impl Reader {
    /// Notes that something is wrong with what stands at `key`.
    pub(super) fn wrong(&mut self, key: &str, what: impl Display) {
        if self.wrong.len() < WRONG_MAX {
            let message = format!("\"{key}\" {what}");
            self.wrong.push(Field { message, key: key.to_owned() });
        }
    }

    /// The value where it is an object.
    pub(super) fn object(&mut self, path: &str, value: Value) -> Option<Object> {
        match value {
            Value::Object(fields) => Some(Object { path: path.to_owned(), fields }),
            _ => self.expected(path, "an object"),
        }
    }

    /// The values of an array, or the one value that stands in its place; each with where it is.
    pub(super) fn list(&mut self, path: &str, value: Value) -> Vec<(String, Value)> {
        match value {
            Value::Array(values) => {
                let numbered = values.into_iter().enumerate();
                numbered.map(|(at, value)| (format!("{path}[{at}]"), value)).collect()
            }
            one => vec![(path.to_owned(), one)],
        }
    }

    /// A text of any kind.
    pub(super) fn text(&mut self, path: &str, value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            _ => self.expected(path, "a string"),
        }
    }

    /// A text that can stand in a header: without line breaks and other controls.
    pub(super) fn line(&mut self, path: &str, value: Value) -> Option<String> {
        let text = self.text(path, value)?;
        let is_control = |c: char| c.is_control() || "\u{2028}\u{2029}".contains(c);
        if text.chars().any(is_control) {
            self.wrong(path, "must have no line break and no other control character");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, path: &str, value: &Value) -> Option<bool> {
        match value {
            Value::Bool(flag) => Some(*flag),
            _ => self.expected(path, "true or false"),
        }
    }

    /// An address as a string.
    pub(super) fn address(&mut self, path: &str, value: Value) -> Option<Address> {
        let text = self.text(path, value)?;
        match Address::parse(&text) {
            Ok(address) => Some(address),
            Err(error) => {
                self.wrong(path, format_args!("must be an address: {error}"));
                None
            }
        }
    }

    /// `{name?, address}`.
    pub(super) fn mailbox(&mut self, path: &str, value: Value) -> Option<NameAddr> {
        // Many an app would give the address alone.
        if !value.is_object() {
            return self.expected(path, r#"an object such as {"address": "anna@example.com"}"#);
        }
        let mut object = self.object(path, value)?;
        let name = object.take("name").and_then(|(path, value)| self.line(&path, value));
        let address = match object.take("address") {
            Some((path, value)) => self.address(&path, value),
            None => self.required(&object.path_of("address")),
        };
        object.close(self);
        NameAddr::new(&name.unwrap_or_default(), address?)
    }

    /// Mailboxes: one object, or an array of them.
    pub(super) fn mailboxes(&mut self, path: &str, value: Value) -> Vec<NameAddr> {
        let all = self.list(path, value);
        all.into_iter().filter_map(|(path, value)| self.mailbox(&path, value)).collect()
    }

    /// Notes that something else was expected.
    pub(super) fn expected<T>(&mut self, path: &str, what: impl Display) -> Option<T> {
        self.wrong(path, format_args!("must be {what}"));
        None
    }

    /// Notes that something must be there.
    pub(super) fn required<T>(&mut self, path: &str) -> Option<T> {
        self.wrong(path, "is required");
        None
    }

    /// What was read, if nothing was wrong.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, ApiError> {
        match read {
            Some(read) if self.wrong.is_empty() => Ok(read),
            _ => Err(ApiError::Input(self.wrong)),
        }
    }
}

impl Object {
    /// Takes the value of a key, with its path.
    pub(super) fn take(&mut self, key: &str) -> Option<(String, Value)> {
        // The others stay in the order in which they were written.
        let value = self.fields.shift_remove(key)?;
        Some((self.path_of(key), value))
    }

    /// Where a key of this object is.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// All that is left, as a list.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        self.fields.into_iter()
    }

    /// Notes every key that nobody has taken.
    pub(super) fn close(self, reader: &mut Reader) {
        for key in self.fields.keys() {
            reader.wrong(&self.path_of(key), "is not allowed");
        }
    }
}

/// Wrong fields that are listed.
const WRONG_MAX: usize = 100;
