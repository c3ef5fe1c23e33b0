//! The data plane from outside: made by the root, fed by the reconcilers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kinglet_decide::call::HttpService;
use kinglet_process::{Clock, Tasks};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::access::{Tokens, Verify};
use crate::body::Room;
use crate::engine::{ChannelId, ChannelLog, Engine, EngineError, Retention, Uid};
use crate::exchange::Outgoing;
use crate::feed::{
    BrokerRoute, ChannelRoute, Destination, Key, Report, Subscriber, SubscriptionState,
    TransportEncryption, TriggerRoute, Update,
};
use crate::plane::{BrokerEntry, ChannelEntry, Plane, Tables, TriggerEntry};
use crate::report::{REPORTS_MAX, Reports};
use crate::rules::Rules;
use crate::service::{Service, Stage};
use crate::short::{self, Place};
use crate::transport::Transport;
use crate::worker::Worker;

/// What a channel in memory may hold when nobody says: it is memory of all tenants.
pub const MEMORY_CHANNEL_BYTES_MAX: u64 = 64 << 20;
/// What a subscription that is taken away, or changes its order, has under way may end within this time.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What the data plane is given.
pub struct Options {
    /// By kind of channel: `InMemoryChannel`, `DurableChannel`, …
    pub engines: HashMap<Arc<str>, Arc<dyn Engine>>,
    /// Sends requests.
    pub transport: Arc<dyn Transport>,
    /// Gives tokens to send with.
    pub tokens: Arc<dyn Tokens>,
    /// Reads tokens of senders.
    pub verify: Arc<dyn Verify>,
    /// Stamps events.
    pub clock: Clock,
    /// Where Knative's Services are: `knative-eventing`.
    pub system_namespace: Arc<str>,
    /// Addresses of our own stages are functions and no requests. Off, every stage goes over HTTP.
    pub shortcuts: bool,
    /// Passes of an event through a Broker (`MAX_TTL`).
    pub ttl_default: i32,
}

/// An update that is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No engine keeps channels of this kind.
    #[error("channel {0} cannot be kept here: there is no engine for its kind")]
    NoEngine(ChannelId),
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The data plane. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    plane: Arc<Plane>,
    /// One update of a channel at a time: they wait for the disk.
    applying: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    /// Starts with nothing in force; `tasks` owns all that runs. The receiver gets what reconcilers are to know.
    pub fn new(options: Options, tasks: &Tasks) -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        let plane = Plane {
            tables: RwLock::default(),
            changed: watch::Sender::new(0),
            engines: options.engines,
            outgoing: Outgoing {
                transport: options.transport,
                tokens: options.tokens,
            },
            verify: options.verify,
            reports: Reports::new(sender),
            clock: options.clock,
            tasks: tasks.clone(),
            system_namespace: options.system_namespace,
            shortcuts: options.shortcuts,
            ttl_default: options.ttl_default,
            encryption: RwLock::default(),
            draining: AtomicBool::new(false),
            stopped: CancellationToken::new(),
            broker_kind: "Broker".into(),
            trigger_kind: "Trigger".into(),
            subscription_kind: "Subscription".into(),
        };
        let handle = Self {
            plane: Arc::new(plane),
            applying: Arc::default(),
        };
        (handle, receiver)
    }

    /// The service behind `broker-ingress`; `secured` on an https listener.
    pub fn ingress(&self, secured: bool) -> Arc<dyn HttpService> {
        self.service(Stage::Ingress, secured)
    }

    /// The service behind `broker-filter`.
    pub fn filter(&self, secured: bool) -> Arc<dyn HttpService> {
        self.service(Stage::Filter, secured)
    }

    /// The service behind the dispatcher of the channels of a kind (`imc-dispatcher`, `durable-dispatcher`).
    pub fn channels(&self, kind: &str, secured: bool) -> Arc<dyn HttpService> {
        self.service(Stage::Channels(kind.into()), secured)
    }

    fn service(&self, stage: Stage, secured: bool) -> Arc<dyn HttpService> {
        Arc::new(Service {
            plane: self.plane.clone(),
            stage,
            secured,
        })
    }

    /// Puts an update in force: when this resolves, every event that is accepted from then on is treated by it.
    pub async fn apply(&self, update: Update) -> Result<(), ApplyError> {
        match update {
            Update::Broker(key, route) => self.broker(key, route),
            Update::Trigger(key, route) => self.trigger(&key, route),
            Update::TransportEncryption(mode) => self.encryption(mode),
            Update::Channel(id, route) => {
                let _one = self.applying.lock().await;
                match route {
                    Some(route) => self.channel(id, route).await?,
                    None => self.remove_channel(&id).await?,
                }
            }
        }
        self.plane.changed.send_modify(|revision| *revision += 1);
        Ok(())
    }

    fn encryption(&self, mode: TransportEncryption) {
        *self.plane.encryption.write() = mode;
    }

    fn broker(&self, key: Key, route: Option<BrokerRoute>) {
        let mut tables = self.plane.tables.write();
        match route {
            Some(route) => {
                let room = tables.brokers.get(&key).map(|known| known.room.clone());
                let room = room.unwrap_or_default();
                tables
                    .brokers
                    .insert(key, Arc::new(BrokerEntry { route, room }));
            }
            None => drop(tables.brokers.remove(&key)),
        }
    }

    fn trigger(&self, key: &Key, route: Option<TriggerRoute>) {
        let mut tables = self.plane.tables.write();
        match route {
            Some(route) => {
                let room = tables.triggers.get(key).map(|known| known.room.clone());
                let entry = TriggerEntry::new(key.clone(), route, room.unwrap_or_default());
                tables.triggers.insert(key.clone(), Arc::new(entry));
            }
            None => drop(tables.triggers.remove(key)),
        }
        for channel in tables.channels.values() {
            for uid in channel.rules.of_trigger(key) {
                let filter = filter_of(&tables, key);
                channel.rules.set(&uid, Some(key.clone()), filter);
            }
        }
    }

    async fn channel(&self, id: ChannelId, route: ChannelRoute) -> Result<(), ApplyError> {
        let plane = &self.plane;
        let engine = plane.engines.get(&id.kind);
        let engine = engine.ok_or_else(|| ApplyError::NoEngine(id.clone()))?;
        let durable = engine.capabilities().durable;
        let retention = route.retention.unwrap_or_else(|| match durable {
            true => Retention::default(),
            false => Retention {
                bytes_max: MEMORY_CHANNEL_BYTES_MAX,
                ..Retention::default()
            },
        });
        let log = engine.open(&id, retention).await?;
        let channel = match plane.channel(&id) {
            Some(channel) => channel,
            None => self.new_channel(&id, log, durable, &route),
        };
        let behind = self.subscribe(&channel, &route.subscribers).await?;
        channel.route.store(Arc::new(route));
        let mut tables = plane.tables.write();
        // A Trigger may have changed meanwhile; from here on its change finds this channel.
        for (uid, trigger) in behind {
            let filter = filter_of(&tables, &trigger);
            channel.rules.set(&uid, Some(trigger), filter);
        }
        tables.channels.insert(id.clone(), channel.clone());
        tables.by_name.insert((id.kind.clone(), id.key), channel);
        Ok(())
    }

    fn new_channel(
        &self,
        id: &ChannelId,
        log: Arc<dyn ChannelLog>,
        durable: bool,
        route: &ChannelRoute,
    ) -> Arc<ChannelEntry> {
        let rules = Arc::new(Rules::new(self.plane.reports.clone()));
        Arc::new(ChannelEntry {
            id: id.clone(),
            log,
            durable,
            route: ArcSwap::from_pointee(route.clone()),
            room: Room::default(),
            rules,
            workers: Mutex::default(),
        })
    }

    /// Makes the subscriptions of a channel these. Answers with those that changed and have a Trigger behind them.
    async fn subscribe(
        &self,
        channel: &Arc<ChannelEntry>,
        wanted: &[Subscriber],
    ) -> Result<Vec<(Uid, Key)>, EngineError> {
        self.unsubscribe(channel, wanted).await;
        // A change of one of thousands costs what that one costs.
        let changed: Vec<&Subscriber> = {
            let workers = channel.workers.lock();
            let is_known = |one: &Subscriber| {
                let worker = workers.get(&one.uid);
                worker.is_some_and(|worker| **worker.subscription.config.load() == *one)
            };
            wanted.iter().filter(|one| !is_known(one)).collect()
        };
        // Before anything is routed, all rules are there.
        let mut behind = Vec::new();
        for subscriber in &changed {
            let trigger = self.trigger_behind(subscriber.subscriber.as_ref());
            let tables = self.plane.tables.read();
            let filter = trigger.as_ref().and_then(|key| filter_of(&tables, key));
            channel.rules.set(&subscriber.uid, trigger.clone(), filter);
            behind.extend(trigger.map(|trigger| (subscriber.uid.clone(), trigger)));
        }
        channel.log.route(channel.rules.clone());
        for subscriber in changed {
            let mut workers = channel.workers.lock();
            match workers.get(&subscriber.uid) {
                Some(worker) => {
                    let config = Arc::new(subscriber.clone());
                    worker.subscription.config.store(config);
                }
                None => {
                    let worker = Worker::start(&self.plane, channel, subscriber.clone())?;
                    workers.insert(subscriber.uid.clone(), worker);
                }
            }
        }
        Ok(behind)
    }

    /// Ends the workers of subscriptions that are gone, or want another order.
    async fn unsubscribe(&self, channel: &ChannelEntry, wanted: &[Subscriber]) {
        let wanted: HashMap<&Uid, bool> =
            wanted.iter().map(|one| (&one.uid, one.ordered)).collect();
        let ended: Vec<Worker> = {
            let mut workers = channel.workers.lock();
            let ended = workers.extract_if(|uid, worker| {
                let ordered = worker.subscription.config.load().ordered;
                wanted.get(uid) != Some(&ordered)
            });
            ended.map(|(_, worker)| worker).collect()
        };
        let ends = ended
            .into_iter()
            .map(|worker| worker.leave(&self.plane, END_WITHIN));
        futures_util::future::join_all(ends).await;
        for known in channel.log.subscriptions() {
            if !wanted.contains_key(&known.subscription) {
                channel.log.unsubscribe(&known.subscription);
                channel.rules.remove(&known.subscription);
            }
        }
    }

    /// The Trigger whose filter decides for a subscriber, when it is asked in place.
    fn trigger_behind(&self, subscriber: Option<&Destination>) -> Option<Key> {
        let plane = &self.plane;
        if !plane.shortcuts {
            return None;
        }
        match short::place_of(&subscriber?.url, &plane.system_namespace)? {
            (Place::Filter(path), _) if path.part == short::Part::Subscriber => Some(path.trigger),
            _ => None,
        }
    }

    async fn remove_channel(&self, id: &ChannelId) -> Result<(), ApplyError> {
        let plane = &self.plane;
        let channel = {
            let mut tables = plane.tables.write();
            let channel = tables.channels.remove(id);
            let name = (id.kind.clone(), id.key.clone());
            // Another one may have the name by now.
            if tables
                .by_name
                .get(&name)
                .is_some_and(|known| known.id == *id)
            {
                tables.by_name.remove(&name);
            }
            channel
        };
        if let Some(channel) = channel {
            let workers = std::mem::take(&mut *channel.workers.lock());
            let ends = workers.values().map(|worker| worker.end(Duration::ZERO));
            futures_util::future::join_all(ends).await;
        }
        if let Some(engine) = plane.engines.get(&id.kind) {
            engine.remove(id).await?;
        }
        Ok(())
    }

    /// The channels that an engine keeps and nothing has been applied for: what no object names is to be removed.
    pub async fn unknown_channels(&self) -> Result<Vec<ChannelId>, EngineError> {
        let mut unknown = Vec::new();
        for engine in self.plane.engines.values() {
            let stored = engine.stored().await?;
            let tables = self.plane.tables.read();
            unknown.extend(
                stored
                    .into_iter()
                    .filter(|id| !tables.channels.contains_key(id)),
            );
        }
        Ok(unknown)
    }

    /// How the subscriptions of all channels are.
    pub fn subscriptions(&self) -> Vec<SubscriptionState> {
        let channels: Vec<Arc<ChannelEntry>> = self
            .plane
            .tables
            .read()
            .channels
            .values()
            .cloned()
            .collect();
        channels
            .iter()
            .flat_map(|channel| states(channel))
            .collect()
    }

    /// How the subscriptions of one channel are.
    pub fn subscriptions_of(&self, id: &ChannelId) -> Vec<SubscriptionState> {
        self.plane
            .channel(id)
            .map(|channel| states(&channel))
            .unwrap_or_default()
    }

    /// The log of a channel: history, replay, redrive.
    pub fn log(&self, id: &ChannelId) -> Option<Arc<dyn ChannelLog>> {
        self.plane.channel(id).map(|channel| channel.log.clone())
    }

    /// Takes no more events, and waits for the deliveries under way. What is not over within `grace` is dropped: durable
    /// channels deliver it after the next start. Deliveries that wait before a retry do not hold this up.
    pub async fn drain(&self, grace: Duration) {
        self.plane.draining.store(true, Ordering::Release);
        let _one = self.applying.lock().await;
        let channels: Vec<Arc<ChannelEntry>> = self
            .plane
            .tables
            .read()
            .channels
            .values()
            .cloned()
            .collect();
        let workers: Vec<Worker> = channels
            .iter()
            .flat_map(|channel| {
                channel
                    .workers
                    .lock()
                    .drain()
                    .map(|(_, one)| one)
                    .collect::<Vec<_>>()
            })
            .collect();
        // All stop first: no delivery of one makes work for another.
        workers.iter().for_each(Worker::stop);
        futures_util::future::join_all(workers.iter().map(|worker| worker.end(grace))).await;
        // Who waits for the deliveries of a channel in memory learns that they were dropped.
        self.plane.stopped.cancel();
    }
}

fn filter_of(tables: &Tables, trigger: &Key) -> Option<Arc<kinglet_events::Filter>> {
    let entry = tables.triggers.get(trigger)?;
    Some(entry.route.filter.clone())
}

fn states(channel: &ChannelEntry) -> Vec<SubscriptionState> {
    let standing = channel.log.subscriptions();
    let workers = channel.workers.lock();
    standing
        .into_iter()
        .filter_map(|one| {
            let worker = workers.get(&one.subscription)?;
            Some(SubscriptionState {
                channel: channel.id.clone(),
                name: worker.subscription.config.load().name.clone(),
                uid: one.subscription,
                backlog: one.backlog,
                in_hand: one.in_hand,
                failing: worker.subscription.failing.lock().clone(),
            })
        })
        .collect()
}
