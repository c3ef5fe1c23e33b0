//! From a Pod to whatever selects it, without asking every selector.
//!
//! Each selector is filed under one of its label pairs, the least used; a Pod looks under each of its own pairs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{Change, Context, Key, Object, controller_of, key_of};
use parking_lot::RwLock;

type Pair = (String, String);
type Labels = BTreeMap<String, String>;

#[derive(Default)]
struct Inner {
    /// What each object selects, and under which pair it is filed.
    selectors: HashMap<Key, (Pair, Labels)>,
    filed: HashMap<Pair, BTreeSet<Key>>,
}

/// An index of selectors that follows a cache.
#[derive(Clone, Default)]
pub(crate) struct SelectorIndex(Arc<RwLock<Inner>>);

/// From a Pod to the objects of this kind that may adopt it: their label pairs, which `of` names, select it, and it has no
/// controller.
pub(crate) fn adopters<K: Object>(
    context: &Context,
    of: impl Fn(&K) -> Option<Labels> + Send + Sync + 'static,
) -> impl Fn(&Pod) -> Vec<Key> + Send + Sync + 'static {
    let index = SelectorIndex::default();
    let feed = index.clone();
    context
        .cache::<K>()
        .observe(move |change| feed.follow(change, &of));
    move |pod| {
        if controller_of(pod).is_some() {
            Vec::new()
        } else {
            index.matching(pod)
        }
    }
}

impl SelectorIndex {
    /// Takes a change of an object whose label pairs `of` names; none selects nothing.
    pub(crate) fn follow<K: Object>(&self, change: &Change<K>, of: impl Fn(&K) -> Option<Labels>) {
        let Some(object) = change.object() else {
            return;
        };
        let key = key_of(&**object);
        let selector = match change {
            Change::Applied { new, .. } => of(new).filter(|labels| !labels.is_empty()),
            Change::Deleted(_) | Change::Resync => None,
        };
        let mut inner = self.0.write();
        if let (Some((_, known)), Some(selector)) = (inner.selectors.get(&key), &selector)
            && known == selector
        {
            return;
        }
        inner.remove(&key);
        if let Some(selector) = selector {
            inner.insert(key, selector);
        }
    }

    /// The objects that select `object`, in order.
    pub(crate) fn matching<K: Object>(&self, object: &K) -> Vec<Key> {
        let Some(labels) = &object.meta().labels else {
            return Vec::new();
        };
        let namespace = object.meta().namespace.as_deref().unwrap_or("");
        let inner = self.0.read();
        let mut out = BTreeSet::new();
        for (key, value) in labels {
            let filed = inner
                .filed
                .get(&(key.clone(), value.clone()))
                .into_iter()
                .flatten();
            for candidate in filed.filter(|candidate| &*candidate.namespace == namespace) {
                let selector = inner.selectors.get(candidate).map(|(_, selector)| selector);
                if selector.is_some_and(|selector| {
                    selector
                        .iter()
                        .all(|(key, value)| labels.get(key) == Some(value))
                }) {
                    out.insert(candidate.clone());
                }
            }
        }
        out.into_iter().collect()
    }
}

impl Inner {
    fn insert(&mut self, key: Key, selector: Labels) {
        let used = |pair: &Pair| self.filed.get(pair).map_or(0, BTreeSet::len);
        let pairs = selector
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        let Some(pair) = pairs.min_by_key(used) else {
            return;
        };
        self.filed
            .entry(pair.clone())
            .or_default()
            .insert(key.clone());
        self.selectors.insert(key, (pair, selector));
    }

    fn remove(&mut self, key: &Key) {
        let Some((pair, _)) = self.selectors.remove(key) else {
            return;
        };
        if let Some(keys) = self.filed.get_mut(&pair) {
            keys.remove(key);
            if keys.is_empty() {
                self.filed.remove(&pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::json;

    #[test]
    fn finds_exactly_the_selectors_that_match() {
        let index = SelectorIndex::default();
        let service = |name: &str, selector| -> Arc<Service> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"selector": selector}})).unwrap())
        };
        let of = |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone());
        for service in [
            service("both", json!({"app": "x", "tier": "y"})),
            service("other", json!({"app": "z"})),
            service("none", json!(null)),
        ] {
            index.follow(
                &Change::Applied {
                    old: None,
                    new: service,
                },
                of,
            );
        }
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "x", "tier": "y"}}})).unwrap();
        assert_eq!(index.matching(&pod), [Key::new("a", "both")]);
        index.follow(&Change::Deleted(service("both", json!({}))), of);
        assert!(index.matching(&pod).is_empty());
    }
}
