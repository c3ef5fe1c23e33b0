//! Revisions by namespace and name, for requests that name one: looked up without a lock and without allocating.
//!
//! Some hundred small sorted lists, each swapped whole when one of its Revisions comes or goes; a change copies one list, not
//! all that there is.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kinglet_decide::feed::Key;

use super::Cluster;
use crate::routes::Destination;

/// Of 20,000 Revisions a list holds eighty.
const LISTS: usize = 256;

/// See the module.
pub(super) struct Names {
    lists: Box<[ArcSwap<Vec<Arc<Destination>>>]>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            lists: (0..LISTS).map(|_| ArcSwap::default()).collect(),
        }
    }
}

impl Names {
    /// The Revision of this name.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Destination>> {
        let list = self.list(namespace, name).load();
        let at = place(&list, namespace, name).ok()?;
        Some(Arc::clone(&list[at]))
    }

    /// Notes a Revision that is known from now on. Callers take turns.
    pub(super) fn insert(&self, cluster: &Arc<Cluster>) {
        let key = cluster.key();
        let list = self.list(&key.namespace, &key.name);
        let mut all = Vec::clone(&list.load());
        let destination = Arc::new(Destination::of_revision(Arc::clone(cluster)));
        match place(&all, &key.namespace, &key.name) {
            // Described anew; it is the same one, unless it was forgotten meanwhile.
            Ok(at) if Arc::ptr_eq(&all[at].cluster, cluster) => return,
            Ok(at) => all[at] = destination,
            Err(at) => all.insert(at, destination),
        }
        list.store(Arc::new(all));
    }

    /// Forgets a Revision. Callers take turns.
    pub(super) fn remove(&self, key: &Key) {
        let list = self.list(&key.namespace, &key.name);
        let mut all = Vec::clone(&list.load());
        if let Ok(at) = place(&all, &key.namespace, &key.name) {
            all.remove(at);
            list.store(Arc::new(all));
        }
    }

    fn list(&self, namespace: &str, name: &str) -> &ArcSwap<Vec<Arc<Destination>>> {
        &self.lists[spread(namespace, name) % LISTS]
    }
}

fn place(all: &[Arc<Destination>], namespace: &str, name: &str) -> Result<usize, usize> {
    all.binary_search_by(|one| {
        let key = one.cluster.key();
        (&*key.namespace, &*key.name).cmp(&(namespace, name))
    })
}

/// FNV-1a: who chooses names to fall into one list makes that list longer, and a search in it by a few steps.
fn spread(namespace: &str, name: &str) -> usize {
    let bytes = namespace.bytes().chain([b'/']).chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // The upper half is the better mixed one.
    usize::try_from(hash >> 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn generated_names_spread_over_the_lists() {
        let lists: Vec<usize> = (1..=2048)
            .map(|number| spread("default", &format!("service-{number}-00001")) % LISTS)
            .collect();
        let used: BTreeSet<usize> = lists.iter().copied().collect();
        assert!(used.len() > LISTS * 9 / 10, "{} lists", used.len());
        let most = (0..LISTS).map(|list| lists.iter().filter(|at| **at == list).count());
        assert!(most.max().is_some_and(|most| most < 32));
    }
}
