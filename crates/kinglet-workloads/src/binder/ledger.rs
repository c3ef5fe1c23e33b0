//! What Pods have taken of each node, kept current by events instead of summed up each time.

use std::collections::HashMap;

use kinglet_reconcile::Key;
use parking_lot::Mutex;

use super::Resources;

#[derive(Default)]
struct Inner {
    by_pod: HashMap<Key, (String, Resources)>,
    by_node: HashMap<String, Resources>,
}

/// The account of every node.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Inner>);

impl Ledger {
    /// A Pod is on a node; said twice it counts once.
    pub(super) fn take(&self, pod: &Key, node: &str, request: Resources) {
        let mut inner = self.0.lock();
        inner.release(pod);
        inner
            .by_node
            .entry(node.to_owned())
            .or_default()
            .add(&request, 1);
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
}

impl Inner {
    fn release(&mut self, pod: &Key) -> bool {
        let Some((node, request)) = self.by_pod.remove(pod) else {
            return false;
        };
        if let Some(account) = self.by_node.get_mut(&node) {
            account.add(&request, -1);
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
        let request = Resources {
            cpu_millis: 100,
            memory_bytes: 10,
            pods: 1,
            ..Resources::default()
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
