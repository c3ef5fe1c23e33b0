//! One route table of all Ingresses, sent to the gateway whenever one changed.
//!
//! Changes that arrive while a table is being built or sent are in the next one together. After a build the task
//! rests for some times as long as the build took, so that ten thousand Ingresses that change one after the other
//! cost a fifth of a core at most; with a few dozen the rest is not noticed.
//! The first table has every Ingress of before: a restart never serves half of the routes.
//! Guarantee: when [`ProgrammedState::InForce`] is given for an Ingress, the gateway serves the rules that were set last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kinglet_api::networking::Ingress;
use kinglet_decide::feed::{Key, Update};
use kinglet_decide::route::{Conflict, IngressRule, RouteTable};
use kinglet_reconcile::{Context, Queue};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::gateways::Gateways;

/// Rest after a build, in multiples of its duration.
const REST: u32 = 4;
/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(200);
/// Where an Ingress stands with the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProgrammedState {
    /// The gateway serves it as it is.
    InForce,
    /// It is on its way.
    OnItsWay,
    /// So it is, for unusually long.
    Stalled {
        /// The gateways that do not serve it yet; none when there is no gateway.
        gateways: Vec<String>,
    },
    /// Some of its hosts belong to other Ingresses.
    Rejected(Vec<Conflict>),
}

/// Older Ingresses win a host that two claim; by name among equals.
type Rank = (i64, Key);

struct Entry {
    rank: Rank,
    rules: Arc<[IngressRule]>,
    /// The first table that has these rules.
    version: u64,
    since: Instant,
    /// Whether its controller was woken for that version.
    acknowledged: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    order: BTreeSet<Rank>,
    /// Version of the last table that was built.
    built: u64,
    conflicts: BTreeMap<Key, Vec<Conflict>>,
}

impl State {
    fn insert(&mut self, key: &Key, ingress: &Ingress, rules: Vec<IngressRule>) {
        let created = ingress.metadata.creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        let rank = (created, key.clone());
        if let Some(old) = self.entries.get(key) {
            self.order.remove(&old.rank);
        }
        self.order.insert(rank.clone());
        let entry = Entry {
            rank,
            rules: rules.into(),
            version: self.built + 1,
            since: Instant::now(),
            acknowledged: false,
        };
        self.entries.insert(key.clone(), entry);
    }
}

/// Collects rules and publishes tables. Cheap to clone.
#[derive(Clone)]
pub(super) struct Publisher(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    gateways: Gateways,
}

/// A change that takes longer than this to reach the gateway is worth a word in the status.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl Publisher {
    /// Starts publishing. The first table goes out when `first` is done, which adds the routes of before.
    pub(super) fn start<F>(
        context: &Context,
        updates: mpsc::Sender<Update>,
        gateways: Gateways,
        queue: Queue,
        first: impl FnOnce(Self) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            gateways: gateways.clone(),
        };
        let this = Self(Arc::new(shared));
        let (sender, listener) = (this.clone(), this.clone());
        let (first, told) = (first(this.clone()), queue.clone());
        context
            .tasks()
            .component_cancellable("route-tables", async move {
                first.await;
                sender.publish(updates, &queue).await;
            });
        context
            .tasks()
            .component_cancellable("route-acknowledgements", async move {
                listener.listen(gateways, &told).await
            });
        this
    }

    /// Takes the rules of an Ingress over, and tells where it stands.
    pub(super) fn set(
        &self,
        key: &Key,
        ingress: &Ingress,
        rules: Vec<IngressRule>,
    ) -> ProgrammedState {
        let mut state = self.0.state.lock();
        let same = state
            .entries
            .get(key)
            .is_some_and(|entry| *entry.rules == rules);
        if !same {
            state.insert(key, ingress, rules);
            drop(state);
            self.0.changed.notify_one();
            return ProgrammedState::OnItsWay;
        }
        let entry = &state.entries[key];
        if entry.version > self.0.gateways.applied().min(state.built) {
            if entry.since.elapsed() < PATIENCE {
                return ProgrammedState::OnItsWay;
            }
            let behind = self.0.gateways.behind(entry.version);
            let gateways = behind.iter().map(|name| name.to_string()).collect();
            return ProgrammedState::Stalled { gateways };
        }
        match state.conflicts.get(key) {
            Some(conflicts) => ProgrammedState::Rejected(conflicts.clone()),
            None => ProgrammedState::InForce,
        }
    }

    /// Takes over an Ingress of before, unless its controller has looked at it already and knows better. `find` gives it
    /// as it is now, with its rules, while no controller can take it away.
    pub(super) fn set_first(
        &self,
        key: &Key,
        find: impl FnOnce() -> Option<(Arc<Ingress>, Vec<IngressRule>)>,
    ) {
        let mut state = self.0.state.lock();
        if !state.entries.contains_key(key)
            && let Some((ingress, rules)) = find()
        {
            state.insert(key, &ingress, rules);
        }
    }

    /// Forgets an Ingress.
    pub(super) fn remove(&self, key: &Key) {
        let mut state = self.0.state.lock();
        if let Some(entry) = state.entries.remove(key) {
            state.order.remove(&entry.rank);
            drop(state);
            self.0.changed.notify_one();
        }
    }

    async fn publish(&self, updates: mpsc::Sender<Update>, queue: &Queue) {
        loop {
            let began = Instant::now();
            let (version, rules) = self.snapshot();
            let elsewhere = self.0.gateways.are_elsewhere();
            let told = elsewhere.then(|| rules.clone());
            let table = RouteTable::build(version, rules);
            self.note_conflicts(table.conflicts(), queue);
            let took = began.elapsed();
            let update = match told {
                Some(rules) => Update::Rules(version, rules.into()),
                None => Update::Routes(Arc::new(table)),
            };
            if updates.send(update).await.is_err() {
                tracing::debug!("the gateway is gone, no more route tables");
                return;
            }
            if self.0.gateways.in_process.is_empty() {
                // Nobody here acknowledges it; the probes begin.
                self.acknowledge(version, queue);
            }
            tokio::time::sleep(took.saturating_mul(REST).min(REST_MAX)).await;
            self.0.changed.notified().await;
        }
    }

    fn snapshot(&self) -> (u64, Vec<IngressRule>) {
        let mut state = self.0.state.lock();
        state.built += 1;
        let entries = state
            .order
            .iter()
            .filter_map(|(_, key)| state.entries.get(key));
        (
            state.built,
            entries
                .flat_map(|entry| entry.rules.iter().cloned())
                .collect(),
        )
    }

    /// Wakes the Ingresses that gained or lost a conflict; a host may have become free.
    fn note_conflicts(&self, conflicts: &[Conflict], queue: &Queue) {
        let mut by_loser: BTreeMap<Key, Vec<Conflict>> = BTreeMap::new();
        for conflict in conflicts {
            by_loser
                .entry(conflict.rejected.clone())
                .or_default()
                .push(conflict.clone());
        }
        let before = std::mem::replace(&mut self.0.state.lock().conflicts, by_loser.clone());
        let keys: BTreeSet<&Key> = before.keys().chain(by_loser.keys()).collect();
        for key in keys
            .into_iter()
            .filter(|key| before.get(*key) != by_loser.get(*key))
        {
            queue.add(key.clone());
        }
    }

    async fn listen(&self, mut gateways: Gateways, queue: &Queue) {
        loop {
            self.acknowledge(gateways.applied(), queue);
            if let Err(name) = gateways.changed().await {
                tracing::debug!(gateway = %name, "the gateway is gone, no more acknowledgements");
                return;
            }
        }
    }

    fn acknowledge(&self, version: u64, queue: &Queue) {
        let mut state = self.0.state.lock();
        let version = version.min(state.built);
        let arrived = state
            .entries
            .iter_mut()
            .filter(|(_, entry)| !entry.acknowledged && entry.version <= version);
        for (key, entry) in arrived {
            entry.acknowledged = true;
            queue.add(key.clone());
        }
    }
}
