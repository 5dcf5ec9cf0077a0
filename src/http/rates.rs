//! How often somebody may ask in a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::mail::Timestamp;
use crate::net::window::Window;

/// Counts requests by token, and by address where there is none.
#[derive(Debug)]
pub(super) struct Rates {
    /// 0 means no limit.
    per_minute_max: u32,
    callers: Mutex<HashMap<Who, Window>>,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// Everybody with the token of this name.
    Token(String),
    /// Everybody in this network without a good token.
    Address(IpAddr),
}

impl Rates {
    /// Lets everybody ask so often in a minute; 0 means no limit.
    pub(super) fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, callers: Mutex::default() }
    }

    /// Counts one more request at `now`, unless there were as many as there may be.
    ///
    /// # Errors
    /// With the seconds after which there may be another.
    pub(super) fn count(&self, who: Who, now: Timestamp) -> Result<(), u64> {
        if self.per_minute_max == 0 {
            return Ok(());
        }
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&who) {
            make_room(&mut callers, now);
        }
        let window = callers.entry(who).or_default();
        if window.count(now, self.per_minute_max) {
            Ok(())
        } else {
            Err(window.wait_secs(self.per_minute_max))
        }
    }
}

/// Drops who has been quiet for a minute, or else who has asked least; tokens go last.
fn make_room(callers: &mut HashMap<Who, Window>, now: Timestamp) {
    callers.retain(|_, window| window.count_at(now) > 0);
    if callers.len() >= CALLERS_MAX {
        let weight =
            |(who, window): &(&Who, &Window)| (matches!(who, Who::Token(_)), window.count_at(now));
        let lightest = callers.iter().min_by_key(weight).map(|(who, _)| who.clone());
        if let Some(who) = lightest {
            callers.remove(&who);
        }
    }
}

/// Tokens and addresses whose requests are counted.
const CALLERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_000);

    fn address(number: u32) -> Who {
        Who::Address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn each_token_and_each_address_has_its_own_minute() {
        let rates = Rates::new(2);
        let token = || Who::Token("app".to_owned());
        for who in [token(), address(1), address(2)] {
            assert_eq!(rates.count(who.clone(), NOW), Ok(()), "{who:?}");
            assert_eq!(rates.count(who.clone(), NOW), Ok(()), "{who:?}");
            assert_eq!(rates.count(who.clone(), NOW), Err(61), "{who:?}");
        }
        let later = NOW.plus(Duration::from_secs(61));
        assert_eq!(rates.count(token(), later), Ok(()));
        let free = Rates::new(0);
        assert!((0..1000).all(|_| free.count(token(), NOW).is_ok()));
        assert!(free.callers.lock().unwrap().is_empty());
    }

    #[test]
    fn no_number_of_addresses_takes_more_memory_or_frees_a_token() {
        let rates = Rates::new(1);
        let token = Who::Token("app".to_owned());
        assert_eq!(rates.count(token.clone(), NOW), Ok(()));
        let many = u32::try_from(CALLERS_MAX).unwrap() + 100;
        for number in 0..many {
            assert_eq!(rates.count(address(number), NOW), Ok(()));
        }
        assert_eq!(rates.callers.lock().unwrap().len(), CALLERS_MAX);
        assert!(rates.count(token, NOW).is_err());
        let later = NOW.plus(Duration::from_secs(120));
        assert_eq!(rates.count(address(many), later), Ok(()));
        assert_eq!(rates.callers.lock().unwrap().len(), 1);
    }
}
