//! Where subscriptions stand, as it is written down and read again.
//!
//! A subscription has decided everything before `next`, except for `open`; of what follows it has finished `done`.
//! Always: applying an entry twice, or an old one after a newer snapshot, changes nothing.

use std::collections::BTreeMap;

use super::ranges::Ranges;
use super::{Attempt, Outcome, Position, Uid};

/// The number of a subscription within its channel: shorter than its uid.
pub(crate) type Number = u32;

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// There is a subscription; it began at `begun` and stands at `next`.
    Subscribed {
        number: Number,
        uid: Uid,
        begun: Position,
        next: Position,
    },
    /// It is gone.
    Unsubscribed { number: Number },
    /// It has finished these beyond its `next`: from, up to and without.
    Done {
        number: Number,
        from: Position,
        to: Position,
    },
    /// It has this one still, or once more, to finish.
    Open {
        number: Number,
        position: Position,
        attempts: u32,
    },
    /// Its subscriber was called; the count includes this attempt.
    Attempted {
        number: Number,
        position: Position,
        count: u32,
        attempt: Attempt,
    },
    /// It is done with an event.
    Finished {
        number: Number,
        position: Position,
        outcome: Outcome,
    },
}

/// Where one subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) uid: Uid,
    pub(crate) begun: Position,
    pub(crate) next: Position,
    pub(crate) done: Ranges,
    /// Positions before `next` that are not finished, with the attempts made.
    pub(crate) open: BTreeMap<Position, u32>,
    /// Attempts made at positions from `next` on that are not finished.
    pub(crate) tried: BTreeMap<Position, u32>,
}

/// Where the subscriptions of a channel stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress(pub(crate) BTreeMap<Number, Standing>);

impl Progress {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Subscribed {
                number,
                uid,
                begun,
                next,
            } => {
                self.0.entry(*number).or_insert_with(|| Standing {
                    uid: uid.clone(),
                    begun: *begun,
                    next: *next,
                    done: Ranges::default(),
                    open: BTreeMap::new(),
                    tried: BTreeMap::new(),
                });
            }
            Entry::Unsubscribed { number } => {
                self.0.remove(number);
            }
            Entry::Done { number, from, to } => self.at(*number, |one| one.done.insert(*from, *to)),
            Entry::Open {
                number,
                position,
                attempts,
            } => self.at(*number, |one| one.reopen(*position, *attempts)),
            Entry::Attempted {
                number,
                position,
                count,
                ..
            } => self.at(*number, |one| one.attempted(*position, *count)),
            Entry::Finished {
                number, position, ..
            } => self.at(*number, |one| one.finish(*position)),
        }
    }

    fn at(&mut self, number: Number, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.0.get_mut(&number) {
            change(standing);
        }
    }

    /// The entries that lead here from nothing.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (&number, standing) in &self.0 {
            let Standing {
                uid,
                begun,
                next,
                done,
                open,
                tried,
            } = standing;
            entries.push(Entry::Subscribed {
                number,
                uid: uid.clone(),
                begun: *begun,
                next: *next,
            });
            entries.extend(
                done.iter()
                    .map(|(from, to)| Entry::Done { number, from, to }),
            );
            entries.extend(
                open.iter()
                    .chain(tried)
                    .map(|(&position, &attempts)| Entry::Open {
                        number,
                        position,
                        attempts,
                    }),
            );
        }
        entries
    }
}

impl Standing {
    fn reopen(&mut self, position: Position, attempts: u32) {
        if position < self.next {
            self.open.insert(position, attempts);
        } else {
            self.done.remove(position);
            self.tried.insert(position, attempts);
        }
    }

    fn attempted(&mut self, position: Position, count: u32) {
        if position < self.next {
            // Not open: finished already, the snapshot knew it.
            if let Some(known) = self.open.get_mut(&position) {
                *known = (*known).max(count);
            }
        } else if !self.done.contains(position) {
            let known = self.tried.entry(position).or_default();
            *known = (*known).max(count);
        }
    }

    fn finish(&mut self, position: Position) {
        if position < self.next {
            self.open.remove(&position);
        } else {
            self.done.insert(position, position.next());
            self.tried.remove(&position);
        }
    }
}
