//! The store against what must hold, and against a model that holds typed objects and searches everything.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::{key_of, uid_of, version_of};

const FIELD: Index = Index::Field {
    plural: "configmaps",
    pointer: "/data/on",
};

fn raw(name: &str, uid: &str, version: u64) -> Bytes {
    Bytes::from(
        json!({
            "metadata": {"namespace": "a", "name": name, "uid": uid, "resourceVersion": version.to_string(), "labels": {"app": name}},
            "data": {"on": format!("n{version}")},
        })
        .to_string(),
    )
}

fn store() -> Store {
    Store::new(&[Index::Label("app"), FIELD], "configmaps", Arc::default())
}

impl Store {
    fn take(&self, raw: &Bytes) {
        Sink::applied(self, raw).unwrap();
    }

    fn version(&self, name: &str) -> u64 {
        self.get("a", name)
            .map_or(0, |object| object.head().version)
    }
}

#[test]
fn an_older_version_never_wins() {
    let store = store();
    store.take(&raw("x", "1", 7));
    store.take(&raw("x", "1", 5));
    assert_eq!(store.version("x"), 7);
}

#[test]
fn what_is_gone_does_not_come_back_under_its_uid() {
    let store = store();
    store.take(&raw("x", "1", 7));
    store.remove(&Key::new("a", "x"), "1", 8);
    store.take(&raw("x", "1", 9));
    assert!(store.get("a", "x").is_none());
    store.take(&raw("x", "2", 10));
    assert_eq!(&*store.get("a", "x").unwrap().head().uid, "2");
}

#[test]
fn a_late_deletion_of_the_former_leaves_the_successor() {
    let store = store();
    store.take(&raw("x", "2", 10));
    store.remove(&Key::new("a", "x"), "1", 8);
    assert_eq!(store.version("x"), 10);
}

#[test]
fn a_listing_sweeps_what_it_does_not_mention_but_not_what_is_newer() {
    let store = store();
    store.take(&raw("old", "1", 3));
    store.take(&raw("new", "2", 30));
    store.begin();
    store.take(&raw("kept", "3", 4));
    Sink::end(&store, 20);
    assert!(store.get("a", "old").is_none());
    assert!(store.get("a", "new").is_some() && store.get("a", "kept").is_some());
}

#[test]
fn selection_uses_labels_indexed_or_not() {
    for indexes in [&[Index::Label("app")][..], &[]] {
        let store = Store::new(indexes, "configmaps", Arc::default());
        store.take(&raw("x", "1", 1));
        store.take(&raw("y", "2", 2));
        let wanted = Selector::from([("app", "y")]);
        let names: Vec<_> = store.select("a", &wanted);
        assert_eq!(names.len(), 1);
        assert_eq!(&*names[0].head().key.name, "y");
        assert!(store.select("b", &wanted).is_empty());
    }
}

#[test]
fn fields_are_indexed_as_they_change() {
    let store = store();
    store.take(&raw("x", "1", 1));
    assert_eq!(store.by(FIELD, "n1").len(), 1);
    store.take(&raw("x", "1", 2));
    assert_eq!(store.by(FIELD, "n1").len(), 0);
    assert_eq!(store.by(FIELD, "n2").len(), 1);
    store.remove(&Key::new("a", "x"), "1", 3);
    assert_eq!(store.by(FIELD, "n2").len(), 0);
    let other = Store::new(&[FIELD], "secrets", Arc::default());
    other.take(&raw("x", "1", 1));
    assert_eq!(other.by(FIELD, "n1").len(), 0);
}

#[test]
fn a_typed_copy_is_kept_while_it_is_read() {
    let store = store();
    let bytes = raw("x", "1", 1);
    store.take(&bytes);
    let typed = || store.memory("").typed;
    assert_eq!(typed(), 0);
    let object = store.get("a", "x").unwrap();
    assert_eq!(object.raw().as_ptr(), bytes.as_ptr());
    let first = object.typed::<ConfigMap>().unwrap();
    assert!(Arc::ptr_eq(&first, &object.typed().unwrap()));
    store.sweep();
    assert_eq!(typed(), 1);
    object.typed::<ConfigMap>();
    store.sweep();
    assert_eq!(typed(), 1);
    store.sweep();
    assert_eq!(typed(), 0);
    assert_eq!(uid_of(&*object.typed::<ConfigMap>().unwrap()), "1");
    assert_eq!(store.memory("").raw, bytes.len());
}

#[test]
fn what_does_not_fit_the_type_is_left_out() {
    let store = store();
    store.take(&Bytes::from(
        json!({"metadata": {"namespace": "a", "name": "x", "uid": "1"}, "data": 5}).to_string(),
    ));
    assert!(store.get("a", "x").unwrap().typed::<ConfigMap>().is_none());
}

/// The rules in their simplest form.
#[derive(Default)]
struct Model {
    objects: BTreeMap<Key, ConfigMap>,
    gone: HashSet<String>,
    listing: Option<HashSet<Key>>,
    log: Vec<(Option<u64>, Option<u64>)>,
}

impl Model {
    fn put(&mut self, object: &ConfigMap, only_known: bool) {
        let key = key_of(object);
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        if !uid_of(object).is_empty() && self.gone.contains(uid_of(object)) {
            return;
        }
        let version = version_of(object.meta());
        let mut old = None;
        match self.objects.get(&key) {
            None if only_known => return,
            None => {}
            Some(known) if uid_of(known) == uid_of(object) => {
                if version != 0 && version <= version_of(known.meta()) {
                    return;
                }
                old = Some(version_of(known.meta()));
            }
            Some(known) if version != 0 && version < version_of(known.meta()) => return,
            Some(known) => self.log.push((Some(version_of(known.meta())), None)),
        }
        self.log.push((old, Some(version)));
        self.objects.insert(key, object.clone());
    }

    fn remove(&mut self, key: &Key, uid: &str, version: u64) {
        if !uid.is_empty() {
            self.gone.insert(uid.to_owned());
        }
        let Some(known) = self.objects.get(key) else {
            return;
        };
        let at = version_of(known.meta());
        if !uid.is_empty() && uid_of(known) != uid && version < at {
            return;
        }
        self.log.push((Some(at), None));
        self.objects.remove(key);
    }

    fn end(&mut self, listed_at: u64) {
        let Some(mentioned) = self.listing.take() else {
            return;
        };
        let unmentioned = |(key, known): &(&Key, &ConfigMap)| {
            version_of(known.meta()) <= listed_at && !mentioned.contains(key)
        };
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(unmentioned)
            .map(|(key, known)| (key.clone(), uid_of(known).to_owned()))
            .collect();
        for (key, uid) in gone {
            self.remove(&key, &uid, listed_at);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Applied(ConfigMap),
    Absorbed(ConfigMap, bool),
    Deleted(ConfigMap),
    Forgotten(ConfigMap),
    Begin,
    End(u64),
    Sweep,
}

fn object() -> impl Strategy<Value = ConfigMap> {
    let label = prop::option::of(0..3_u8);
    let owners = prop::collection::vec(0..3_u8, 0..3);
    (0..2_u8, 0..3_u8, 0..5_u8, 0..12_u64, label, owners).prop_map(
        |(namespace, name, uid, version, label, owners)| {
            let owner = |uid: &u8| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": format!("o{uid}")});
            let owners: Vec<_> = owners.iter().map(owner).collect();
            let labels = label.map(|label| json!({"app": format!("l{label}"), "other": "x"}));
            serde_json::from_value(json!({"metadata": {
                "namespace": format!("n{namespace}"), "name": format!("x{name}"), "labels": labels, "ownerReferences": owners,
                "uid": (uid > 0).then(|| format!("u{namespace}{name}{uid}")), "resourceVersion": version.to_string(),
            }}))
            .unwrap()
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => object().prop_map(Step::Applied),
        4 => (object(), any::<bool>()).prop_map(|(object, known)| Step::Absorbed(object, known)),
        3 => object().prop_map(Step::Deleted),
        2 => object().prop_map(Step::Forgotten),
        1 => Just(Step::Begin),
        1 => (0..12_u64).prop_map(Step::End),
        1 => Just(Step::Sweep),
    ]
}

fn bytes(object: &ConfigMap) -> Bytes {
    Bytes::from(serde_json::to_vec(object).unwrap())
}

fn run(store: &Store, model: &mut Model, step: &Step) {
    match step {
        Step::Applied(object) => {
            store.take(&bytes(object));
            model.put(object, false);
        }
        Step::Absorbed(object, known) => {
            let shared = Arc::new(object.clone());
            store.absorb(&bytes(object), &shared, *known).unwrap();
            model.put(object, *known);
        }
        Step::Deleted(object) => {
            Sink::deleted(store, &bytes(object)).unwrap();
            let version = version_of(object.meta());
            model.remove(&key_of(object), uid_of(object), version);
        }
        Step::Forgotten(object) => {
            store.remove(&key_of(object), uid_of(object), 0);
            model.remove(&key_of(object), uid_of(object), 0);
        }
        Step::Begin => {
            store.begin();
            model.listing = Some(HashSet::new());
        }
        Step::End(version) => {
            Sink::end(store, *version);
            model.end(*version);
        }
        Step::Sweep => {
            store.sweep();
        }
    }
}

fn typed(objects: &[Shared]) -> Vec<ConfigMap> {
    let typed = |object: &Shared| (*object.typed::<ConfigMap>().unwrap()).clone();
    objects.iter().map(typed).collect()
}

fn blank(mut object: ConfigMap) -> ConfigMap {
    object.metadata.owner_references = object
        .metadata
        .owner_references
        .filter(|owners| !owners.is_empty());
    object
}

proptest! {
    /// Whatever happens in whatever order, the store says what the model says, and tells what the model tells.
    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60), indexed in any::<bool>()) {
        let indexes: &[Index] = if indexed { &[Index::Label("app")] } else { &[] };
        let store = Store::new(indexes, "configmaps", Arc::default());
        let log = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&log);
        store.observe(Box::new(move |change| {
            told.lock().push(match change {
                Change::Applied { old, new } => (old.as_ref().map(|old| old.head().version), Some(new.head().version)),
                Change::Deleted(last) => (Some(last.head().version), None),
                Change::Resync => unreachable!(),
            });
            true
        }));
        let mut model = Model::default();
        for step in &steps {
            run(&store, &mut model, step);
            prop_assert_eq!(&*log.lock(), &model.log);
            let all = typed(&store.all()).into_iter().map(blank).collect::<Vec<_>>();
            prop_assert_eq!(&all, &model.objects.values().cloned().map(blank).collect::<Vec<_>>());
            prop_assert_eq!(store.len(), model.objects.len());
            for number in 0..3 {
                let (owner, label) = (format!("o{number}"), format!("l{number}"));
                let owned = |object: &&ConfigMap| object.metadata.owner_references.iter().flatten().any(|found| found.uid == owner);
                let expected: Vec<_> = model.objects.values().filter(owned).cloned().collect();
                prop_assert_eq!(typed(&store.by_owner(&owner)), expected);
                let labelled = |object: &&ConfigMap| {
                    object.metadata.namespace.as_deref() == Some("n0")
                        && object.metadata.labels.as_ref().and_then(|labels| labels.get("app")) == Some(&label)
                };
                let expected: Vec<_> = model.objects.values().filter(labelled).cloned().map(blank).collect();
                let found = store.select("n0", &Selector::from([("app", label.as_str())]));
                prop_assert_eq!(typed(&found).into_iter().map(blank).collect::<Vec<_>>(), expected);
            }
        }
    }
}
