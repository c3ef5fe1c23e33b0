//! Who belongs to whom, and what follows from a change: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::discover::ResourceKind;

/// Finalizer of an object whose dependants go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependants shall be left alone.
pub(super) const ORPHAN: &str = "orphan";
/// An owner that the graph does not know may be on its way in another watch; so long it is waited for.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// The metadata that matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) resource_version: String,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) finalizers: Option<Vec<String>>,
    pub(super) owner_references: Option<Vec<RawOwnerReference>>,
}

/// One owner reference as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawOwnerReference {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

/// One owner reference, kept whole so that it can be written back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    pub(super) controller: Option<bool>,
    pub(super) block_owner_deletion: Option<bool>,
}

impl Owner {
    /// The reference as it is written.
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({"apiVersion": *self.api_version, "kind": *self.kind, "name": *self.name, "uid": *self.uid});
        for (field, value) in [
            ("controller", self.controller),
            ("blockOwnerDeletion", self.block_owner_deletion),
        ] {
            if let Some(value) = value {
                out[field] = json!(value);
            }
        }
        out
    }
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Arc<ResourceKind>,
    pub(super) uid: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) version: Box<str>,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) owners: Vec<Owner>,
}

impl Node {
    /// Path of the object.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.kind.path(Some(&self.namespace)), self.name)
    }

    fn waits_for_dependants(&self) -> bool {
        self.deleting
            && self
                .finalizers
                .iter()
                .any(|finalizer| finalizer == FOREGROUND)
    }

    fn orphans_dependants(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == ORPHAN)
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
    /// Strings that many nodes share.
    words: BTreeSet<Arc<str>>,
}

impl Graph {
    /// An object is there, or has changed.
    pub(super) fn put(&mut self, kind: &Arc<ResourceKind>, metadata: Metadata) -> Vec<Wake> {
        let uid: Arc<str> = match self.nodes.get_key_value(metadata.uid.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(metadata.uid),
        };
        let owners: Vec<Owner> = metadata
            .owner_references
            .into_iter()
            .flatten()
            .map(|owner| self.collector(owner))
            .collect();
        let node = Node {
            kind: Arc::clone(kind),
            uid: Arc::clone(&uid),
            name: Arc::from(metadata.name),
            namespace: self.word(&metadata.namespace),
            version: metadata.resource_version.into(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            owners,
        };
        let before = self.nodes.insert(Arc::clone(&uid), node.clone());
        let mut wakes = BTreeMap::new();
        if let Some(before) = &before {
            self.unlink(before);
            // A reference that was taken off may have been what its owner waited for.
            for owner in &before.owners {
                if self
                    .nodes
                    .get(&owner.uid)
                    .is_some_and(Node::waits_for_dependants)
                {
                    wakes.insert(Arc::clone(&owner.uid), true);
                }
            }
        }
        for owner in &node.owners {
            self.dependants
                .entry(Arc::clone(&owner.uid))
                .or_default()
                .insert(Arc::clone(&uid));
        }
        if node.waits_for_dependants() || node.orphans_dependants() {
            wakes.insert(Arc::clone(&uid), true);
        }
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                None => {
                    wakes.entry(Arc::clone(&uid)).or_insert(false);
                }
                Some(owner) if owner.waits_for_dependants() => {
                    wakes.insert(Arc::clone(&owner.uid), true);
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
        let waiting = node.owners.iter().filter(|owner| {
            self.nodes
                .get(&owner.uid)
                .is_some_and(Node::waits_for_dependants)
        });
        wakes.extend(waiting.map(|owner| Wake::Now(Arc::clone(&owner.uid))));
        wakes
    }

    /// What a complete listing of a kind did not mention is gone.
    pub(super) fn sweep(
        &mut self,
        kind: &Arc<ResourceKind>,
        mentioned: &HashSet<Arc<str>>,
    ) -> Vec<Wake> {
        let gone = |node: &&Node| node.kind == *kind && !mentioned.contains(&node.uid);
        let gone: Vec<Arc<str>> = self
            .nodes
            .values()
            .filter(gone)
            .map(|node| Arc::clone(&node.uid))
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// A kind is no longer served, so its objects are gone.
    pub(super) fn forget_kind(&mut self, kind: &Arc<ResourceKind>) -> Vec<Wake> {
        self.sweep(kind, &HashSet::new())
    }

    /// Objects with an owner that the graph does not know, to be looked at once more.
    pub(super) fn with_unknown_owners(&self) -> Vec<Wake> {
        let unknown = |node: &&Node| {
            let mut owners = node.owners.iter();
            owners.any(|owner| !self.nodes.contains_key(&owner.uid))
        };
        let found = self.nodes.values().filter(unknown);
        found
            .map(|node| Wake::Later(Arc::clone(&node.uid)))
            .collect()
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
        if node.deleting || node.owners.is_empty() {
            return Task::Nothing;
        }
        let (mut present, mut waiting, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &node.owners {
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
        for owner in &node.owners {
            if let Some(all) = self.dependants.get_mut(&owner.uid) {
                all.remove(&node.uid);
                if all.is_empty() {
                    self.dependants.remove(&owner.uid);
                }
            }
        }
    }

    fn collector(&mut self, owner: RawOwnerReference) -> Owner {
        let RawOwnerReference {
            api_version,
            kind,
            name,
            uid,
            controller,
            block_owner_deletion,
        } = owner;
        let known = self
            .nodes
            .get_key_value(uid.as_str())
            .map(|(known, _)| Arc::clone(known));
        Owner {
            api_version: self.word(&api_version),
            kind: self.word(&kind),
            name: Arc::from(name),
            uid: known.unwrap_or_else(|| Arc::from(uid)),
            controller,
            block_owner_deletion,
        }
    }

    /// Namespaces, kinds and versions: few different ones, so they are kept for good.
    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.words.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = Arc::from(text);
        self.words.insert(Arc::clone(&word));
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn object(uid: &str, owners: &[&str], extra: Value) -> Metadata {
        let owners: Vec<Value> = owners.iter().map(|uid| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid, "blockOwnerDeletion": true})).collect();
        let mut meta =
            json!({"uid": uid, "name": uid, "namespace": "a", "ownerReferences": owners});
        for (key, value) in extra.as_object().unwrap() {
            meta[key] = value.clone();
        }
        serde_json::from_value(meta).unwrap()
    }

    fn foreground() -> Value {
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]})
    }

    fn now(uid: &str) -> Wake {
        Wake::Now(uid.into())
    }

    #[test]
    fn dependants_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.put(&kind(), object("o", &[], json!({}))).is_empty());
        assert!(
            graph
                .put(&kind(), object("d", &["o"], json!({})))
                .is_empty()
        );
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
            graph.put(&kind(), object("d", &["o"], json!({}))),
            [Wake::Later("d".into())]
        );
        assert_eq!(graph.with_unknown_owners(), [Wake::Later("d".into())]);
        graph.put(&kind(), object("o", &[], json!({})));
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
        graph.put(&kind(), object("o", &[], json!({})));
        graph.put(&kind(), object("d", &["o"], json!({})));
        assert_eq!(
            graph.put(&kind(), object("o", &[], foreground())),
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

    #[test]
    fn orphaning_names_the_dependants() {
        let mut graph = Graph::default();
        graph.put(&kind(), object("d", &["o"], json!({})));
        let wakes = graph.put(
            &kind(),
            object(
                "o",
                &[],
                json!({"deletionTimestamp": "t", "finalizers": [ORPHAN]}),
            ),
        );
        assert_eq!(wakes, [now("o")]);
        assert!(
            matches!(graph.task("o"), Task::Orphan { dependants, .. } if dependants.len() == 1)
        );
    }

    #[test]
    fn a_listing_sweeps_what_it_does_not_mention() {
        let mut graph = Graph::default();
        graph.put(&kind(), object("o", &[], json!({})));
        graph.put(&kind(), object("d", &["o"], json!({})));
        assert_eq!(
            graph.sweep(&kind(), &HashSet::from([Arc::from("d")])),
            [now("d")]
        );
        assert!(graph.dependants.contains_key("o"));
        graph.remove("d");
        assert!(graph.dependants.is_empty() && graph.nodes.is_empty());
    }
}
