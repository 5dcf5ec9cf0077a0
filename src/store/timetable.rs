//! When mails are due: what is tried again, and what is to be sent at a time of its own.

use std::collections::BTreeSet;

use crate::mail::{QueueId, Timestamp};

/// The mails that are due at some time.
///
/// Appointments are kept apart: a mail that is due long after every possible retry was put off by
/// a clock that has been set back, unless its app wanted it so.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    retries: BTreeSet<(Timestamp, QueueId)>,
    appointments: BTreeSet<(Timestamp, QueueId)>,
}

/// When a mail is due, and why then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// As soon as it was taken over, or when it is tried again.
    At(Timestamp),
    /// Its app wants it to be sent then.
    Appointed(Timestamp),
}

impl Timetable {
    /// Puts a mail in.
    pub(super) fn insert(&mut self, due: Due, queue_id: QueueId) {
        match due {
            Due::At(time) => self.retries.insert((time, queue_id)),
            Due::Appointed(time) => self.appointments.insert((time, queue_id)),
        };
    }

    /// Takes a mail out.
    pub(super) fn remove(&mut self, due: Due, queue_id: QueueId) {
        match due {
            Due::At(time) => self.retries.remove(&(time, queue_id)),
            Due::Appointed(time) => self.appointments.remove(&(time, queue_id)),
        };
    }

    /// Mails that are due, oldest due first, without those that `skip` picks.
    pub(super) fn due(
        &self,
        now: Timestamp,
        max: usize,
        skip: &dyn Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        let of = |all: &BTreeSet<(Timestamp, QueueId)>| {
            let due = all.iter().copied().take_while(|(time, _)| *time <= now);
            due.filter(|(_, id)| !skip(*id)).take(max).collect::<Vec<_>>()
        };
        let mut due = of(&self.retries);
        due.append(&mut of(&self.appointments));
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).take(max).collect()
    }

    /// Mails that are tried again after `time` only, without those that `skip` picks.
    pub(super) fn retried_after(
        &self,
        time: Timestamp,
        max: usize,
        skip: &dyn Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        let late = self.retries.iter().rev().take_while(|(due, _)| *due > time).map(|(_, id)| *id);
        late.filter(|id| !skip(*id)).take(max).collect()
    }

    /// When the next mail that `skip` does not pick is due.
    pub(super) fn next(&self, skip: &dyn Fn(QueueId) -> bool) -> Option<Timestamp> {
        let first = |all: &BTreeSet<(Timestamp, QueueId)>| {
            all.iter().find(|(_, id)| !skip(*id)).map(|(time, _)| *time)
        };
        [first(&self.retries), first(&self.appointments)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appointment_is_due_like_all_else_but_never_late() {
        let id = |unique| QueueId::new(Timestamp::from_millis(1), unique);
        let at = Timestamp::from_millis;
        let mut table = Timetable::default();
        table.insert(Due::At(at(30)), id(1));
        table.insert(Due::Appointed(at(20)), id(2));
        table.insert(Due::At(at(10)), id(3));
        table.insert(Due::Appointed(at(1_000_000)), id(4));
        let nobody = |_: QueueId| false;
        assert_eq!(table.due(at(30), 9, &nobody), [id(3), id(2), id(1)]);
        assert_eq!(table.due(at(30), 2, &nobody), [id(3), id(2)]);
        assert_eq!(table.due(at(30), 9, &|one| one == id(3)), [id(2), id(1)]);
        assert_eq!(table.retried_after(at(15), 9, &nobody), [id(1)]);
        assert_eq!(table.next(&nobody), Some(at(10)));
        assert_eq!(table.next(&|one| one != id(4)), Some(at(1_000_000)));
        table.remove(Due::Appointed(at(20)), id(2));
        assert_eq!(table.due(at(30), 9, &nobody), [id(3), id(1)]);
    }
}
