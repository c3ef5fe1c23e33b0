//! Ranges of the host's user and group ids for pods with a user namespace of their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::names::HostNames;
use crate::sys::user_namespace::IDS;

/// Pods of one data directory: as many as its network has addresses for.
const RANGES: u32 = 1024;
/// Below are the ids of people, services and `/etc/subuid` (600,100,000 by default).
const FIRST_ID: u32 = 1 << 30;
/// Data directories whose ranges do not overlap, if their names fall apart.
const BLOCKS: u32 = 32;

/// The ranges of one data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct IdRanges {
    first_id: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

/// One range, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    ranges: IdRanges,
    number: u32,
}

impl IdRanges {
    pub(crate) fn new(names: &HostNames) -> Self {
        let block = names.number() % BLOCKS;
        Self {
            first_id: FIRST_ID + block * RANGES * IDS,
            taken: Arc::default(),
        }
    }

    /// The lowest free range; `None` when all are taken.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let mut taken = self.taken.lock();
        let number = (0..RANGES).find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(Lease {
            ranges: self.clone(),
            number,
        })
    }
}

impl Lease {
    /// The host's id of the pod's root.
    pub(crate) fn first_id(&self) -> u32 {
        self.ranges.first_id + self.number * IDS
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ranges.taken.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_come_back() {
        let ranges = IdRanges::new(&HostNames::new(std::path::Path::new("/data")));
        let all: Vec<Lease> = std::iter::from_fn(|| ranges.lease()).collect();
        assert_eq!(all.len(), 1024);
        for pair in all.windows(2) {
            assert_eq!(pair[1].first_id() - pair[0].first_id(), IDS);
        }
        assert!(all[0].first_id() >= FIRST_ID);
        assert!(all[1023].first_id().checked_add(IDS).is_some());
        let freed = all[7].first_id();
        drop(all);
        let again: Vec<Lease> = (0..8).filter_map(|_| ranges.lease()).collect();
        assert_eq!(again[7].first_id(), freed);
    }
}
