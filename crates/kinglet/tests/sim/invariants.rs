//! What must hold at every change, read from the store's own history, and what must hold at rest.

use std::collections::{BTreeMap, HashMap, HashSet};

use kinglet_store::{Change, Store, Watch};
use serde_json::Value;

use crate::world::{World, condition};

/// Follows every change since it was made.
pub(crate) struct Observer {
    watch: Watch,
    store: Store,
    /// Uids of everything that exists.
    alive: HashMap<String, Value>,
    /// The spec of every Revision ever, by uid.
    revisions: HashMap<String, Value>,
    /// Children that went when their owner had gone: kind, name, uid of the owner.
    mourned: HashSet<(String, String, String)>,
    /// How often each kind was created.
    pub(crate) created: BTreeMap<String, usize>,
}

impl Observer {
    pub(crate) fn new(world: &World) -> Self {
        let store = world.api.store().clone();
        let before = store.list("", None, 0, None).unwrap();
        // Owners of what is made later, such as slices of the Endpoints there are from the start.
        let alive = before
            .entries
            .iter()
            .map(|(_, entry)| serde_json::from_slice::<Value>(&entry.value).unwrap())
            .map(|object| (text(&object, "/metadata/uid"), object))
            .collect();
        Self {
            watch: store.watch("", before.revision).unwrap(),
            store,
            alive,
            revisions: HashMap::new(),
            mourned: HashSet::new(),
            created: BTreeMap::new(),
        }
    }

    /// Takes in what happened since the last look and checks each change.
    pub(crate) fn look(&mut self) {
        loop {
            let events = self.watch.ready().expect("looked at often enough");
            if events.is_empty() {
                return;
            }
            for event in events {
                match event.change {
                    Change::Put(object) => self.put(&serde_json::from_slice(&object).unwrap()),
                    Change::Delete(object) => self.gone(&serde_json::from_slice(&object).unwrap()),
                }
            }
        }
    }

    /// The newest revision of the store, Events and Leases left out.
    pub(crate) fn revision(&self) -> u64 {
        self.store.revision()
    }

    fn put(&mut self, object: &Value) {
        let uid = text(object, "/metadata/uid");
        if !self.alive.contains_key(&uid) {
            *self.created.entry(text(object, "/kind")).or_default() += 1;
            if let Some(owner) = controller(object) {
                let child = (text(object, "/kind"), text(object, "/metadata/name"), owner);
                assert!(
                    !self.mourned.contains(&child),
                    "{} {} was made again for an owner that is gone",
                    child.0,
                    child.1
                );
            }
        }
        if object["kind"] == "Revision" {
            let spec = self
                .revisions
                .entry(uid.clone())
                .or_insert_with(|| object["spec"].clone());
            assert_eq!(*spec, object["spec"], "a Revision never changes");
        }
        self.alive.insert(uid, object.clone());
    }

    fn gone(&mut self, object: &Value) {
        self.alive.remove(&text(object, "/metadata/uid"));
        let Some(owner) = controller(object) else {
            return;
        };
        let ending = self
            .alive
            .get(&owner)
            .is_none_or(|owner| !owner["metadata"]["deletionTimestamp"].is_null());
        if ending {
            self.mourned
                .insert((text(object, "/kind"), text(object, "/metadata/name"), owner));
        }
    }

    /// Objects whose controller does not exist.
    pub(crate) fn orphans(&self) -> Vec<String> {
        self.alive
            .values()
            .filter(|object| {
                controller(object).is_some_and(|owner| !self.alive.contains_key(&owner))
            })
            .map(|object| {
                format!(
                    "{} {}",
                    text(object, "/kind"),
                    text(object, "/metadata/name")
                )
            })
            .collect()
    }

    /// Services that have no verdict about their present generation, and Routes that do not lead where they should.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for object in self.alive.values() {
            let kind = text(object, "/kind");
            let knative = object["apiVersion"]
                .as_str()
                .is_some_and(|version| version.starts_with("serving.knative.dev/"));
            if !knative {
                continue;
            }
            let observed = &object["status"]["observedGeneration"];
            let ready = &condition(object, "Ready")["status"];
            // A Revision that nobody needs any more may sleep without ever having been needed.
            let verdict = kind == "Revision" || ready == "True" || ready == "False";
            if *observed != object["metadata"]["generation"] || !verdict {
                wrong.push(format!(
                    "{kind} {}: generation {}, status {}",
                    text(object, "/metadata/name"),
                    object["metadata"]["generation"],
                    object["status"]
                ));
            }
        }
        wrong
    }
}

fn controller(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some(owner["uid"].as_str()?.to_owned())
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
