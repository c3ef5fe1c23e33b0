//! How many sessions with containers are open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Sessions at a time over all clients: each may hold a process of a container and a megabyte of what waits.
const SESSIONS_MAX: usize = 256;
/// Of these, in one namespace: whoever may open sessions there leaves places to others.
const SESSIONS_IN_NAMESPACE_MAX: usize = 64;

/// The places of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<String, usize>>);

/// The place of one session, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    namespace: String,
}

impl Places {
    /// A place for a session in a namespace; or why there is none.
    pub(super) fn take(self: &Arc<Self>, namespace: &str) -> Result<Place, String> {
        let mut taken = self.0.lock();
        if taken.values().sum::<usize>() >= SESSIONS_MAX {
            return Err(format!(
                "{SESSIONS_MAX} sessions with containers are open already"
            ));
        }
        let here = taken.entry(namespace.to_owned()).or_default();
        if *here >= SESSIONS_IN_NAMESPACE_MAX {
            return Err(format!(
                "{SESSIONS_IN_NAMESPACE_MAX} sessions with containers of namespace {namespace:?} are open already"
            ));
        }
        *here += 1;
        Ok(Place {
            places: Arc::clone(self),
            namespace: namespace.to_owned(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(here) = taken.get_mut(&self.namespace) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_places_to_others() {
        let places = Arc::new(Places::default());
        let take = |namespace: &str, count: usize| -> Vec<Place> {
            (0..count)
                .map(|_| places.take(namespace).expect("a place"))
                .collect()
        };
        let mut all = take("a", SESSIONS_IN_NAMESPACE_MAX);
        places.take("a").expect_err("its own are taken");
        for other in ["b", "c", "d"] {
            all.extend(take(other, SESSIONS_IN_NAMESPACE_MAX));
        }
        places.take("e").expect_err("all are taken");
        drop(all);
        assert!(places.0.lock().is_empty());
    }
}
