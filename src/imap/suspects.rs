//! Mails that may be what ends the connection: they are fetched alone, and passed over when that
//! ends the connection again and again.

use std::collections::BTreeSet;

/// Where in a mailbox a mail is: folder, UIDVALIDITY, unique id.
type Place = (String, u32, u32);

/// What was being fetched when connections ended.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// The folder, its UIDVALIDITY and the mails that are being fetched.
    fetching: Option<(String, u32, Vec<u32>)>,
    /// Up to here mails are fetched alone.
    alone_until: Option<Place>,
    /// The mail that was fetched alone when the connection ended, and how often.
    last: Option<(Place, u32)>,
    given_up: BTreeSet<Place>,
}

impl Suspects {
    /// Notes what is about to be fetched.
    pub(super) fn begin(&mut self, folder: &str, uid_validity: u32, uids: &[u32]) {
        self.fetching = Some((folder.to_owned(), uid_validity, uids.to_vec()));
    }

    /// Notes that it has been fetched.
    pub(super) fn done(&mut self) {
        self.fetching = None;
    }

    /// Notes that the connection has ended.
    pub(super) fn connection_ended(&mut self) {
        let Some((folder, uid_validity, uids)) = self.fetching.take() else { return };
        match uids.as_slice() {
            [] => {}
            [only] => {
                let place = (folder, uid_validity, *only);
                let times = match &self.last {
                    Some((last, times)) if *last == place => times.saturating_add(1),
                    _ => 1,
                };
                if times >= STRIKES_MAX {
                    self.given_up.insert(place);
                    self.last = None;
                } else {
                    self.last = Some((place, times));
                }
            }
            [.., last] => self.alone_until = Some((folder, uid_validity, *last)),
        }
    }

    /// How many mails from this one on are fetched together, of at most `most`.
    pub(super) fn together(&self, folder: &str, uid_validity: u32, uid: u32, most: usize) -> usize {
        let is_suspect = self.alone_until.as_ref().is_some_and(|(name, validity, last)| {
            name == folder && *validity == uid_validity && uid <= *last
        });
        if is_suspect { 1 } else { most }
    }

    /// Whether a mail is passed over.
    pub(super) fn is_given_up(&self, folder: &str, uid_validity: u32, uid: u32) -> bool {
        self.given_up.contains(&(folder.to_owned(), uid_validity, uid))
    }
}

/// How often a mail may end the connection before it is passed over.
const STRIKES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_that_ends_every_connection_is_found_and_passed_over() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.together("INBOX", 7, 1, 100), 100);
        suspects.begin("INBOX", 7, &[1, 2, 3]);
        suspects.connection_ended();
        for uid in [1, 2, 3] {
            assert_eq!(suspects.together("INBOX", 7, uid, 100), 1);
        }
        assert_eq!(suspects.together("INBOX", 7, 4, 100), 100);
        assert_eq!(suspects.together("Junk", 7, 1, 100), 100);
        assert_eq!(suspects.together("INBOX", 8, 1, 100), 100);
        suspects.begin("INBOX", 7, &[1]);
        suspects.done();
        for strike in 1..=STRIKES_MAX {
            assert!(!suspects.is_given_up("INBOX", 7, 2), "{strike}");
            suspects.begin("INBOX", 7, &[2]);
            suspects.connection_ended();
            // Lost while nothing is fetched: that is nobody's fault.
            suspects.connection_ended();
        }
        assert!(suspects.is_given_up("INBOX", 7, 2));
        assert!(!suspects.is_given_up("INBOX", 7, 3));
        assert!(!suspects.is_given_up("INBOX", 8, 2));
    }

    #[test]
    fn a_connection_that_is_lost_now_and_then_gives_no_mail_up() {
        let mut suspects = Suspects::default();
        for uid in [1, 2, 1, 2, 1, 2] {
            suspects.begin("INBOX", 7, &[uid]);
            suspects.connection_ended();
        }
        assert!(!suspects.is_given_up("INBOX", 7, 1));
        assert!(!suspects.is_given_up("INBOX", 7, 2));
    }
}
