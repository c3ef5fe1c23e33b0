//! The ConfigMaps of the moment, parsed once per change and shared by every controller.
//!
//! A map that does not parse keeps its last good value and is logged; admission refuses such a map, so this is for
//! maps edited around it. A controller takes one snapshot per reconcile and keeps it to the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::config::{Configs, Data, NAMES, SYSTEM_NAMESPACE};
use kinglet_reconcile::{Cache, Change, Context, name_of, namespace_of};
use parking_lot::Mutex;

/// A handle to the present configuration. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveConfigs(Arc<Mutex<Arc<Configs>>>);

impl LiveConfigs {
    /// Follows the ConfigMaps of `knative-serving`, beginning with `initial`.
    ///
    /// Controllers that are started later are woken by a ConfigMap after it was taken over here.
    pub fn follow(context: &Context, initial: Configs) -> Self {
        let live = Self(Arc::new(Mutex::new(Arc::new(initial))));
        let maps = context.cache::<ConfigMap>();
        let (told, all) = (live.clone(), maps.clone());
        maps.observe(move |change: &Change<ConfigMap>| {
            if change.object().is_some_and(|map| is_ours(map)) {
                told.take(&all);
            }
        });
        live
    }

    /// A configuration that never changes.
    pub fn fixed(configs: Configs) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(configs))))
    }

    /// The configuration of the moment.
    pub fn get(&self) -> Arc<Configs> {
        Arc::clone(&self.0.lock())
    }

    fn take(&self, maps: &Cache<ConfigMap>) {
        let present: BTreeMap<String, Arc<ConfigMap>> = maps
            .list(SYSTEM_NAMESPACE)
            .into_iter()
            .map(|map| (name_of(&*map).to_owned(), map))
            .collect();
        let data = |name: &str| -> Option<&Data> { present.get(name)?.data.as_ref() };
        let mut current = self.0.lock();
        let (updated, problems) = current.updated(data);
        for problem in problems {
            tracing::warn!(%problem, "the last good value stays in force");
        }
        *current = Arc::new(updated);
    }
}

/// Whether a ConfigMap is one of those that configure Knative Serving.
pub fn is_ours(map: &ConfigMap) -> bool {
    namespace_of(map) == SYSTEM_NAMESPACE && NAMES.contains(&name_of(map))
}
