//! The durable engine: a folder per channel with segments of records (docs/decisions/0024).
//!
//! Flow: `append` waits in the queue of the channel's writer, which writes and syncs a group at once (`writer`,
//! `segments`), publishes it to the channel, and answers. Progress of subscriptions trails behind in the same files.
//! A start reads the last segment of a channel (`recover`); cursors and history read segments as they need them (`index`).
//!
//! Guarantees: an answered append survives `kill -9` and a power cut. What subscriptions finished survives a kill, except
//! for the last [`queue::LINGER`], and a power cut, except for the last second: those events come again. Attempts the same.
//! Assumptions: nobody else writes into the folder; a disk that says that it synced did.

pub mod disk;
mod history;
mod index;
mod queue;
mod record;
mod recover;
mod scan;
mod segments;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use kinglet_decide::feed::Key;
use kinglet_process::{Clock, Tasks};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc, oneshot};

use super::channel::{Block, Channel, Shelf, Spot};
use super::progress::Entry;
use super::{
    AppendError, Capabilities, ChannelId, ChannelLog, ChannelStatus, Cursor, EVENT_BYTES_MAX,
    Engine, EngineError, Matcher, Order, Page, Position, Query, Retention, Settled, StoredEvent,
    SubscriptionStatus, Uid,
};
use disk::{Disk, SystemDisk};
use index::{Index, ReadFiles};
use queue::{Append, Item, Queue};
use segments::Segments;

/// Threads that write, each for its share of the channels: disks sync several files at once faster than one by one.
const WRITERS: usize = 4;
/// The file that says which channel a folder is of.
const CHANNEL_FILE: &str = "channel";
/// Folders of channels that are being removed.
const REMOVED_PREFIX: &str = "removed-";
/// A channel's uid, at most; the API server's have 36.
const UID_BYTES_MAX: usize = 100;

/// Where and how the log is kept.
#[derive(Clone)]
pub struct Options {
    /// The log's folder, within the data directory.
    pub dir: PathBuf,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Wall-clock time, for retention.
    pub clock: Clock,
    /// Random numbers that clients cannot guess, for the marks of segments.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Options {
    /// The system's disk and randomness.
    pub fn system(dir: &Path, clock: &Clock) -> Self {
        Self {
            dir: dir.to_owned(),
            disk: Arc::new(SystemDisk),
            clock: clock.clone(),
            // Keys of hash maps come from the system's random numbers.
            random: Arc::new(|| std::hash::RandomState::new().build_hasher().finish()),
        }
    }
}

/// Durable channels.
pub struct LogEngine {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    tasks: Tasks,
    queues: Vec<Arc<Queue>>,
    files: Arc<ReadFiles>,
    channels: Mutex<HashMap<ChannelId, Arc<OnceCell<Arc<LogChannel>>>>>,
    next_key: AtomicU64,
}

impl LogEngine {
    /// Starts the writers; `tasks` owns them. A writer that ends is a component that ended: the process must stop.
    pub fn start(options: Options, tasks: &Tasks) -> io::Result<Self> {
        options.disk.create_dir(&options.dir)?;
        for name in options.disk.list(&options.dir)? {
            if name.starts_with(REMOVED_PREFIX) {
                options.disk.remove_dir(&options.dir.join(name))?;
            }
        }
        let inner = Arc::new(Inner {
            queues: (0..WRITERS).map(|_| Arc::new(Queue::new())).collect(),
            options,
            tasks: tasks.clone(),
            files: Arc::default(),
            channels: Mutex::default(),
            next_key: AtomicU64::new(0),
        });
        let (told, ended) = mpsc::channel(WRITERS);
        for queue in &inner.queues {
            start_writer(queue, &told, &inner.options.clock).inspect_err(|_| {
                inner.queues.iter().for_each(|queue| queue.close());
            })?;
        }
        drop(told);
        tasks.component("event log", Arc::clone(&inner).watch_writers(ended));
        Ok(Self { inner })
    }
}

/// Tells that a writer has ended, however it did.
struct WriterEnds {
    queue: Arc<Queue>,
    told: mpsc::Sender<()>,
}

impl Drop for WriterEnds {
    fn drop(&mut self) {
        self.queue.clear();
        // There is room for one word of each writer.
        let _ = self.told.try_send(());
    }
}

fn start_writer(queue: &Arc<Queue>, told: &mpsc::Sender<()>, clock: &Clock) -> io::Result<()> {
    let ends = WriterEnds {
        queue: Arc::clone(queue),
        told: told.clone(),
    };
    let clock = clock.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "`WriterEnds` tells when it ends or panics"
    )]
    std::thread::Builder::new()
        .name("event-writer".into())
        .spawn(move || {
            let ends = ends;
            writer::run(&ends.queue, &clock);
        })?;
    Ok(())
}

impl Inner {
    /// Ends when a writer does: the process must stop then. When Kinglet stops, what waits is written first.
    async fn watch_writers(self: Arc<Self>, mut ended: mpsc::Receiver<()>) {
        let token = self.tasks.token();
        let why = tokio::select! {
            _ = ended.recv() => "a writer of the event log has ended (see the log)",
            () = token.cancelled() => {
                self.queues.iter().for_each(|queue| queue.close());
                // Until each has dropped its end.
                while ended.recv().await.is_some() {}
                "Kinglet stops"
            }
        };
        self.close_channels(why);
    }

    fn close_channels(&self, why: &str) {
        let channels: Vec<_> = self.channels.lock().values().cloned().collect();
        for log in channels.iter().filter_map(|cell| cell.get()) {
            log.channel.close(why);
        }
    }

    fn dir_of(&self, channel: &ChannelId) -> Result<PathBuf, EngineError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let uid = channel.uid.as_bytes();
        if uid.is_empty() || uid.len() > UID_BYTES_MAX {
            return Err(io_error(
                channel,
                "naming the folder",
                &io::Error::other("its uid is empty or too long"),
            ));
        }
        let name = if uid.iter().copied().all(plain) && !channel.uid.starts_with(REMOVED_PREFIX) {
            channel.uid.to_string()
        } else {
            use std::fmt::Write as _;
            uid.iter().fold("x_".to_owned(), |mut name, byte| {
                let _ = write!(name, "{byte:02x}");
                name
            })
        };
        Ok(self.options.dir.join(name))
    }

    async fn open(
        self: Arc<Self>,
        id: ChannelId,
        retention: Retention,
    ) -> Result<Arc<dyn ChannelLog>, EngineError> {
        let cell = Arc::clone(self.channels.lock().entry(id.clone()).or_default());
        let log = cell
            .get_or_try_init(|| Arc::clone(&self).open_once(id, retention))
            .await?;
        log.queue.push(Item::Retain(log.key, retention));
        *log.retention.lock() = retention;
        Ok(Arc::clone(log) as Arc<dyn ChannelLog>)
    }

    async fn open_once(
        self: Arc<Self>,
        id: ChannelId,
        retention: Retention,
    ) -> Result<Arc<LogChannel>, EngineError> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let share = usize::try_from(key).unwrap_or(0) % self.queues.len();
        let queue = Arc::clone(&self.queues[share]);
        let inner = Arc::clone(&self);
        let opened = id.clone();
        let (log, segments) = on_disk(&id, "opening the folder", move || {
            inner.recover(opened, retention, key, queue)
        })
        .await?;
        log.queue.push(Item::Adopt(
            key,
            Box::new(segments),
            Arc::clone(&log.channel),
        ));
        self.tasks
            .spawn_cancellable("channel router", Arc::clone(&log.channel).route());
        Ok(log)
    }

    fn recover(
        &self,
        id: ChannelId,
        retention: Retention,
        key: u64,
        queue: Arc<Queue>,
    ) -> io::Result<(Arc<LogChannel>, Segments)> {
        let dir = self.dir_of(&id).map_err(io::Error::other)?;
        let disk = &self.options.disk;
        make_dir(&**disk, &self.options.dir, &dir, &id)?;
        let recovered = recover::recover(&**disk, &dir)?;
        let head = recovered.state.head;
        let index = Arc::new(Index::new(
            id.clone(),
            dir,
            Arc::clone(disk),
            Arc::clone(&self.files),
            recovered.state,
        ));
        let mut segments = Segments::new(
            Arc::clone(&index),
            retention,
            Arc::clone(&self.options.random),
        );
        for (segment, offset) in &recovered.damaged {
            index.found_damage(segment, *offset);
            segments.close_segment("a record in it is damaged");
        }
        let shelf = Arc::new(LogShelf {
            index: Arc::clone(&index),
            key,
            queue: Arc::clone(&queue),
        });
        let channel = Channel::new(id, shelf, head, recovered.progress, recovered.next_number)
            .beginning_at(recovered.begin);
        let log = LogChannel {
            channel: Arc::new(channel),
            index,
            key,
            queue,
            retention: Mutex::new(retention),
        };
        Ok((Arc::new(log), segments))
    }

    async fn remove(self: Arc<Self>, id: ChannelId) -> Result<(), EngineError> {
        let dir = self.dir_of(&id)?;
        let cell = self.channels.lock().remove(&id);
        if let Some(log) = cell.as_ref().and_then(|cell| cell.get()) {
            log.channel.close("the channel was removed");
            let (reply, removed) = oneshot::channel();
            log.queue.push(Item::Remove(log.key, reply));
            // A dropped reply: the writer has ended, and nothing is written any more.
            let _ = removed.await;
            log.index.close_files();
        }
        on_disk(&id, "removing the folder", move || {
            let disk = &self.options.disk;
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let removed = self.options.dir.join(format!("{REMOVED_PREFIX}{name}"));
            match disk.rename(&dir, &removed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
            disk.sync_dir(&self.options.dir)?;
            disk.remove_dir(&removed)
        })
        .await
    }

    fn stored(&self) -> io::Result<Vec<ChannelId>> {
        let disk = &self.options.disk;
        let mut channels = Vec::new();
        for name in disk.list(&self.options.dir)? {
            if name.starts_with(REMOVED_PREFIX) {
                continue;
            }
            match read_channel_file(&**disk, &self.options.dir.join(&name)) {
                Ok(Some(id)) => channels.push(id),
                Ok(None) => {
                    tracing::warn!(name, "a folder of the event log does not say whose it is");
                }
                // Removed in between, or never finished.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(channels)
    }
}

/// Makes a channel's folder with the file that says whose it is.
fn make_dir(disk: &dyn Disk, above: &Path, dir: &Path, id: &ChannelId) -> io::Result<()> {
    disk.create_dir(dir)?;
    if read_channel_file(disk, dir).is_ok_and(|found| found.is_some()) {
        return Ok(());
    }
    let text = format!(
        "{}\n{}\n{}\n{}\n",
        id.kind, id.key.namespace, id.key.name, id.uid
    );
    let new = dir.join(segments::UNFINISHED_FILE);
    let file = disk.create(&new)?;
    file.write_at(text.as_bytes(), 0)?;
    file.sync()?;
    disk.rename(&new, &dir.join(CHANNEL_FILE))?;
    disk.sync_dir(dir)?;
    disk.sync_dir(above)
}

fn read_channel_file(disk: &dyn Disk, dir: &Path) -> io::Result<Option<ChannelId>> {
    let file = disk.open(&dir.join(CHANNEL_FILE))?;
    // Names in Kubernetes have at most 253 characters.
    let mut text = vec![0; 2048];
    let length = file.read_at(&mut text, 0)?;
    text.truncate(length);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let [kind, namespace, name, uid] = lines[..] else {
        return Ok(None);
    };
    Ok(Some(ChannelId {
        kind: kind.into(),
        key: Key::new(namespace, name),
        uid: uid.into(),
    }))
}

fn io_error(channel: &ChannelId, attempted: &'static str, error: &io::Error) -> EngineError {
    EngineError::Io {
        attempted,
        channel: channel.to_string(),
        why: error.to_string(),
    }
}

/// Runs what blocks off the runtime.
async fn on_disk<R: Send + 'static>(
    channel: &ChannelId,
    attempted: &'static str,
    work: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> Result<R, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| io_error(channel, attempted, &error)),
        Err(panic) => Err(io_error(channel, attempted, &io::Error::other(panic))),
    }
}

impl Engine for LogEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            ordered: true,
            replay: true,
        }
    }

    fn open(
        &self,
        channel: &ChannelId,
        retention: Retention,
    ) -> BoxFuture<'_, Result<Arc<dyn ChannelLog>, EngineError>> {
        Box::pin(Arc::clone(&self.inner).open(channel.clone(), retention))
    }

    fn remove(&self, channel: &ChannelId) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(Arc::clone(&self.inner).remove(channel.clone()))
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<ChannelId>, EngineError>> {
        let inner = Arc::clone(&self.inner);
        let all = ChannelId {
            kind: "any channel".into(),
            key: Key::new("*", "*"),
            uid: "".into(),
        };
        Box::pin(async move { on_disk(&all, "listing the folders", move || inner.stored()).await })
    }
}

struct LogShelf {
    index: Arc<Index>,
    key: u64,
    queue: Arc<Queue>,
}

impl Shelf for LogShelf {
    fn record(&self, entry: Entry) {
        self.queue.trail(self.key, entry);
    }

    fn read(&self, spot: Spot, bytes_max: usize) -> BoxFuture<'_, Result<Block, EngineError>> {
        let index = Arc::clone(&self.index);
        Box::pin(async move {
            on_disk(&self.index.id, "reading", move || {
                index.read(spot, bytes_max)
            })
            .await
        })
    }

    fn finished_by_all(&self, _: Position) {}
}

struct LogChannel {
    channel: Arc<Channel>,
    index: Arc<Index>,
    key: u64,
    queue: Arc<Queue>,
    retention: Mutex<Retention>,
}

impl LogChannel {
    async fn take(
        &self,
        event: StoredEvent,
        settle: Option<oneshot::Sender<Settled>>,
    ) -> Result<Position, AppendError> {
        let bytes = event.bytes();
        if bytes > EVENT_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes });
        }
        let room = self.queue.room(bytes).await;
        let room = room.ok_or_else(|| self.closed())?;
        if let Some(why) = self.channel.closed() {
            return Err(self.channel.append_closed(&why));
        }
        let (reply, answer) = oneshot::channel();
        self.queue.push(Item::Append(
            self.key,
            Append {
                event,
                settle,
                reply,
                room,
            },
        ));
        answer.await.map_err(|_| self.closed())?
    }

    fn closed(&self) -> AppendError {
        let why = self.channel.closed();
        self.channel
            .append_closed(why.as_deref().unwrap_or("the event log has stopped"))
    }
}

impl ChannelLog for LogChannel {
    fn append(&self, event: StoredEvent) -> BoxFuture<'_, Result<Position, AppendError>> {
        Box::pin(self.take(event, None))
    }

    fn append_and_settle(&self, event: StoredEvent) -> BoxFuture<'_, Result<Settled, AppendError>> {
        Box::pin(async move {
            let (reply, settled) = oneshot::channel();
            self.take(event, Some(reply)).await?;
            settled.await.map_err(|_| self.closed())
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
        ChannelStatus {
            head: self.channel.head(),
            bytes: self.index.bytes(),
            bytes_max: self.retention.lock().bytes_max,
            damaged: self.index.damaged(),
            refused: self.index.refused(),
        }
    }

    fn redeliver(
        &self,
        subscription: &Uid,
        position: Position,
    ) -> BoxFuture<'_, Result<(), EngineError>> {
        let (index, subscription) = (Arc::clone(&self.index), subscription.clone());
        Box::pin(async move {
            let block = on_disk(&self.index.id, "reading", move || {
                index.read(position.into(), 1)
            });
            let found = block.await?.events.front().map(|(found, _)| *found);
            if found != Some(position) {
                return Err(EngineError::NoEvent {
                    channel: self.channel.id.to_string(),
                    position,
                });
            }
            self.channel.redeliver(&subscription, position)
        })
    }

    fn history(&self, query: Query) -> BoxFuture<'_, Result<Page, EngineError>> {
        let (index, channel) = (Arc::clone(&self.index), Arc::clone(&self.channel));
        Box::pin(async move {
            on_disk(&self.index.id, "reading the history", move || {
                history::read(&index, &channel, &query)
            })
            .await
        })
    }

    fn arrived(&self, position: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.channel.arrived(position))
    }
}
