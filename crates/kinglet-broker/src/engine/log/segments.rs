//! Writes the segments of one channel: groups, syncs, new segments, retention, compaction.
//!
//! Always: nothing is published that was not synced. A write or sync that failed closes its segment or takes the write
//! back; after a failed sync nothing of that segment is trusted that was not synced before, and the next write begins a
//! new segment with where everything stands.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::progress::{Entry, Progress};
use super::super::{Position, Retention, StoredEvent};
use super::disk::DiskFile;
use super::index::{Index, Segment};
use super::record::{self, Kind, Records};
use super::scan::{Found, Scan, to_u64};

/// A segment is closed at this size: what a damaged place can affect, what a restart reads.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// And not before this one, however small the bound of the channel.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// A channel has at least so many segments within its bound, so that retention can remove some.
const SEGMENTS_MIN: u64 = 8;
/// Disk is taken ahead in steps between these two.
const AHEAD_BYTES_MIN: u64 = 64 << 10;
const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// How often a full channel looks again for what retention may remove.
const LOOK_AGAIN_MICROSECONDS: i64 = 100_000;

/// Where the subscriptions stand, and what is not finished: asked when it is needed.
pub(crate) trait Standings {
    fn progress(&self) -> (Progress, u32);
    /// Everything from the position on, and these before it.
    fn unfinished(&self) -> (Position, BTreeSet<Position>);
}

/// Why a group was not written. Nothing of it is kept.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The channel's bound.
    Full,
    Disk(io::Error),
}

/// The writing side of a channel.
pub(crate) struct Segments {
    pub(crate) index: Arc<Index>,
    pub(crate) retention: Retention,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    file: Option<Arc<dyn DiskFile>>,
    written: u64,
    synced: u64,
    allocated: u64,
    /// The position of the next event to be written.
    next: Position,
    /// Why the segment takes nothing more.
    closed: Option<String>,
    looked_at: i64,
    /// The number of the last segment that was begun, or tried.
    number: u32,
}

impl Segments {
    /// Goes on where the last segment of `index` ends.
    pub(crate) fn new(
        index: Arc<Index>,
        retention: Retention,
        random: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let (end, head) = {
            let state = index.state.read();
            (state.segments.last().map(|last| last.end), state.head)
        };
        let number = index
            .state
            .read()
            .segments
            .last()
            .map_or(0, |last| last.number);
        Self {
            closed: end.is_none().then(|| "there is none yet".to_owned()),
            written: end.unwrap_or(0),
            synced: end.unwrap_or(0),
            allocated: end.unwrap_or(0),
            next: head,
            file: None,
            looked_at: i64::MIN,
            number,
            index,
            retention,
            random,
        }
    }

    /// A damaged segment is not written to any more.
    pub(crate) fn close_segment(&mut self, why: &str) {
        self.closed = Some(why.to_owned());
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced == self.written
    }

    pub(crate) fn has_open_file(&self) -> bool {
        self.file.is_some()
    }

    /// Open files are bounded: an idle channel's is opened again when it is written to.
    pub(crate) fn close_file(&mut self) {
        if self.is_synced() {
            self.file = None;
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.retention.bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Writes progress, then events, without syncing them.
    pub(crate) fn write(
        &mut self,
        progress: &[Entry],
        events: &[&StoredEvent],
        standings: &dyn Standings,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        if !events.is_empty() {
            self.admit(events, standings, now)?;
        }
        if self.closed.is_some() || self.written >= self.segment_bytes() {
            self.begin_segment(standings, now)
                .map_err(WriteError::Disk)?;
        }
        let mark = self.mark();
        let mut records = Records::new(mark, self.synced);
        records.progress(progress);
        let mut next = self.next;
        for event in events {
            records.event(next, event);
            next = next.next();
        }
        self.put(&records.bytes).map_err(WriteError::Disk)?;
        self.next = next;
        if events.is_empty() {
            self.publish();
        }
        Ok(())
    }

    fn mark(&self) -> u64 {
        self.index
            .state
            .read()
            .segments
            .last()
            .map_or(0, |last| last.mark)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.open()?;
        let end = self.written + to_u64(bytes.len());
        if end > self.allocated {
            let step = self.written.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
            let ahead = end + step;
            // Near the end of the disk exactly what is needed may still fit.
            let allocated = file
                .allocate(self.allocated, ahead - self.allocated)
                .map(|()| ahead)
                .or_else(|_| {
                    file.allocate(self.allocated, end - self.allocated)
                        .map(|()| end)
                });
            match allocated {
                Ok(allocated) => self.allocated = allocated,
                Err(error) => {
                    self.take_back(&*file);
                    return Err(error);
                }
            }
        }
        if let Err(error) = file.write_at(bytes, self.written) {
            self.take_back(&*file);
            return Err(error);
        }
        self.written = end;
        Ok(())
    }

    /// Removes what a refused write may have left: it would be found as accepted after a restart.
    fn take_back(&mut self, file: &dyn DiskFile) {
        match file.truncate(self.written) {
            Ok(()) => self.allocated = self.written,
            Err(error) => {
                tracing::error!(channel = %self.index.id, "taking back a write that the disk refused: {error}; the segment is closed");
                self.closed = Some(error.to_string());
            }
        }
    }

    fn open(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let segment = self.index.state.read().segments.last().cloned();
        let segment = segment.ok_or_else(|| io::Error::other("the channel has no segment"))?;
        let file = self.index.disk.open(&self.index.path(&segment))?;
        // Room that was taken ahead before it was closed.
        self.allocated = file.len()?.max(self.written);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Syncs what was written, and publishes it. After a failure the segment is closed at what was synced before.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        let synced = self.open().and_then(|file| file.sync());
        if let Err(error) = synced {
            tracing::error!(channel = %self.index.id, "syncing the event log: {error}; its segment is closed, and nothing is taken for written that was not synced before");
            self.closed = Some(error.to_string());
            let mut state = self.index.state.write();
            self.next = state.head;
            if let Some(last) = state.segments.last_mut() {
                last.end = last.end.min(self.synced);
            }
            drop(state);
            self.file = None;
            self.written = self.synced;
            return Err(error);
        }
        self.synced = self.written;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let mut state = self.index.state.write();
        if let Some(last) = state.segments.last_mut() {
            last.end = self.written;
        }
        state.head = self.next;
    }

    /// Begins a segment with where everything stands.
    fn begin_segment(&mut self, standings: &dyn Standings, now: Timestamp) -> io::Result<()> {
        if self.next != self.index.state.read().head {
            // Events that were written in this group already: they count when this segment takes them.
            self.sync()?;
        }
        self.seal();
        // Each try has its own number: a file that could neither be finished nor removed is none that is written to.
        self.number += 1;
        let mut segment = Segment {
            number: self.number,
            first: self.next,
            created: now.as_microsecond(),
            mark: (self.random)(),
            end: 0,
            compacted: None,
        };
        let mut records = Records::new(segment.mark, 0);
        let (progress, next_number) = standings.progress();
        records.snapshot(next_number, self.next, &progress.entries());
        segment.end = to_u64(records.bytes.len());
        let ahead = segment.end + AHEAD_BYTES_MIN;
        let file = self
            .place(&segment, &records.bytes, ahead)
            .inspect_err(|error| {
                // It may be there after a power cut, so nothing may follow in the one before it.
                self.closed = Some(error.to_string());
            })?;
        self.index.state.write().segments.push(segment.clone());
        self.file = Some(file);
        self.written = segment.end;
        self.synced = segment.end;
        self.allocated = ahead;
        self.closed = None;
        Ok(())
    }

    /// Makes a segment's file, whole and synced, under its name.
    fn place(
        &self,
        segment: &Segment,
        bytes: &[u8],
        allocated: u64,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let index = &self.index;
        let unfinished = index.dir.join(UNFINISHED_FILE);
        let place = || {
            let file = index.disk.create(&unfinished)?;
            file.allocate(0, allocated)?;
            file.write_at(bytes, 0)?;
            file.sync()?;
            index.disk.rename(&unfinished, &index.path(segment))?;
            index.disk.sync_dir(&index.dir)?;
            Ok(file)
        };
        place().inspect_err(|_: &io::Error| {
            // Its room is needed; a start would remove it, too.
            let _ = index.disk.remove(&unfinished);
            let _ = index.disk.remove(&index.path(segment));
        })
    }

    /// The last segment is not written to any more: gives back the room that was taken ahead, and cuts off what a failed
    /// sync may have left.
    fn seal(&mut self) {
        if self.index.state.read().segments.is_empty() {
            return;
        }
        self.file = None;
        let sealed = self.open().and_then(|file| {
            file.truncate(self.written)?;
            file.sync()
        });
        if let Err(error) = sealed {
            tracing::warn!(channel = %self.index.id, "closing a segment of the event log: {error}");
        }
        self.file = None;
    }

    /// May these events come in? Makes room for them with what every subscription has finished.
    fn admit(
        &mut self,
        events: &[&StoredEvent],
        standings: &dyn Standings,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let needed: u64 = events
            .iter()
            .map(|event| to_u64(record::record_bytes(event.bytes() + 12)))
            .sum();
        let fits = |index: &Index| index.bytes().saturating_add(needed) <= self.retention.bytes_max;
        if fits(&self.index) {
            return Ok(());
        }
        let now_microseconds = now.as_microsecond();
        if self.looked_at.saturating_add(LOOK_AGAIN_MICROSECONDS) > now_microseconds {
            return Err(WriteError::Full);
        }
        self.retain(needed, standings, now);
        let fits =
            |this: &Self| this.index.bytes().saturating_add(needed) <= this.retention.bytes_max;
        if fits(self) {
            return Ok(());
        }
        // The rest may be finished events of the segment that is written to.
        let (from, single) = standings.unfinished();
        if from == self.next && single.is_empty() && self.next > self.first_of_last() {
            self.begin_segment(standings, now)
                .map_err(WriteError::Disk)?;
            self.retain(needed, standings, now);
        }
        if fits(self) {
            return Ok(());
        }
        self.looked_at = now_microseconds;
        Err(WriteError::Full)
    }

    fn first_of_last(&self) -> Position {
        let state = self.index.state.read();
        state
            .segments
            .last()
            .map_or(Position::FIRST, |last| last.first)
    }

    /// Removes what every subscription has finished and what is too old or in the way of `needed` bytes.
    pub(crate) fn retain(&mut self, needed: u64, standings: &dyn Standings, now: Timestamp) {
        let (from, single) = standings.unfinished();
        let bytes_max = self.retention.bytes_max.saturating_sub(needed);
        let mut bytes = self.index.bytes();
        let segments = self.index.state.read().segments.clone();
        let mut kept_back = Vec::new();
        for (index, pair) in segments.windows(2).enumerate() {
            let [segment, next] = pair else { continue };
            let held: Vec<Position> = single.range(segment.first..next.first).copied().collect();
            let before_last = index + 2 == segments.len();
            let age = now.duration_since(next.created());
            let old = age.unsigned_abs() >= self.retention.age_max && age.is_positive();
            if next.first > from {
                break;
            }
            // The one before the last stays while there is room: it has the last snapshot but one.
            let removable = held.is_empty() && (bytes > bytes_max || (old && !before_last));
            if removable {
                bytes -= segment.end;
                self.remove(segment);
            } else if !held.is_empty() {
                kept_back.push((segment, held));
            }
        }
        for (segment, held) in kept_back {
            let shrunk = segment
                .compacted
                .is_none_or(|before| held.len() < before / 2);
            if bytes <= bytes_max || !shrunk {
                continue;
            }
            match self.compact(segment, &held) {
                Ok(saved) => bytes = bytes.saturating_sub(saved),
                Err(error) => {
                    tracing::warn!(channel = %self.index.id, "compacting a segment of the event log: {error}");
                }
            }
        }
    }

    fn remove(&mut self, segment: &Segment) {
        // First no reader comes to it any more.
        self.index
            .state
            .write()
            .segments
            .retain(|one| one.number != segment.number);
        self.index.close_file(segment);
        if let Err(error) = self.index.disk.remove(&self.index.path(segment)) {
            tracing::warn!(channel = %self.index.id, "removing a segment of the event log: {error}");
        }
    }

    /// Writes a segment anew with nothing but the events that are not finished. Answers with the bytes saved.
    fn compact(&mut self, segment: &Segment, held: &[Position]) -> io::Result<u64> {
        let file = self.index.disk.open(&self.index.path(segment))?;
        let mut scan = Scan::new(file, segment.mark, 0, segment.end);
        let mut smaller = Segment {
            mark: (self.random)(),
            compacted: Some(held.len()),
            ..segment.clone()
        };
        let mut records = Records::new(smaller.mark, 0);
        let mut found = scan.next()?;
        loop {
            match found {
                Found::Record(one) => {
                    if one.kind == Kind::Event && held.binary_search(&one.position).is_ok() {
                        records.copy(one.kind, one.position, &one.payload);
                    }
                    found = scan.next()?;
                }
                Found::Damaged => found = scan.resume()?,
                Found::End => break,
            }
        }
        smaller.end = to_u64(records.bytes.len());
        self.place(&smaller, &records.bytes, smaller.end)?;
        for one in &mut self.index.state.write().segments {
            if one.number == segment.number {
                *one = smaller.clone();
            }
        }
        self.index.close_file(segment);
        self.index.disk.remove(&self.index.path(segment))?;
        Ok(segment.end.saturating_sub(smaller.end))
    }
}

/// A segment that is being made.
pub(crate) const UNFINISHED_FILE: &str = "unfinished";
