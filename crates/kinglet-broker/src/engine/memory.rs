//! Events in memory: what an InMemoryChannel promises, and nothing more.
//!
//! Always: an event is kept until every subscription has finished it, and then no longer; the bytes of a channel have a
//! bound; a restart loses everything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kinglet_process::Tasks;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::channel::{Block, Channel, Shelf, Spot};
use super::progress::{Entry, Progress};
use super::{
    AppendError, Capabilities, ChannelId, ChannelLog, ChannelStatus, Cursor, EVENT_BYTES_MAX,
    Engine, EngineError, Matcher, Order, Page, Position, Query, Retention, Settled, StoredEvent,
    SubscriptionStatus, Uid,
};

/// What an event costs besides its bytes.
const EVENT_OVERHEAD_BYTES: u64 = 256;

/// Channels in memory.
pub struct MemoryEngine {
    tasks: Tasks,
    channels: Mutex<HashMap<ChannelId, Arc<MemoryLog>>>,
}

impl MemoryEngine {
    /// An engine without channels; `tasks` owns the routers of its channels.
    pub fn new(tasks: &Tasks) -> Self {
        Self {
            tasks: tasks.clone(),
            channels: Mutex::new(HashMap::new()),
        }
    }
}

impl Engine for MemoryEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            ordered: true,
            replay: false,
        }
    }

    fn open(
        &self,
        channel: &ChannelId,
        retention: Retention,
    ) -> BoxFuture<'_, Result<Arc<dyn ChannelLog>, EngineError>> {
        let log = Arc::clone(
            self.channels
                .lock()
                .entry(channel.clone())
                .or_insert_with(|| {
                    let log = Arc::new(MemoryLog::new(channel));
                    self.tasks
                        .spawn_cancellable("channel router", log.channel.clone().route());
                    log
                }),
        );
        log.shelf.kept.lock().bytes_max = retention.bytes_max;
        let log: Arc<dyn ChannelLog> = log;
        Box::pin(std::future::ready(Ok(log)))
    }

    fn remove(&self, channel: &ChannelId) -> BoxFuture<'_, Result<(), EngineError>> {
        if let Some(log) = self.channels.lock().remove(channel) {
            log.channel.close("the channel was removed");
            log.shelf.kept.lock().events.clear();
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<ChannelId>, EngineError>> {
        let channels = self.channels.lock().keys().cloned().collect();
        Box::pin(std::future::ready(Ok(channels)))
    }
}

struct MemoryLog {
    channel: Arc<Channel>,
    shelf: Arc<MemoryShelf>,
}

#[derive(Default)]
struct MemoryShelf {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    events: BTreeMap<Position, StoredEvent>,
    bytes: u64,
    bytes_max: u64,
    refused: Option<String>,
}

fn cost(event: &StoredEvent) -> u64 {
    EVENT_OVERHEAD_BYTES.saturating_add(u64::try_from(event.bytes()).unwrap_or(u64::MAX))
}

impl Shelf for MemoryShelf {
    fn record(&self, _: Entry) {}

    fn read(&self, spot: Spot, bytes_max: usize) -> BoxFuture<'_, Result<Block, EngineError>> {
        let mut bytes = 0;
        let mut events = VecDeque::new();
        let mut next = spot.position;
        for (&position, event) in self.kept.lock().events.range(spot.position..) {
            if bytes >= bytes_max {
                break;
            }
            bytes += event.bytes();
            next = position.next();
            events.push_back((position, event.clone()));
        }
        let next = next.into();
        Box::pin(std::future::ready(Ok(Block { events, next })))
    }

    fn finished_by_all(&self, position: Position) {
        let mut kept = self.kept.lock();
        if let Some(event) = kept.events.remove(&position) {
            kept.bytes -= cost(&event);
        }
    }
}

impl MemoryLog {
    fn new(id: &ChannelId) -> Self {
        let shelf = Arc::new(MemoryShelf::default());
        let channel = Channel::new(
            id.clone(),
            shelf.clone(),
            Position::FIRST,
            Progress::default(),
            0,
        );
        Self {
            channel: Arc::new(channel.counted()),
            shelf,
        }
    }

    fn take(
        &self,
        event: StoredEvent,
        settle: Option<oneshot::Sender<Settled>>,
    ) -> Result<Position, AppendError> {
        if event.bytes() > EVENT_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes: event.bytes(),
            });
        }
        if let Some(why) = self.channel.closed() {
            return Err(self.channel.append_closed(&why));
        }
        let cost = cost(&event);
        let (bytes, bytes_max) = {
            let kept = self.shelf.kept.lock();
            (kept.bytes, kept.bytes_max)
        };
        if bytes.saturating_add(cost) > bytes_max {
            let error = AppendError::Full {
                channel: self.channel.id.to_string(),
                bytes_max,
                held_by: self.channel.oldest().1,
            };
            self.shelf.kept.lock().refused = Some(error.to_string());
            return Err(error);
        }
        let kept = event.clone();
        let position = self.channel.publish_one(event, settle, |position| {
            let mut shelf = self.shelf.kept.lock();
            shelf.bytes += cost;
            shelf.refused = None;
            shelf.events.insert(position, kept);
        });
        Ok(position)
    }

    fn no_replay(&self) -> EngineError {
        EngineError::NoReplay {
            channel: self.channel.id.to_string(),
        }
    }
}

impl ChannelLog for MemoryLog {
    fn append(&self, event: StoredEvent) -> BoxFuture<'_, Result<Position, AppendError>> {
        Box::pin(std::future::ready(self.take(event, None)))
    }

    fn append_and_settle(&self, event: StoredEvent) -> BoxFuture<'_, Result<Settled, AppendError>> {
        let (reply, settled) = oneshot::channel();
        let taken = self.take(event, Some(reply));
        Box::pin(async move {
            taken?;
            settled.await.map_err(|_| {
                self.channel
                    .append_closed("it was closed before the event was delivered")
            })
        })
    }

    fn route(&self, matcher: Arc<dyn Matcher>) {
        self.channel.set_matcher(matcher);
    }

    fn subscribe(&self, subscription: &Uid, order: Order) -> Result<Box<dyn Cursor>, EngineError> {
        self.channel.subscribe(subscription, order)
    }

    fn unsubscribe(&self, subscription: &Uid) {
        self.channel.unsubscribe(subscription);
    }

    fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.channel.subscriptions()
    }

    fn status(&self) -> ChannelStatus {
        let head = self.channel.head();
        let kept = self.shelf.kept.lock();
        ChannelStatus {
            head,
            bytes: kept.bytes,
            bytes_max: kept.bytes_max,
            damaged: 0,
            refused: kept.refused.clone(),
        }
    }

    fn redeliver(&self, _: &Uid, _: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(std::future::ready(Err(self.no_replay())))
    }

    fn history(&self, _: Query) -> BoxFuture<'_, Result<Page, EngineError>> {
        Box::pin(std::future::ready(Err(self.no_replay())))
    }

    fn arrived(&self, position: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.channel.arrived(position))
    }
}
