//! Who must be woken when something changes that a Route refers to, be it there or not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_reconcile::Key;
use parking_lot::Mutex;

/// Something that a Route refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Reference {
    Configuration(Key),
    Revision(Key),
}

/// References in both directions. Bounded by the references of the Routes that exist.
#[derive(Clone, Default)]
pub(super) struct Tracker(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    routes: HashMap<Reference, BTreeSet<Key>>,
    references: HashMap<Key, BTreeSet<Reference>>,
}

impl Tracker {
    /// Notes further references of a Route. To be called before they are read, so that no change is missed.
    pub(super) fn add(&self, route: &Key, reference: Reference) {
        let mut tables = self.0.lock();
        let new = tables
            .references
            .entry(route.clone())
            .or_default()
            .insert(reference.clone());
        if new {
            tables
                .routes
                .entry(reference)
                .or_default()
                .insert(route.clone());
        }
    }

    /// Drops the references that a look at the Route did not need.
    pub(super) fn keep_only(&self, route: &Key, needed: &BTreeSet<Reference>) {
        let mut tables = self.0.lock();
        let known = tables.references.remove(route).unwrap_or_default();
        for gone in known.difference(needed) {
            tables.unlink(route, gone);
        }
        if !needed.is_empty() {
            tables.references.insert(route.clone(), needed.clone());
        }
    }

    /// Drops a Route.
    pub(super) fn forget(&self, route: &Key) {
        self.keep_only(route, &BTreeSet::new());
    }

    /// The Routes that refer to something.
    pub(super) fn routes_to(&self, reference: &Reference) -> BTreeSet<Key> {
        self.0
            .lock()
            .routes
            .get(reference)
            .cloned()
            .unwrap_or_default()
    }
}

impl Tables {
    fn unlink(&mut self, route: &Key, reference: &Reference) {
        if let Some(routes) = self.routes.get_mut(reference) {
            routes.remove(route);
            if routes.is_empty() {
                self.routes.remove(reference);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_and_go() {
        let tracker = Tracker::default();
        let key = |name: &str| Key::new("a", name);
        let (one, two) = (
            Reference::Revision(key("x-1")),
            Reference::Configuration(key("x")),
        );
        tracker.add(&key("r"), one.clone());
        tracker.add(&key("r"), two.clone());
        tracker.add(&key("s"), two.clone());
        assert_eq!(
            tracker.routes_to(&two),
            BTreeSet::from([key("r"), key("s")])
        );
        tracker.keep_only(&key("r"), &BTreeSet::from([one.clone()]));
        assert_eq!(tracker.routes_to(&two), BTreeSet::from([key("s")]));
        tracker.forget(&key("r"));
        assert!(tracker.routes_to(&one).is_empty());
    }
}
