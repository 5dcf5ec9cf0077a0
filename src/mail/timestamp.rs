//! A moment in time, and the forms in which mail, JSON and file names write it.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
///
/// Only `clock.rs` makes one from the system's clock; everything else is handed one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` later; stays at the end of time rather than wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The moment `span` earlier; stays at 1970 rather than wrapping.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when the clock went backward in between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads `2022-10-12T12:10:40Z` (RFC 3339), or `2022-10-12` for the start of that day in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = match text.parse::<jiff::civil::Date>() {
            Ok(day) if text.len() == 10 => day.to_zoned(TimeZone::UTC).ok()?.timestamp(),
            _ => text.parse::<jiff::Timestamp>().ok()?,
        };
        u64::try_from(moment.as_millisecond()).ok().map(Self)
    }

    /// Reads `Wed, 12 Oct 2022 12:10:40 +0000` (RFC 5322 §3.3), or with `GMT`, as HTTP has it.
    pub fn parse_rfc5322(text: &str) -> Option<Self> {
        let moment = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        u64::try_from(moment.as_millisecond()).ok().map(Self)
    }

    /// `2022-10-12T12:10:40.980Z`, the form of every date in JSON (RFC 3339).
    pub fn rfc3339(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%.3fZ")
    }

    /// `Wed, 12 Oct 2022 12:10:34 +0000`, the form of a `Date` field (RFC 5322 §3.3).
    pub fn rfc5322(self) -> String {
        self.format("%a, %d %b %Y %H:%M:%S +0000")
    }

    /// `20221012`: the UTC day, as the store names its directories.
    pub fn day(self) -> u32 {
        self.format("%Y%m%d").parse().unwrap_or(0)
    }

    fn format(self, pattern: &str) -> String {
        // A time past the year 9999 cannot be written in any of these forms.
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX).min(253_402_207_200_000);
        let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        moment.to_zoned(TimeZone::UTC).strftime(pattern).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_articles_moment() {
        let moment = Timestamp::from_millis(1_665_576_640_980);
        assert_eq!(moment.rfc3339(), "2022-10-12T12:10:40.980Z");
        assert_eq!(moment.rfc5322(), "Wed, 12 Oct 2022 12:10:40 +0000");
        assert_eq!(moment.day(), 20_221_012);
    }

    #[test]
    fn moments_and_days_are_read() {
        for (text, millis) in [
            ("2022-10-12T12:10:40.980Z", Some(1_665_576_640_980)),
            ("2022-10-12T14:10:40.980+02:00", Some(1_665_576_640_980)),
            ("2022-10-12", Some(1_665_532_800_000)),
            ("1969-12-31", None),
            ("2022-13-01", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(Timestamp::as_millis), millis, "{text}");
        }
    }

    #[test]
    fn extremes_neither_wrap_nor_panic() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
        assert!(end.rfc3339().starts_with("9999-"));
        assert_eq!(Timestamp::from_millis(5).minus(Duration::from_secs(1)).as_millis(), 0);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
    }
}
