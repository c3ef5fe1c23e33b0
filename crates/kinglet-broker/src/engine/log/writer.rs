//! The threads that write: each takes all that waits for its channels, writes it channel by channel, and syncs each once.
//!
//! So an event waits for one sync at most that began before it came, whoever else writes. Channels share a writer, not
//! a file: what happens to one channel's file (its bound, damage, removal) happens to no other one.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kinglet_process::Clock;

use super::super::channel::Channel;
use super::super::progress::{Entry, Progress};
use super::super::{AppendError, Position, StoredEvent};
use super::disk;
use super::queue::{Append, Item, Key, Queue};
use super::scan::to_u64;
use super::segments::{Segments, Standings, WriteError};

/// Progress survives a kill as soon as it is written, and a power cut when it is synced, after this time at most.
const SYNC_PROGRESS: SignedDuration = SignedDuration::from_secs(1);
/// How often retention by age is looked after.
const RETAIN: SignedDuration = SignedDuration::from_secs(10);
/// Channels of a writer whose file is open.
const OPEN_FILES_MAX: usize = 32;

struct Written {
    segments: Segments,
    channel: Arc<Channel>,
}

/// What one channel has to write at once.
#[derive(Default)]
struct Group {
    progress: Vec<Entry>,
    appends: Vec<Append>,
}

impl Standings for Arc<Channel> {
    fn progress(&self) -> (Progress, u32) {
        Channel::progress(self)
    }

    fn unfinished(&self) -> (Position, BTreeSet<Position>) {
        Channel::unfinished(self)
    }
}

/// Writes until the queue is closed.
pub(crate) fn run(queue: &Queue, clock: &Clock) {
    let mut writer = Writer::new(clock.now());
    loop {
        let taken = queue.take();
        for key in taken.overflowed {
            if let Some(written) = writer.channels.get_mut(&key) {
                written
                    .segments
                    .close_segment("progress is written as a whole");
            }
        }
        writer.work(taken.items, clock.now());
        writer.look_after(clock.now());
        if taken.closed {
            writer.sync_all();
            return;
        }
    }
}

/// What a writer's thread works on; tests call it without one.
pub(super) struct Writer {
    channels: HashMap<Key, Written>,
    synced_at: Timestamp,
    retained_at: Timestamp,
}

impl Writer {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            channels: HashMap::new(),
            synced_at: now,
            retained_at: now,
        }
    }

    pub(super) fn work(&mut self, items: Vec<Item>, now: Timestamp) {
        let mut groups: Vec<(Key, Group)> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        for item in items {
            let key = match &item {
                Item::Adopt(key, ..)
                | Item::Append(key, _)
                | Item::Progress(key, _)
                | Item::Retain(key, _)
                | Item::Remove(key, _) => *key,
            };
            let place = *places.entry(key).or_insert_with(|| {
                groups.push((key, Group::default()));
                groups.len() - 1
            });
            match item {
                Item::Adopt(_, segments, channel) => {
                    let segments = *segments;
                    self.channels.insert(key, Written { segments, channel });
                }
                Item::Append(_, append) => groups[place].1.appends.push(append),
                Item::Progress(_, entry) => groups[place].1.progress.push(entry),
                Item::Retain(_, retention) => {
                    if let Some(written) = self.channels.get_mut(&key) {
                        written.segments.retention = retention;
                        written.segments.retain(0, &written.channel, now);
                    }
                }
                Item::Remove(_, reply) => {
                    // Dropping the group's replies answers that the channel is closed.
                    groups[place].1 = Group::default();
                    self.channels.remove(&key);
                    let _ = reply.send(());
                }
            }
        }
        for (key, group) in groups {
            if let Some(written) = self.channels.get_mut(&key) {
                written.write(group, now);
            }
        }
        self.close_files(&places);
    }

    /// Bounds open files: those of channels that just wrote stay open.
    fn close_files(&mut self, busy: &HashMap<Key, usize>) {
        let open = |written: &&mut Written| written.segments.has_open_file();
        let mut excess = self
            .channels
            .values_mut()
            .filter(open)
            .count()
            .saturating_sub(OPEN_FILES_MAX);
        for (key, written) in &mut self.channels {
            if excess == 0 {
                break;
            }
            if written.segments.has_open_file() && !busy.contains_key(key) {
                let _ = written.segments.sync();
                written.segments.close_file();
                excess -= 1;
            }
        }
    }

    pub(super) fn look_after(&mut self, now: Timestamp) {
        if now.duration_since(self.synced_at).abs() >= SYNC_PROGRESS {
            self.synced_at = now;
            self.sync_all();
        }
        if now.duration_since(self.retained_at).abs() >= RETAIN {
            self.retained_at = now;
            for written in self.channels.values_mut() {
                written.segments.retain(0, &written.channel, now);
            }
        }
    }

    pub(super) fn sync_all(&mut self) {
        for written in self.channels.values_mut() {
            // The failure is said, and the next write begins a new segment.
            let _ = written.segments.sync();
        }
    }
}

impl Written {
    fn write(&mut self, group: Group, now: Timestamp) {
        let Group { progress, appends } = group;
        let events: Vec<&StoredEvent> = appends.iter().map(|append| &append.event).collect();
        match self.segments.write(&progress, &events, &self.channel, now) {
            Ok(()) => self.sync(appends),
            Err(WriteError::Full) => self.write_what_fits(&progress, appends, now),
            Err(WriteError::Disk(error)) => {
                // Where everything stands is written when the disk takes it again.
                self.segments.close_segment("progress was not written");
                self.refuse(appends, &error);
            }
        }
    }

    /// The channel has no room for all of them.
    fn write_what_fits(&mut self, progress: &[Entry], appends: Vec<Append>, now: Timestamp) {
        if let Err(WriteError::Disk(error)) = self.segments.write(progress, &[], &self.channel, now)
        {
            tracing::warn!(channel = %self.channel.id, "writing progress: {error}");
            self.segments.close_segment("progress was not written");
        }
        let mut taken = Vec::new();
        for append in appends {
            match self
                .segments
                .write(&[], &[&append.event], &self.channel, now)
            {
                Ok(()) => taken.push(append),
                Err(WriteError::Full) => {
                    let error = AppendError::Full {
                        channel: self.channel.id.to_string(),
                        bytes_max: self.segments.retention.bytes_max,
                        held_by: self.channel.oldest().1,
                    };
                    self.answer(append, Err(error));
                }
                Err(WriteError::Disk(error)) => self.refuse(vec![append], &error),
            }
        }
        self.sync(taken);
    }

    fn sync(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        if let Err(error) = self.segments.sync() {
            self.refuse(appends, &error);
            return;
        }
        let mut position = self.channel.head();
        let synced = self.segments.index.state.read().head;
        if synced.0 != position.0 + to_u64(appends.len()) {
            // A segment that was closed in the middle of the group did not take all of it.
            self.refuse(appends, &io::Error::other("its segment was closed"));
            return;
        }
        let mut replies = Vec::with_capacity(appends.len());
        let events: Vec<_> = appends
            .into_iter()
            .map(|append| {
                let Append {
                    event,
                    settle,
                    reply,
                    room,
                } = append;
                replies.push((reply, room));
                (event, settle)
            })
            .collect();
        self.channel.publish(events);
        self.segments.index.set_refused(None);
        for (reply, room) in replies {
            // Who asked may have gone.
            let _ = reply.send(Ok(position));
            position = position.next();
            drop(room);
        }
    }

    fn refuse(&self, appends: Vec<Append>, error: &io::Error) {
        for append in appends {
            let (channel, why) = (self.channel.id.to_string(), error.to_string());
            let error = if disk::is_full(error) {
                AppendError::DiskFull { channel, why }
            } else {
                AppendError::Disk { channel, why }
            };
            self.answer(append, Err(error));
        }
    }

    fn answer(&self, append: Append, answer: Result<Position, AppendError>) {
        if let Err(error) = &answer {
            self.segments.index.set_refused(Some(error.to_string()));
        }
        let _ = append.reply.send(answer);
    }
}
