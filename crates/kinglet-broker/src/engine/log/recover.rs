//! Reads at the start where a channel stands: its last segment, and nothing of those before it.
//!
//! A torn end is cut off. A damaged record is said and passed over; when it may have held progress, subscriptions that are
//! not known any more begin at the segment's first event: rather twice than never.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::Position;
use super::super::progress::Progress;
use super::disk::{Disk, DiskFile};
use super::index::{IndexState, Segment};
use super::record::{self, Kind};
use super::scan::{Found, Record, Scan};
use super::segments::UNFINISHED_FILE;

/// Numbers of subscriptions from here on are given when it is not known which ones were.
const NUMBERS_AFTER_LOSS: u32 = 1 << 31;

/// Where a channel stands.
pub(crate) struct Recovered {
    pub(crate) state: IndexState,
    pub(crate) progress: Progress,
    pub(crate) next_number: u32,
    /// Damaged places: segment and offset.
    pub(crate) damaged: Vec<(Segment, u64)>,
    /// Where unknown subscriptions begin; none for the head.
    pub(crate) begin: Option<Position>,
}

/// Reads where the channel in `dir` stands. A channel that is new has no segment.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path) -> io::Result<Recovered> {
    let segments = segments(disk, dir)?;
    let mut recovered = Recovered {
        state: IndexState {
            segments,
            head: Position::FIRST,
        },
        progress: Progress::default(),
        next_number: 0,
        damaged: Vec::new(),
        begin: None,
    };
    let Some(last) = recovered.state.segments.last().cloned() else {
        return Ok(recovered);
    };
    recovered.state.head = last.first;
    let file = disk.open(&dir.join(last.file_name()))?;
    let survey = survey(&file, &last)?;
    if !survey.damaged.is_empty() {
        recovered.begin = Some(last.first);
    }
    recovered
        .damaged
        .extend(survey.damaged.iter().map(|offset| (last.clone(), *offset)));
    if survey.snapshot {
        recovered.replay(&file, &last, survey.end)?;
    } else {
        recovered.replay_without_snapshot(disk, dir, &file, &last, survey.end)?;
    }
    if survey.end < last.end {
        file.truncate(survey.end)?;
        file.sync()?;
    }
    if let Some(last) = recovered.state.segments.last_mut() {
        last.end = survey.end;
    }
    Ok(recovered)
}

/// The segments of a channel. Removes what a crash left: a file that was being made, and one that was compacted.
fn segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for name in disk.list(dir)? {
        if name == UNFINISHED_FILE {
            disk.remove(&dir.join(name))?;
            continue;
        }
        let Some(mut segment) = Segment::parse(&name) else {
            continue;
        };
        segment.end = disk.open(&dir.join(name))?.len()?;
        segments.push(segment);
    }
    // Of two with one number the smaller one is what compaction made of the other.
    segments.sort_by_key(|one| (one.number, one.end));
    let mut kept: Vec<Segment> = Vec::new();
    for segment in segments {
        if kept
            .last()
            .is_some_and(|last| last.number == segment.number)
        {
            disk.remove(&dir.join(segment.file_name()))?;
        } else {
            kept.push(segment);
        }
    }
    Ok(kept)
}

/// What a first look at a segment tells.
struct Survey {
    /// Where its last record ends that counts.
    end: u64,
    /// Records that were damaged after they were synced.
    damaged: Vec<u64>,
    /// Its snapshot is whole.
    snapshot: bool,
}

fn survey(file: &Arc<dyn DiskFile>, segment: &Segment) -> io::Result<Survey> {
    let mut scan = Scan::new(Arc::clone(file), segment.mark, 0, segment.end);
    let mut damaged = Vec::new();
    // Not valid, and no later record says that it was synced.
    let mut torn: Vec<u64> = Vec::new();
    let mut snapshot = SnapshotParts::default();
    loop {
        let before = scan.offset;
        let mut found = scan.next()?;
        if matches!(found, Found::Damaged) {
            torn.push(before);
            snapshot.end();
            found = scan.resume()?;
        }
        let Found::Record(record) = found else { break };
        snapshot.take(&record);
        let synced = torn.partition_point(|offset| *offset < record.synced);
        damaged.extend(torn.drain(..synced));
    }
    let (mut end, whole) = (torn.first().copied(), snapshot.is_whole());
    // The snapshot was synced before its segment had a name.
    if !whole && end == Some(0) && damaged.is_empty() {
        damaged.push(0);
        end = None;
    }
    Ok(Survey {
        end: end.unwrap_or(scan.offset.min(segment.end)),
        damaged,
        snapshot: whole,
    })
}

/// Are all records of the snapshot there?
#[derive(Default)]
enum SnapshotParts {
    #[default]
    None,
    Waiting(u32),
    Ended(bool),
}

impl SnapshotParts {
    fn take(&mut self, record: &Record) {
        let part = (record.kind == Kind::Snapshot)
            .then(|| record::snapshot(&record.payload))
            .flatten();
        *self = match (&*self, part) {
            (Self::None, Some((_, 0, _))) => Self::Ended(true),
            (Self::None, Some((_, following, _))) => Self::Waiting(following),
            (Self::Waiting(1), Some((_, 0, _))) => Self::Ended(true),
            (Self::Waiting(expected), Some((_, following, _))) if following + 1 == *expected => {
                Self::Waiting(following)
            }
            (Self::Ended(whole), _) => Self::Ended(*whole),
            _ => Self::Ended(false),
        };
    }

    fn end(&mut self) {
        if !matches!(self, Self::Ended(_)) {
            *self = Self::Ended(false);
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self, Self::Ended(true))
    }
}

impl Recovered {
    /// Applies what a segment holds, up to `end`.
    fn replay(&mut self, file: &Arc<dyn DiskFile>, segment: &Segment, end: u64) -> io::Result<()> {
        let mut scan = Scan::new(Arc::clone(file), segment.mark, 0, end);
        loop {
            let mut found = scan.next()?;
            if matches!(found, Found::Damaged) {
                found = scan.resume()?;
            }
            match found {
                Found::Record(record) => self.apply(&record),
                Found::Damaged | Found::End => return Ok(()),
            }
        }
    }

    fn apply(&mut self, record: &Record) {
        match record.kind {
            Kind::Event => self.state.head = self.state.head.max(record.position.next()),
            Kind::Snapshot => {
                let Some((next_number, _, entries)) = record::snapshot(&record.payload) else {
                    return;
                };
                self.next_number = self.next_number.max(next_number);
                self.state.head = self.state.head.max(record.position);
                self.apply_all(&entries);
            }
            Kind::Progress => {
                self.apply_all(&record::entries(&record.payload).unwrap_or_default());
            }
        }
    }

    fn apply_all(&mut self, entries: &[super::super::progress::Entry]) {
        for entry in entries {
            self.progress.apply(entry);
            if let super::super::progress::Entry::Subscribed { number, .. } = entry {
                self.next_number = self.next_number.max(number.saturating_add(1));
            }
        }
    }

    /// The last segment's snapshot is damaged: what the one before it tells, if there is one, and the rest of the last.
    fn replay_without_snapshot(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        file: &Arc<dyn DiskFile>,
        last: &Segment,
        end: u64,
    ) -> io::Result<()> {
        let segments = &self.state.segments;
        let before = segments.len().checked_sub(2).map(|at| segments[at].clone());
        let mut known = false;
        if let Some(before) = before {
            let file = disk.open(&dir.join(before.file_name()))?;
            let survey = survey(&file, &before)?;
            known = survey.snapshot && before.number + 1 == last.number;
            if known {
                self.replay(&file, &before, survey.end)?;
                self.state.head = last.first;
            }
        }
        if !known {
            self.next_number = NUMBERS_AFTER_LOSS;
            self.begin = segments_first(&self.state.segments);
        }
        self.replay(file, last, end)
    }
}

fn segments_first(segments: &[Segment]) -> Option<Position> {
    segments.first().map(|one| one.first)
}
