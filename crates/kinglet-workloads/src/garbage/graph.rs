//! Who belongs to whom, and what follows from a change: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kinglet_reconcile::{Head, Owner, ResourceKind};

/// Finalizer of an object whose dependants go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependants shall be left alone.
pub(super) const ORPHAN: &str = "orphan";
/// An owner that the graph does not know may be on its way in another watch; so long it is waited for.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// One object. The head is the cache's own.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Arc<ResourceKind>,
    pub(super) head: Arc<Head>,
}

impl Node {
    /// Path of the object.
    pub(super) fn path(&self) -> String {
        let key = &self.head.key;
        format!("{}/{}", self.kind.path(Some(&key.namespace)), key.name)
    }

    /// Whether it has this finalizer.
    pub(super) fn has(&self, finalizer: &str) -> bool {
        self.head
            .finalizers
            .iter()
            .any(|known| **known == *finalizer)
    }

    fn waits_for_dependants(&self) -> bool {
        self.head.deleting && self.has(FOREGROUND)
    }

    fn orphans_dependants(&self) -> bool {
        self.head.deleting && self.has(ORPHAN)
    }
}

/// A uid to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    Now(Arc<str>),
    Later(Arc<str>),
}

/// What an object needs.
#[derive(Debug)]
pub(super) enum Task {
    Nothing,
    /// Let the dependants go, then take the finalizer off.
    Orphan {
        object: Node,
        dependants: Vec<Node>,
    },
    /// Delete these dependants; when nothing blocks any more, take the finalizer off.
    Foreground {
        object: Node,
        dependants: Vec<Node>,
        blocked: bool,
    },
    /// Look at the owners: `unknown` ones must be asked for.
    Owners {
        object: Node,
        present: Vec<Owner>,
        waiting: Vec<Owner>,
        unknown: Vec<Owner>,
        has_dependants: bool,
    },
}

/// Every object, by uid.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: HashMap<Arc<str>, Node>,
    /// Owner uid to the uids that name it, whether or not the owner is known.
    dependants: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl Graph {
    /// An object is there, or has changed.
    pub(super) fn put(&mut self, kind: &Arc<ResourceKind>, head: &Arc<Head>) -> Vec<Wake> {
        let uid = Arc::clone(&head.uid);
        let node = Node {
            kind: Arc::clone(kind),
            head: Arc::clone(head),
        };
        let before = self.nodes.insert(Arc::clone(&uid), node.clone());
        let mut wakes = BTreeMap::new();
        if let Some(before) = &before {
            self.unlink(before);
            // A reference that was taken off may have been what its owner waited for.
            for owner in &before.head.owners {
                if self
                    .nodes
                    .get(&owner.uid)
                    .is_some_and(Node::waits_for_dependants)
                {
                    wakes.insert(Arc::clone(&owner.uid), true);
                }
            }
        }
        for owner in &node.head.owners {
            self.dependants
                .entry(Arc::clone(&owner.uid))
                .or_default()
                .insert(Arc::clone(&uid));
        }
        if node.waits_for_dependants() || node.orphans_dependants() {
            wakes.insert(Arc::clone(&uid), true);
        }
        for owner in &node.head.owners {
            match self.nodes.get(&owner.uid) {
                None => {
                    wakes.entry(Arc::clone(&uid)).or_insert(false);
                }
                Some(owner) if owner.waits_for_dependants() => {
                    wakes.insert(Arc::clone(&owner.head.uid), true);
                }
                Some(_) => {}
            }
        }
        wakes
            .into_iter()
            .map(|(uid, now)| {
                if now {
                    Wake::Now(uid)
                } else {
                    Wake::Later(uid)
                }
            })
            .collect()
    }

    /// An object is gone: its dependants must be looked at, and owners that wait for it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Wake> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        self.unlink(&node);
        let mut wakes: Vec<Wake> = self
            .dependants
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .map(Wake::Now)
            .collect();
        let waiting = node.head.owners.iter().filter(|owner| {
            self.nodes
                .get(&owner.uid)
                .is_some_and(Node::waits_for_dependants)
        });
        wakes.extend(waiting.map(|owner| Wake::Now(Arc::clone(&owner.uid))));
        wakes
    }

    /// A kind is no longer served, so its objects are gone.
    pub(super) fn forget_kind(&mut self, kind: &Arc<ResourceKind>) -> Vec<Wake> {
        let of_kind = |node: &&Node| node.kind == *kind;
        let gone = self.nodes.values().filter(of_kind);
        let gone: Vec<_> = gone.map(|node| Arc::clone(&node.head.uid)).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// Objects with an owner that the graph does not know, to be looked at once more.
    pub(super) fn with_unknown_owners(&self) -> Vec<Wake> {
        let unknown = |node: &&Node| {
            let mut owners = node.head.owners.iter();
            owners.any(|owner| !self.nodes.contains_key(&owner.uid))
        };
        let found = self.nodes.values().filter(unknown);
        found
            .map(|node| Wake::Later(Arc::clone(&node.head.uid)))
            .collect()
    }

    /// Uids of all objects with something to do, for who begins to look after them.
    pub(super) fn unsettled(&self) -> Vec<Arc<str>> {
        let settled = |owner: &Owner| {
            let known = self.nodes.get(&owner.uid);
            known.is_some_and(|owner| !owner.waits_for_dependants())
        };
        let unsettled = |node: &&Node| {
            node.waits_for_dependants()
                || node.orphans_dependants()
                || !node.head.owners.iter().all(settled)
        };
        let found = self.nodes.values().filter(unsettled);
        found.map(|node| Arc::clone(&node.head.uid)).collect()
    }

    /// What an object needs.
    pub(super) fn task(&self, uid: &str) -> Task {
        let Some(node) = self.nodes.get(uid) else {
            return Task::Nothing;
        };
        let object = node.clone();
        if node.orphans_dependants() {
            return Task::Orphan {
                object,
                dependants: self.dependants_of(uid).cloned().collect(),
            };
        }
        if node.waits_for_dependants() {
            let dependants: Vec<Node> = self.dependants_of(uid).cloned().collect();
            let blocks = |dependant: &Node| {
                dependant
                    .head
                    .owners
                    .iter()
                    .any(|owner| &*owner.uid == uid && owner.block_owner_deletion == Some(true))
            };
            let blocked = dependants.iter().any(blocks);
            return Task::Foreground {
                object,
                dependants,
                blocked,
            };
        }
        if node.head.deleting || node.head.owners.is_empty() {
            return Task::Nothing;
        }
        let (mut present, mut waiting, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &node.head.owners {
            match self.nodes.get(&owner.uid) {
                None => unknown.push(owner.clone()),
                Some(found) if found.waits_for_dependants() => waiting.push(owner.clone()),
                Some(_) => present.push(owner.clone()),
            }
        }
        let has_dependants = self.dependants_of(uid).next().is_some();
        Task::Owners {
            object,
            present,
            waiting,
            unknown,
            has_dependants,
        }
    }

    fn dependants_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Node> {
        self.dependants
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|uid| self.nodes.get(uid))
    }

    fn unlink(&mut self, node: &Node) {
        for owner in &node.head.owners {
            if let Some(all) = self.dependants.get_mut(&owner.uid) {
                all.remove(&node.head.uid);
                if all.is_empty() {
                    self.dependants.remove(&owner.uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_reconcile::Key;

    fn kind() -> Arc<ResourceKind> {
        Arc::new(ResourceKind {
            group: String::new(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
            namespaced: true,
            delete_collection: true,
        })
    }

    fn object(uid: &str, owners: &[&str], deleting_with: Option<&str>) -> Arc<Head> {
        let owner = |uid: &&str| Owner {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: (*uid).into(),
            uid: (*uid).into(),
            controller: None,
            block_owner_deletion: Some(true),
        };
        Arc::new(Head {
            key: Key::new("a", uid),
            uid: uid.into(),
            version: 1,
            deleting: deleting_with.is_some(),
            finalizers: deleting_with.into_iter().map(Arc::from).collect(),
            labels: [].into(),
            owners: owners.iter().map(owner).collect(),
        })
    }

    fn now(uid: &str) -> Wake {
        Wake::Now(uid.into())
    }

    #[test]
    fn dependants_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.put(&kind(), &object("o", &[], None)).is_empty());
        assert!(graph.put(&kind(), &object("d", &["o"], None)).is_empty());
        assert_eq!(graph.remove("o"), [now("d")]);
        let Task::Owners {
            unknown, present, ..
        } = graph.task("d")
        else {
            panic!("owners are looked at")
        };
        assert_eq!((unknown.len(), present.len()), (1, 0));
    }

    #[test]
    fn an_unknown_owner_is_waited_for_a_moment() {
        let mut graph = Graph::default();
        assert_eq!(
            graph.put(&kind(), &object("d", &["o"], None)),
            [Wake::Later("d".into())]
        );
        assert_eq!(graph.with_unknown_owners(), [Wake::Later("d".into())]);
        graph.put(&kind(), &object("o", &[], None));
        assert_eq!(graph.with_unknown_owners(), []);
        let Task::Owners {
            unknown, present, ..
        } = graph.task("d")
        else {
            panic!("owners are looked at")
        };
        assert_eq!((unknown.len(), present.len()), (0, 1));
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependants() {
        let mut graph = Graph::default();
        graph.put(&kind(), &object("o", &[], None));
        graph.put(&kind(), &object("d", &["o"], None));
        assert_eq!(
            graph.put(&kind(), &object("o", &[], Some(FOREGROUND))),
            [now("o")]
        );
        let Task::Foreground {
            blocked,
            dependants,
            ..
        } = graph.task("o")
        else {
            panic!("dependants go first")
        };
        assert!(blocked && dependants.len() == 1);
        assert_eq!(graph.remove("d"), [now("o")]);
        assert!(matches!(
            graph.task("o"),
            Task::Foreground { blocked: false, .. }
        ));
    }

    /// Who gains the leadership of a bucket finds the uids that have something to do, not names.
    #[test]
    fn what_is_unsettled_is_named_by_its_uid() {
        let mut graph = Graph::default();
        graph.put(&kind(), &object("o", &[], None));
        graph.put(&kind(), &object("d", &["o"], None));
        assert!(graph.unsettled().is_empty());
        graph.put(&kind(), &object("alone", &["unknown"], None));
        graph.put(&kind(), &object("o", &[], Some(FOREGROUND)));
        graph.put(&kind(), &object("going", &[], Some(ORPHAN)));
        let mut unsettled = graph.unsettled();
        unsettled.sort_unstable();
        assert_eq!(unsettled, ["alone", "d", "going", "o"].map(Arc::from));
    }

    #[test]
    fn orphaning_names_the_dependants() {
        let mut graph = Graph::default();
        graph.put(&kind(), &object("d", &["o"], None));
        let wakes = graph.put(&kind(), &object("o", &[], Some(ORPHAN)));
        assert_eq!(wakes, [now("o")]);
        assert!(
            matches!(graph.task("o"), Task::Orphan { dependants, .. } if dependants.len() == 1)
        );
    }

    #[test]
    fn a_kind_that_goes_takes_its_objects_with_it() {
        let other = Arc::new(ResourceKind {
            plural: "others".into(),
            kind: "Other".into(),
            group: String::new(),
            version: "v1".into(),
            namespaced: true,
            delete_collection: true,
        });
        let mut graph = Graph::default();
        graph.put(&other, &object("o", &[], None));
        graph.put(&kind(), &object("d", &["o"], None));
        assert_eq!(graph.forget_kind(&other), [now("d")]);
        assert!(graph.dependants.contains_key("o"));
        graph.remove("d");
        assert!(graph.dependants.is_empty() && graph.nodes.is_empty());
    }
}
