//! What Pods have taken of each node, kept current by events instead of summed up each time.

use std::collections::HashMap;

use kinglet_reconcile::Key;
use parking_lot::Mutex;

use super::{HostPort, Resources};

/// What one Pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) resources: Resources,
    pub(crate) host_ports: Vec<HostPort>,
}

#[derive(Default)]
struct Inner {
    by_pod: HashMap<Key, (String, Taken)>,
    by_node: HashMap<String, Resources>,
}

/// The account of every node.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Inner>);

impl Ledger {
    /// A Pod is on a node; said twice it counts once.
    pub(super) fn take(&self, pod: &Key, node: &str, request: Taken) {
        let mut inner = self.0.lock();
        inner.release(pod);
        inner
            .by_node
            .entry(node.to_owned())
            .or_default()
            .add(&request.resources, 1);
        inner.by_pod.insert(pod.clone(), (node.to_owned(), request));
    }

    /// A Pod has ended or is gone; whether it had taken anything.
    pub(super) fn release(&self, pod: &Key) -> bool {
        self.0.lock().release(pod)
    }

    /// What is taken of a node.
    pub(super) fn taken(&self, node: &str) -> Resources {
        self.0.lock().by_node.get(node).cloned().unwrap_or_default()
    }

    /// Which ports of a node are taken.
    pub(super) fn host_ports(&self, node: &str) -> Vec<HostPort> {
        let inner = self.0.lock();
        let of_node = inner.by_pod.values().filter(|(where_, _)| where_ == node);
        of_node
            .flat_map(|(_, taken)| taken.host_ports.iter().cloned())
            .collect()
    }
}

impl Inner {
    fn release(&mut self, pod: &Key) -> bool {
        let Some((node, request)) = self.by_pod.remove(pod) else {
            return false;
        };
        if let Some(account) = self.by_node.get_mut(&node) {
            account.add(&request.resources, -1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_balance() {
        let ledger = Ledger::default();
        let request = Taken {
            resources: Resources {
                cpu_millis: 100,
                memory_bytes: 10,
                pods: 1,
                ..Resources::default()
            },
            host_ports: Vec::new(),
        };
        ledger.take(&Key::new("a", "x"), "n", request.clone());
        ledger.take(&Key::new("a", "x"), "n", request.clone());
        ledger.take(&Key::new("a", "y"), "n", request);
        assert_eq!(
            (ledger.taken("n").cpu_millis, ledger.taken("n").pods),
            (200, 2)
        );
        assert!(ledger.release(&Key::new("a", "x")) && !ledger.release(&Key::new("a", "x")));
        assert_eq!(ledger.taken("n").memory_bytes, 10);
    }
}
