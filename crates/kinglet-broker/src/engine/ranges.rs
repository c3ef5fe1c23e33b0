//! A set of positions, kept as ranges: the events that a subscription has finished beyond its cursor.

use std::collections::BTreeMap;

use super::Position;

/// Positions, as disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds the positions from `from` up to, not including, `to`.
    pub(crate) fn insert(&mut self, from: Position, to: Position) {
        let (mut from, mut to) = (from.0, to.0);
        if from >= to {
            return;
        }
        if let Some((&start, &end)) = self.0.range(..from).next_back()
            && end >= from
        {
            from = start;
            to = to.max(end);
        }
        while let Some((&start, &end)) = self.0.range(from..=to).next() {
            to = to.max(end);
            self.0.remove(&start);
        }
        self.0.insert(from, to);
    }

    /// Is it in?
    pub(crate) fn contains(&self, position: Position) -> bool {
        self.0
            .range(..=position.0)
            .next_back()
            .is_some_and(|(_, &end)| position.0 < end)
    }

    /// Forgets what lies before `position`.
    pub(crate) fn forget_before(&mut self, position: Position) {
        while let Some((&start, &end)) = self.0.first_key_value() {
            if start >= position.0 {
                break;
            }
            self.0.remove(&start);
            if end > position.0 {
                self.0.insert(position.0, end);
            }
        }
    }

    /// Takes one position out.
    pub(crate) fn remove(&mut self, position: Position) {
        if let Some((&start, &end)) = self.0.range(..=position.0).next_back()
            && position.0 < end
        {
            self.0.remove(&start);
            self.insert(Position(start), position);
            self.insert(position.next(), Position(end));
        }
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Position, Position)> {
        self.0
            .iter()
            .map(|(&from, &to)| (Position(from), Position(to)))
    }

    /// How many positions.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_set_of_numbers(steps in proptest::collection::vec((0_u8..3, 1_u64..60, 0_u64..9), 0..60)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (what, at, count) in steps {
                match what {
                    0 => { ranges.insert(Position(at), Position(at + count)); set.extend(at..at + count); }
                    1 => { ranges.remove(Position(at)); set.remove(&at); }
                    _ => { ranges.forget_before(Position(at / 2)); set.retain(|known| *known >= at / 2); }
                }
                for position in 0..70 {
                    prop_assert_eq!(ranges.contains(Position(position)), set.contains(&position));
                }
                prop_assert_eq!(ranges.len(), set.len() as u64);
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges that touch: {:?}", all);
            }
        }
    }
}
