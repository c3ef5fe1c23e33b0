//! What all stages share: the objects in force, and what they call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use kinglet_events::Event;
use kinglet_process::{Clock, Tasks};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::Verify;
use crate::body::Room;
use crate::engine::{ChannelId, ChannelLog, Engine, Uid};
use crate::exchange::Outgoing;
use crate::feed::{BrokerRoute, ChannelRoute, Key, Report, TransportEncryption, TriggerRoute};
use crate::report::Reports;
use crate::rules::Rules;
use crate::worker::Worker;

/// A Broker in force.
pub(crate) struct BrokerEntry {
    pub(crate) route: BrokerRoute,
    /// Of the events that come in, and of the channel's answers.
    pub(crate) room: Room,
}

/// A Trigger in force.
pub(crate) struct TriggerEntry {
    pub(crate) key: Key,
    pub(crate) route: TriggerRoute,
    pub(crate) room: Room,
    /// Its filter has been said to fail, or cannot.
    said: AtomicBool,
}

impl TriggerEntry {
    pub(crate) fn new(key: Key, route: TriggerRoute, room: Room) -> Self {
        let said = AtomicBool::new(!route.filter.evaluates_cesql());
        Self {
            key,
            route,
            room,
            said,
        }
    }

    /// Says once that the filter cannot be evaluated.
    pub(crate) fn complain(&self, plane: &Plane, event: &Event) {
        if self.said.load(Ordering::Relaxed) {
            return;
        }
        if let Some(why) = self.route.filter.complaint(event)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            plane.reports.tell(Report::FilterFailed {
                trigger: self.key.clone(),
                why,
            });
        }
    }
}

/// A channel in force.
pub(crate) struct ChannelEntry {
    pub(crate) id: ChannelId,
    pub(crate) log: Arc<dyn ChannelLog>,
    /// Its engine keeps events across a restart.
    pub(crate) durable: bool,
    pub(crate) route: ArcSwap<ChannelRoute>,
    pub(crate) room: Room,
    pub(crate) rules: Arc<Rules>,
    pub(crate) workers: Mutex<HashMap<Uid, Worker>>,
}

impl ChannelEntry {
    /// Names of subscriptions, for words.
    pub(crate) fn names<'a>(&self, uids: impl Iterator<Item = &'a Uid>) -> String {
        /// An answer names so many.
        const NAMED_MAX: usize = 10;
        let workers = self.workers.lock();
        let names: Vec<String> = uids
            .take(NAMED_MAX)
            .map(|uid| match workers.get(uid) {
                Some(worker) => worker.subscription.config.load().name.to_string(),
                None => uid.to_string(),
            })
            .collect();
        names.join(", ")
    }
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) brokers: HashMap<Key, Arc<BrokerEntry>>,
    pub(crate) triggers: HashMap<Key, Arc<TriggerEntry>>,
    pub(crate) channels: HashMap<ChannelId, Arc<ChannelEntry>>,
    /// The channels by kind, and namespace and name.
    pub(crate) by_name: HashMap<(Arc<str>, Key), Arc<ChannelEntry>>,
}

/// The data plane of this process.
pub(crate) struct Plane {
    pub(crate) tables: RwLock<Tables>,
    /// Grows with each change of `tables`.
    pub(crate) changed: watch::Sender<u64>,
    /// By kind of channel.
    pub(crate) engines: HashMap<Arc<str>, Arc<dyn Engine>>,
    pub(crate) outgoing: Outgoing,
    pub(crate) verify: Arc<dyn Verify>,
    pub(crate) reports: Reports,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) system_namespace: Arc<str>,
    pub(crate) shortcuts: bool,
    pub(crate) ttl_default: i32,
    pub(crate) encryption: RwLock<TransportEncryption>,
    pub(crate) draining: AtomicBool,
    /// Cancelled when no delivery will be finished any more.
    pub(crate) stopped: CancellationToken,
    pub(crate) broker_kind: Arc<str>,
    pub(crate) trigger_kind: Arc<str>,
    pub(crate) subscription_kind: Arc<str>,
}

impl Plane {
    pub(crate) fn broker(&self, key: &Key) -> Option<Arc<BrokerEntry>> {
        self.tables.read().brokers.get(key).cloned()
    }

    pub(crate) fn trigger(&self, key: &Key) -> Option<Arc<TriggerEntry>> {
        self.tables.read().triggers.get(key).cloned()
    }

    pub(crate) fn channel(&self, id: &ChannelId) -> Option<Arc<ChannelEntry>> {
        self.tables.read().channels.get(id).cloned()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether requests are served that came secured or not (`transport-encryption`).
    pub(crate) fn serves(&self, secured: bool) -> bool {
        match *self.encryption.read() {
            TransportEncryption::Disabled => !secured,
            TransportEncryption::Permissive => true,
            TransportEncryption::Strict => secured,
        }
    }
}
