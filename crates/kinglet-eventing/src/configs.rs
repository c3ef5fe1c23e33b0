//! The ConfigMaps of `knative-eventing` at the moment, parsed once per change and shared by every controller.
//!
//! As Serving's: a map that does not parse keeps its last good value and is logged.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::config::Data;
use kinglet_api::config::eventing::{EventingConfigs, NAMES, SYSTEM_NAMESPACE};
use kinglet_reconcile::{Cache, Change, Context, name_of, namespace_of};
use parking_lot::Mutex;

/// A handle to the present configuration. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveConfigs(Arc<Mutex<Arc<EventingConfigs>>>);

impl LiveConfigs {
    /// Follows the ConfigMaps, beginning with `initial`; `told` hears of each new state, after it is in force here.
    ///
    /// Controllers that are started later are woken by a ConfigMap after it was taken over here.
    pub fn follow(
        context: &Context,
        initial: EventingConfigs,
        told: impl Fn(&Arc<EventingConfigs>) + Send + Sync + 'static,
    ) -> Self {
        let live = Self(Arc::new(Mutex::new(Arc::new(initial))));
        let maps = context.cache::<ConfigMap>();
        let (taking, all) = (live.clone(), maps.clone());
        maps.observe(move |change: &Change<ConfigMap>| {
            if change.object().is_some_and(|map| is_ours(map)) {
                told(&taking.take(&all));
            }
        });
        live
    }

    /// The configuration of the moment.
    pub fn get(&self) -> Arc<EventingConfigs> {
        Arc::clone(&self.0.lock())
    }

    fn take(&self, maps: &Cache<ConfigMap>) -> Arc<EventingConfigs> {
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
        Arc::clone(&current)
    }
}

/// Whether a ConfigMap is one of those that configure Knative Eventing.
pub fn is_ours(map: &ConfigMap) -> bool {
    namespace_of(map) == SYSTEM_NAMESPACE && NAMES.contains(&name_of(map))
}

/// Whether a ConfigMap holds the features, which every kind of Eventing depends on.
pub(crate) fn is_features(map: &ConfigMap) -> bool {
    namespace_of(map) == SYSTEM_NAMESPACE && name_of(map) == "config-features"
}
