//! Which objects carry a Route's name in their `serving.knative.dev/routes`, kept up to date with the cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_api::keys;
use kinglet_reconcile::{Change, Context, Key, Object, annotation, key_of};
use parking_lot::Mutex;

use crate::metadata;

/// Route to the names of objects of kind `K` in its namespace.
pub(super) struct RouteIndex<K> {
    by_route: Arc<Mutex<HashMap<Key, BTreeSet<String>>>>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Clone for RouteIndex<K> {
    fn clone(&self) -> Self {
        Self {
            by_route: Arc::clone(&self.by_route),
            kind: std::marker::PhantomData,
        }
    }
}

impl<K: Object> RouteIndex<K> {
    pub(super) fn follow(context: &Context) -> Self {
        let index = Self {
            by_route: Arc::default(),
            kind: std::marker::PhantomData,
        };
        let target = Arc::clone(&index.by_route);
        context.cache::<K>().observe(move |change| {
            let mut by_route = target.lock();
            let (before, now) = match change {
                Change::Applied { old, new } => (old.as_deref(), Some(&**new)),
                Change::Deleted(last) => (Some(&**last), None),
                Change::Resync => return,
            };
            let (before, now) = (
                before.map(routes).unwrap_or_default(),
                now.map(routes).unwrap_or_default(),
            );
            let Some(object) = change.object() else {
                return;
            };
            let name = key_of(&**object).name;
            for gone in before.difference(&now) {
                if let Some(names) = by_route.get_mut(gone) {
                    names.remove(&*name);
                    if names.is_empty() {
                        by_route.remove(gone);
                    }
                }
            }
            for new in now {
                by_route.entry(new).or_default().insert(name.to_string());
            }
        });
        index
    }

    /// The names of the objects that carry the Route's.
    pub(super) fn of(&self, route: &Key) -> BTreeSet<String> {
        self.by_route.lock().get(route).cloned().unwrap_or_default()
    }
}

fn routes<K: Object>(object: &K) -> BTreeSet<Key> {
    let namespace = key_of(object).namespace;
    metadata::names(annotation(object, keys::ROUTES))
        .into_iter()
        .map(|name| Key::new(Arc::clone(&namespace), name))
        .collect()
}
