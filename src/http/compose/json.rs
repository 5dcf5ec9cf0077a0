//! JSON from strangers: read into values, but not into more of them than a mail needs.

use std::cell::Cell;
use std::fmt;

use axum::http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// Reads a whole text of JSON. A key that comes twice in one object is an error, for nobody could
/// say which is meant.
///
/// # Errors
/// When it is no JSON, nests too deeply, or holds more values than a mail needs.
pub(in crate::http) fn parse(octets: &[u8]) -> Result<Value, ApiError> {
    let left = Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(octets);
    let value = Bounded { left: &left }.deserialize(&mut deserializer);
    let whole = value.and_then(|value| deserializer.end().map(|()| value));
    whole.map_err(|error| {
        let message = format!("The body is no JSON that can be read: {error}");
        ApiError::refused(StatusCode::BAD_REQUEST, "InvalidJson", message)
    })
}

/// Reads a value and takes it off what is left.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
}

impl Bounded<'_> {
    fn take<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom(format!("more than {VALUES_MAX} values")))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.take()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = from.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(self)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom("a key is given more than once in one object"));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Values of one body: 1,000 recipients, and as many header fields and attachments, take a tenth.
const VALUES_MAX: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_read_as_it_stands_there() {
        let text = r#" {"a": [1, -2, 1.5, true, null, "é\n"], "b": {}} "#;
        let want = json!({ "a": [1, -2, 1.5, true, null, "é\n"], "b": {} });
        assert_eq!(parse(text.as_bytes()).unwrap(), want);
    }

    #[test]
    fn what_is_no_json_or_too_much_of_it_is_refused() {
        let deep = "[".repeat(100_000);
        let wide = format!("[{}1]", "1,".repeat(VALUES_MAX));
        for text in
            ["", "{", "{}{}", "{\"a\":1,\"a\":2}", "\"\\ud800\"", "nul", "{a:1}", &deep, &wide]
        {
            let error = parse(text.as_bytes());
            assert!(error.is_err(), "{}", text.get(..20).unwrap_or(text));
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(format!("[{}1]", "1,".repeat(VALUES_MAX - 2)).as_bytes()).is_ok());
    }
}
