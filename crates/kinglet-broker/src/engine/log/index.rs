//! Which segments a channel has, and how they are read: what the writer and every reader share.
//!
//! Always: a reader goes no further than what was synced and published; files that readers hold open are bounded.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::super::channel::{Block, Spot};
use super::super::{ChannelId, Position};
use super::disk::{Disk, DiskFile};
use super::record::{self, Kind};
use super::scan::{Found, Record, Scan};

/// Segments that readers of all channels keep open, beside those that they read at the moment.
const READ_FILES_MAX: usize = 64;

/// A file of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    /// The first event that it may have.
    pub(crate) first: Position,
    pub(crate) created: i64,
    /// See [`record`].
    pub(crate) mark: u64,
    /// Bytes with records.
    pub(crate) end: u64,
    /// Events that it was left with when it was compacted.
    pub(crate) compacted: Option<usize>,
}

impl Segment {
    pub(crate) fn file_name(&self) -> String {
        format!(
            "{:08x}-{:016x}-{:016x}-{:016x}{}",
            self.number, self.first.0, self.created, self.mark, SUFFIX
        )
    }

    /// None for a file that is not a segment.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let segment = Self {
            number: u32::try_from(number()?).ok()?,
            first: Position(number()?),
            created: number()?.cast_signed(),
            mark: number()?,
            end: 0,
            compacted: None,
        };
        parts.next().is_none().then_some(segment)
    }

    pub(crate) fn created(&self) -> Timestamp {
        Timestamp::from_microsecond(self.created).unwrap_or(Timestamp::MIN)
    }
}

const SUFFIX: &str = ".log";

/// Segments of one channel.
pub(crate) struct Index {
    pub(crate) id: ChannelId,
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) state: RwLock<IndexState>,
    files: Arc<ReadFiles>,
    damaged: AtomicU64,
    /// Why the last append was refused.
    refused: Mutex<Option<String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct IndexState {
    /// By number; the last one is written to.
    pub(crate) segments: Vec<Segment>,
    /// Everything before it is published.
    pub(crate) head: Position,
}

/// Files that readers have open.
#[derive(Default)]
pub(crate) struct ReadFiles(Mutex<VecDeque<(PathBuf, Arc<dyn DiskFile>)>>);

impl ReadFiles {
    fn open(&self, disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.0.lock();
        if let Some(index) = files.iter().position(|(known, _)| known == path)
            && let Some((path, file)) = files.remove(index)
        {
            files.push_back((path, Arc::clone(&file)));
            return Ok(file);
        }
        drop(files);
        let file = disk.open(path)?;
        let mut files = self.0.lock();
        files.push_back((path.to_owned(), Arc::clone(&file)));
        if files.len() > READ_FILES_MAX {
            files.pop_front();
        }
        Ok(file)
    }

    /// A file that was removed is closed, so that its space is free.
    pub(crate) fn close(&self, dir_or_file: &Path) {
        self.0
            .lock()
            .retain(|(path, _)| !path.starts_with(dir_or_file));
    }
}

impl Index {
    pub(crate) fn new(
        id: ChannelId,
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        files: Arc<ReadFiles>,
        state: IndexState,
    ) -> Self {
        Self {
            id,
            dir,
            disk,
            state: RwLock::new(state),
            files,
            damaged: AtomicU64::new(0),
            refused: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self, segment: &Segment) -> PathBuf {
        self.dir.join(segment.file_name())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state.read().segments.iter().map(|one| one.end).sum()
    }

    pub(crate) fn set_refused(&self, why: Option<String>) {
        *self.refused.lock() = why;
    }

    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn found_damage(&self, segment: &Segment, offset: u64) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            channel = %self.id,
            file = %self.path(segment).display(),
            offset,
            "a record of the event log is damaged: its checksum does not match; the other records of the file are read"
        );
    }

    pub(crate) fn close_file(&self, segment: &Segment) {
        self.files.close(&self.path(segment));
    }

    pub(crate) fn close_files(&self) {
        self.files.close(&self.dir);
    }

    /// Reads on the thread that calls: see [`super::super::channel::Shelf::read`].
    pub(crate) fn read(&self, spot: Spot, bytes_max: usize) -> io::Result<Block> {
        let mut walk = self.walk(spot)?;
        let mut events = VecDeque::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(record) = walk.next()? else { break };
            if record.kind != Kind::Event || record.position < spot.position {
                continue;
            }
            if let Some(event) = record::event(&record.payload) {
                bytes += event.bytes().max(1);
                events.push_back((record.position, event));
            }
        }
        let position = if bytes < bytes_max {
            walk.head
        } else {
            events.back().map_or(spot.position, |(last, _)| last.next())
        };
        let next = Spot {
            position: position.max(spot.position),
            place: walk.place(),
        };
        Ok(Block { events, next })
    }

    /// Every record from `spot` on.
    pub(crate) fn walk(&self, spot: Spot) -> io::Result<Walk<'_>> {
        let state = self.state.read().clone();
        let at = first_of(&state.segments, spot.position);
        let mut walk = Walk {
            index: self,
            head: state.head,
            segments: state.segments.into_iter().skip(at).collect(),
            scan: None,
            reached: None,
            suspect: None,
        };
        if let Some((mark, offset)) = spot.place
            && let Some(at) = walk.segments.iter().position(|one| one.mark == mark)
            && walk.segments[at].first <= spot.position
        {
            walk.segments.drain(..at);
            walk.open(offset)?;
            walk.reached = Some(spot.position);
        }
        Ok(walk)
    }

    /// Every record from the segment on that may have events of `since`.
    pub(crate) fn walk_since(&self, since: Timestamp) -> io::Result<Walk<'_>> {
        let segments = self.state.read().segments.clone();
        let at = segments
            .partition_point(|one| one.created() <= since)
            .saturating_sub(1);
        let from = segments.get(at).map_or(Position::FIRST, |one| one.first);
        self.walk(from.into())
    }
}

/// The first segment that may have the event at `position`. Segments without events begin where the next one does.
fn first_of(segments: &[Segment], position: Position) -> usize {
    let after = segments.partition_point(|one| one.first <= position);
    let Some(first) = segments[..after].last().map(|one| one.first) else {
        return 0;
    };
    segments[..after].partition_point(|one| one.first < first)
}

/// Goes through the records of a channel.
pub(crate) struct Walk<'a> {
    index: &'a Index,
    pub(crate) head: Position,
    /// The first one is being read.
    segments: VecDeque<Segment>,
    scan: Option<Scan>,
    /// The event after the last one that was seen.
    reached: Option<Position>,
    /// Where a record is not valid, of which it is not known yet whether it was ever synced.
    suspect: Option<u64>,
}

impl Walk<'_> {
    /// Opens the first segment that is there.
    fn open(&mut self, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        while let Some(segment) = self.segments.front() {
            let path = self.index.path(segment);
            match self.index.files.open(&*self.index.disk, &path) {
                Ok(file) => {
                    self.reached = Some(segment.first);
                    self.scan = Some(Scan::new(file, segment.mark, offset, segment.end));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let gone = segment.clone();
                    self.refresh(&gone);
                    offset = 0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file is gone. When retention or compaction took it, what was in it is finished or in the one that came in its
    /// place; else somebody else removed it.
    fn refresh(&mut self, gone: &Segment) {
        let now = self.index.state.read().segments.clone();
        self.segments = now
            .into_iter()
            .filter(|one| one.number >= gone.number)
            .collect();
        if self
            .segments
            .front()
            .is_some_and(|one| one.mark == gone.mark)
        {
            self.index.found_damage(gone, 0);
            self.segments.pop_front();
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if self.scan.is_none() {
                self.open(0)?;
            }
            let (Some(segment), Some(scan)) = (self.segments.front(), &mut self.scan) else {
                return Ok(None);
            };
            let before = scan.offset;
            let mut found = scan.next()?;
            if matches!(found, Found::Damaged) {
                self.suspect.get_or_insert(before);
                found = scan.resume()?;
            }
            let Found::Record(record) = found else {
                if !self.next_segment() {
                    return Ok(None);
                }
                continue;
            };
            if let Some(suspect) = self.suspect.take_if(|suspect| *suspect < record.synced) {
                self.index.found_damage(segment, suspect);
            }
            if self.is_stale(&record) {
                continue;
            }
            if record.kind == Kind::Event {
                self.reached = self.reached.map(|_| record.position.next());
            }
            return Ok(Some(record));
        }
    }

    /// Goes on to the next segment; `false` when there is none.
    fn next_segment(&mut self) -> bool {
        let Some(next) = self.segments.get(1) else {
            return false;
        };
        // A segment that was closed after a failed sync may end in what was never acknowledged: then no event is missing.
        let whole = self.reached == Some(next.first);
        if let (Some(suspect), Some(segment), false) = (self.suspect, self.segments.front(), whole)
        {
            self.index.found_damage(segment, suspect);
        }
        self.suspect = None;
        self.segments.pop_front();
        self.scan = None;
        true
    }

    /// Written, but not synced before its segment was closed: its position went to another event.
    fn is_stale(&self, record: &Record) -> bool {
        record.kind == Kind::Event
            && (record.position >= self.head
                || self
                    .segments
                    .get(1)
                    .is_some_and(|next| record.position >= next.first))
    }

    /// Where the next record stands.
    fn place(&self) -> Option<(u64, u64)> {
        let segment = self.segments.front()?;
        Some((segment.mark, self.scan.as_ref()?.offset))
    }
}
