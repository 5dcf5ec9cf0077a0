//! Lengths of time as a person writes them: `30s`, `2m`, `4h`, `5d`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time, written as a whole number and one of `s m h d w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// So many days.
    pub(super) const fn of_days(days: u64) -> Self {
        Self(Duration::from_secs(days.saturating_mul(24 * 3600)))
    }

    /// The span as the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

const UNITS: [(char, u64); 5] =
    [('w', 7 * 24 * 3600), ('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = || {
            let unit = text.chars().last()?;
            let (_, secs) = UNITS.iter().find(|(letter, _)| *letter == unit)?;
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(*secs)
        };
        let secs =
            read().ok_or_else(|| format!("`{text}` is no time such as 30s, 2m, 4h or 5d"))?;
        Ok(Self(Duration::from_secs(secs)))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        // Weeks are read, and written as days, as the defaults have them.
        let units = UNITS.iter().filter(|(letter, _)| *letter != 'w');
        let unit = units.into_iter().find(|(_, size)| secs > 0 && secs.is_multiple_of(*size));
        let (letter, size) = unit.copied().unwrap_or(('s', 1));
        write!(f, "{}{letter}", secs.checked_div(size).unwrap_or(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_alike() {
        for (text, secs) in [("0s", 0), ("90s", 90), ("2m", 120), ("4h", 14_400), ("5d", 432_000)] {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!(span.duration().as_secs(), secs);
            assert_eq!(span.to_string(), text);
        }
        for bad in ["", "5", "d", "5 d", "-5d", "1.5h", "5y", "99999999999999999999w", "5é"] {
            assert!(Span::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
