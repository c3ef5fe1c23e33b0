//! Objects of any kind that ours refer to: how they are found, and who is woken when one of them changes.
//!
//! Flow: a reconciler asks [`Look::find`] -> the reference is noted, the kind's cache is watched -> the object changes, comes or
//! goes, or its kind does -> the referrer's key is in the queue.
//! Always: a reference is noted before it is read, so no change is missed. The tables are bounded by the references of the
//! objects that exist; a kind is watched when something refers to it, once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kinglet_api::destination::{Lookup, Resolved, Resolver, Target, referenced};
use kinglet_api::duck::Destination;
use kinglet_reconcile::{Caches, Change, Context, Key, Queue, ResourceKind, ResourceKinds};
use parking_lot::Mutex;
use serde_json::Value;

/// An object whatever the version it is read in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Reference {
    group: String,
    kind: String,
    key: Key,
}

impl Reference {
    fn to(target: &Target) -> Self {
        Self {
            group: target.group.clone(),
            kind: target.kind.clone(),
            key: Key::new(target.namespace.as_str(), target.name.as_str()),
        }
    }
}

#[derive(Default)]
struct Tables {
    referrers: HashMap<Reference, BTreeSet<Key>>,
    references: HashMap<Key, BTreeSet<Reference>>,
    watched: HashSet<(String, String)>,
}

/// The references of one controller's objects. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Targets {
    caches: Caches,
    kinds: ResourceKinds,
    queue: Queue,
    tables: Arc<Mutex<Tables>>,
}

impl Targets {
    /// References whose referrers are woken through `queue`. Starts the task that follows the kinds.
    pub(crate) fn start(context: &Context, kinds: &ResourceKinds, queue: Queue) -> Self {
        let targets = Self {
            caches: context.caches().clone(),
            kinds: kinds.clone(),
            queue,
            tables: Arc::default(),
        };
        let following = targets.clone();
        context
            .tasks()
            .component_cancellable("targets", async move { following.follow_kinds().await });
        targets
    }

    /// Begins to look at what one object refers to.
    pub(crate) fn look(&self, referrer: &Key) -> Look<'_> {
        Look {
            targets: self,
            referrer: referrer.clone(),
            needed: BTreeSet::new(),
        }
    }

    /// Drops an object that is gone.
    pub(crate) fn forget(&self, referrer: &Key) {
        self.tables.lock().keep_only(referrer, &BTreeSet::new());
    }

    /// Wakes those whose references may mean something else now that a kind came or went.
    async fn follow_kinds(self) {
        let mut kinds = self.kinds.subscribe();
        let mut before: HashSet<(String, String)> = HashSet::new();
        loop {
            let now: HashSet<(String, String)> = kinds
                .borrow_and_update()
                .iter()
                .map(|kind| (kind.group.clone(), kind.kind.clone()))
                .collect();
            let changed: HashSet<_> = now.symmetric_difference(&before).cloned().collect();
            let woken = self.tables.lock().concerned(&changed);
            woken.into_iter().for_each(|key| self.queue.add(key));
            before = now;
            if kinds.changed().await.is_err() {
                return;
            }
        }
    }

    fn watch(&self, kind: &Arc<ResourceKind>) {
        let id = (kind.group.clone(), kind.kind.clone());
        if !self.tables.lock().watched.insert(id) {
            return;
        }
        let (tables, queue) = (Arc::clone(&self.tables), self.queue.clone());
        let (group, name) = (kind.group.clone(), kind.kind.clone());
        self.caches
            .dynamic(kind)
            .observe(move |change: &Change<_>| {
                if let Some(object) = change.object() {
                    let reference = Reference {
                        group: group.clone(),
                        kind: name.clone(),
                        key: object.head().key.clone(),
                    };
                    let woken = tables.lock().referrers.get(&reference).cloned();
                    for key in woken.into_iter().flatten() {
                        queue.add(key);
                    }
                }
                true
            });
    }
}

/// One look at what an object refers to.
pub(crate) struct Look<'t> {
    targets: &'t Targets,
    referrer: Key,
    needed: BTreeSet<Reference>,
}

impl Look<'_> {
    /// Finds an object of any kind.
    pub(crate) async fn find(&mut self, target: &Target) -> Lookup<Value> {
        let reference = Reference::to(target);
        self.needed.insert(reference.clone());
        self.targets.tables.lock().add(&self.referrer, reference);
        let Some(kind) = self.kind(target).await else {
            return Lookup::UnknownKind;
        };
        self.targets.watch(&kind);
        let cache = self.targets.caches.dynamic(&kind);
        cache.wait_synced().await;
        match cache.get(&target.namespace, &target.name) {
            Some(object) => Lookup::Found(object.value()),
            None => Lookup::Missing,
        }
    }

    /// The kind of an object, once the kinds are known.
    pub(crate) async fn kind(&self, target: &Target) -> Option<Arc<ResourceKind>> {
        let mut kinds = self.targets.kinds.subscribe();
        kinds.wait_for(|kinds| !kinds.is_empty()).await.ok()?;
        let api_version = match target.group.as_str() {
            "" => target.version.clone(),
            group => format!("{group}/{}", target.version),
        };
        self.targets.kinds.find(&api_version, &target.kind)
    }

    /// Where a destination of an object in `namespace` leads.
    pub(crate) async fn resolve(
        &mut self,
        resolver: Resolver<'_>,
        destination: &Destination,
        namespace: &str,
    ) -> Result<Resolved, String> {
        let found = match referenced(destination, namespace) {
            Some(target) => self.find(&target).await,
            None => Lookup::Missing,
        };
        resolver.resolve(destination, namespace, |_| match &found {
            Lookup::Found(object) => Lookup::Found(object),
            Lookup::Missing => Lookup::Missing,
            Lookup::UnknownKind => Lookup::UnknownKind,
        })
    }

    /// Drops the references that this look did not need.
    pub(crate) fn finish(self) {
        let mut tables = self.targets.tables.lock();
        tables.keep_only(&self.referrer, &self.needed);
    }
}

impl Tables {
    fn add(&mut self, referrer: &Key, reference: Reference) {
        let known = self.references.entry(referrer.clone()).or_default();
        if known.insert(reference.clone()) {
            let referrers = self.referrers.entry(reference).or_default();
            referrers.insert(referrer.clone());
        }
    }

    fn keep_only(&mut self, referrer: &Key, needed: &BTreeSet<Reference>) {
        let known = self.references.remove(referrer).unwrap_or_default();
        for gone in known.difference(needed) {
            if let Some(referrers) = self.referrers.get_mut(gone) {
                referrers.remove(referrer);
                if referrers.is_empty() {
                    self.referrers.remove(gone);
                }
            }
        }
        if !needed.is_empty() {
            self.references.insert(referrer.clone(), needed.clone());
        }
    }

    /// Who refers to one of these kinds. Their caches are watched anew, since a kind that comes back has another one.
    fn concerned(&mut self, kinds: &HashSet<(String, String)>) -> BTreeSet<Key> {
        self.watched.retain(|kind| !kinds.contains(kind));
        self.referrers
            .iter()
            .filter(|(reference, _)| {
                kinds.contains(&(reference.group.clone(), reference.kind.clone()))
            })
            .flat_map(|(_, referrers)| referrers.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(kind: &str, name: &str) -> Reference {
        Reference {
            group: "g".to_owned(),
            kind: kind.to_owned(),
            key: Key::new("a", name),
        }
    }

    #[test]
    fn references_come_and_go_with_their_kinds() {
        let key = |name: &str| Key::new("a", name);
        let mut tables = Tables::default();
        tables.add(&key("r"), to("One", "x"));
        tables.add(&key("r"), to("Two", "x"));
        tables.add(&key("s"), to("Two", "x"));
        tables.watched.insert(("g".to_owned(), "Two".to_owned()));
        let two = HashSet::from([("g".to_owned(), "Two".to_owned())]);
        assert_eq!(tables.concerned(&two), BTreeSet::from([key("r"), key("s")]));
        assert!(tables.watched.is_empty());
        tables.keep_only(&key("r"), &BTreeSet::from([to("One", "x")]));
        assert_eq!(tables.concerned(&two), BTreeSet::from([key("s")]));
        tables.keep_only(&key("s"), &BTreeSet::new());
        assert!(tables.concerned(&two).is_empty());
        assert_eq!(tables.referrers.len(), 1);
    }
}
